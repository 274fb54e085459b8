//! What a debugger is tried on: counts once and ends with 7; or, as its first argument says, `sleep`s or `compute`s until
//! somebody has changed the count.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_guest::process::exit;
use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, println};

/// By a name that a debugger finds without debug information of types.
#[unsafe(no_mangle)]
static NUMBER: AtomicU32 = AtomicU32::new(20);

const ENOUGH: u32 = 99;

#[inline(never)]
fn count() {
    NUMBER.fetch_add(1, Ordering::Relaxed); // MARK break
}

fn is_enough() -> bool {
    NUMBER.load(Ordering::Relaxed) == ENOUGH
}

#[wakebox_guest::main]
async fn main() {
    let job = env::args().next();
    if job.is_some() {
        println!("begins");
    }
    match job {
        Some("sleep") => {
            while !is_enough() {
                sleep(Duration::from_millis(10)).await;
            }
        }
        Some(_) => {
            // So that the line goes out.
            yield_now().await;
            yield_now().await;
            while !is_enough() {}
        }
        None => {
            count();
            println!("{}", NUMBER.load(Ordering::Relaxed));
            exit(7);
        }
    }
}
