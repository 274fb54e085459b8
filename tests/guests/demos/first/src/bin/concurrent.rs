//! The same five waits as in `sequential`, all at once.
//!
//! What to watch: the elapsed time is that of the longest wait. Each wait is a task; the
//! host sees one deadline at a time, that of the nearest, and wakes exactly whom it is for.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::time::{Duration, Instant, sleep};
use wakebox_guest::{println, spawn, stats};

/// Milliseconds.
const WAITS: [u64; 5] = [500, 400, 300, 200, 100];

async fn wait(number: usize, millis: u64) {
    sleep(Duration::from_millis(millis)).await;
    println!("wait {number} is over after {millis} ms");
}

#[wakebox_guest::main]
async fn main() {
    let start = Instant::now();
    let tasks = WAITS
        .iter()
        .enumerate()
        .map(|(number, millis)| spawn(wait(number, *millis)));
    // All are spawned before the first is awaited.
    for task in tasks.collect::<Vec<_>>() {
        let _ = task.await;
    }
    println!(
        "five waits, {} ms, {} polls",
        start.elapsed().as_millis(),
        stats().polls
    );
}
