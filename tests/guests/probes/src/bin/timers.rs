//! Timers: in order, many, zero, far, and dropped.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::pending;

use wakebox_guest::time::{Duration, Instant, interval, sleep, sleep_until, timeout};
use wakebox_guest::{println, random, spawn, stats};

/// Whether timers of random durations end in the order of their deadlines, none early.
/// The first is due when all have been set.
async fn in_order(count: usize) -> bool {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let mut state = random::seed()[0] | 1;
    let start = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let deadline = start + Duration::from_micros(100_000 + state % 100_000);
            let ends = ends.clone();
            spawn(async move {
                sleep_until(deadline).await;
                ends.borrow_mut().push(deadline);
                Instant::now() >= deadline
            })
        })
        .collect();
    let mut none_early = true;
    for task in tasks {
        none_early &= task.await.unwrap_or(false);
    }
    none_early && ends.borrow().is_sorted() && ends.borrow().len() == count
}

#[wakebox_guest::main]
async fn main() {
    println!("ten in order {}", in_order(10).await);
    println!("many in order {}", in_order(10_000).await);

    let start = Instant::now();
    sleep(Duration::ZERO).await;
    sleep_until(Instant::from_nanos(0)).await;
    println!("zero {}", start.elapsed() < Duration::from_millis(100));

    let far = spawn(sleep(Duration::MAX));
    sleep(Duration::from_millis(2)).await;
    println!("far {}", !far.is_finished());
    far.abort();

    for _ in 0..100_000 {
        drop(timeout(Duration::from_secs(1_000), pending::<()>()));
    }
    for _ in 0..1_000 {
        let _ = timeout(Duration::from_secs(1_000), async {}).await;
    }
    let before = stats().operations;
    let start = Instant::now();
    sleep(Duration::from_millis(5)).await;
    let elapsed = start.elapsed();
    println!("dropped {}", elapsed >= Duration::from_millis(5));
    println!("few deadlines {}", stats().operations - before < 10);

    let mut beat = interval(Duration::from_millis(2));
    let first = beat.tick().await;
    for _ in 0..9 {
        beat.tick().await;
    }
    println!(
        "interval {}",
        beat.tick().await >= first + Duration::from_millis(20)
    );
}
