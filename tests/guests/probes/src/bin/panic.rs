//! Panics in the place that its argument names: by default in a task with a name, after printing
//! a line. The tests find the lines by their `MARK` comments.
#![no_std]
#![no_main]

use core::future::poll_fn;
use core::hint::black_box;

use wakebox_guest::task::spawn_named;
use wakebox_guest::{env, println};

#[inline(never)]
fn fetch(numbers: &[u32], index: usize) -> u32 {
    numbers[index] // MARK task
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        black_box(None::<u8>).expect("a bomb"); // MARK drop
    }
}

struct Unprintable;

impl core::fmt::Display for Unprintable {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        panic!("cannot be printed")
    }
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let place = args.next().unwrap_or_default();
    let index = black_box(8);
    println!("about to panic");
    match place {
        "drop" => drop(black_box(Bomb)),                  // MARK dropped
        "poll" => poll_fn(|_| panic!("in a poll")).await, // MARK poll
        "twice" => panic!("{}", Unprintable),             // MARK twice
        _ => {
            let task = spawn_named("unlucky", async move { fetch(&[1, 2, 3], index) });
            let _ = task.await;
        }
    }
}
