//! Five waits, one after another.
//!
//! What to watch: the elapsed time is the sum of the waits, and each wait is a sleep of the
//! whole guest, with an exit of its own. Compare with `concurrent`.
#![no_std]
#![no_main]

use wakebox_guest::time::{Duration, Instant, sleep};
use wakebox_guest::{println, stats};

/// Milliseconds.
const WAITS: [u64; 5] = [500, 400, 300, 200, 100];

async fn wait(number: usize, millis: u64) {
    sleep(Duration::from_millis(millis)).await;
    println!("wait {number} is over after {millis} ms");
}

#[wakebox_guest::main]
async fn main() {
    let start = Instant::now();
    for (number, millis) in WAITS.into_iter().enumerate() {
        wait(number, millis).await;
    }
    println!(
        "five waits, {} ms, {} polls",
        start.elapsed().as_millis(),
        stats().polls
    );
}
