//! Timers: in order, many, zero, far, and dropped.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::pending;
use core::pin::pin;

use futures_lite::future::poll_once;
use wakebox_guest::time::{Duration, Instant, interval, sleep, sleep_until, timeout};
use wakebox_guest::{println, random, spawn, stats};

/// Whether timers of random durations end in the order of their deadlines, none early.
async fn in_order(count: usize) -> bool {
    // The first must not be due before the last has been set, which takes a while on some machines.
    let mut lead = Duration::from_millis(100);
    loop {
        if let Some(good) = in_order_after(lead, count).await {
            return good;
        }
        lead *= 4;
    }
}

/// As [`in_order`], if all have been set within `lead`.
async fn in_order_after(lead: Duration, count: usize) -> Option<bool> {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let all_in_time = Rc::new(Cell::new(true));
    let mut state = random::seed()[0] | 1;
    let first = Instant::now() + lead;
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let deadline = first + Duration::from_micros(state % 100_000);
            let (ends, all_in_time) = (ends.clone(), all_in_time.clone());
            spawn(async move {
                let mut sleep = pin!(sleep_until(deadline));
                let is_set = poll_once(sleep.as_mut()).await.is_none();
                if !is_set || Instant::now() >= first {
                    all_in_time.set(false);
                    return true;
                }
                sleep.await;
                ends.borrow_mut().push(deadline);
                Instant::now() >= deadline
            })
        })
        .collect();
    let mut none_early = true;
    for task in tasks {
        none_early &= task.await.unwrap_or(false);
    }
    let ends = ends.borrow();
    all_in_time
        .get()
        .then(|| none_early && ends.is_sorted() && ends.len() == count)
}

#[wakebox_guest::main]
async fn main() {
    println!("ten in order {}", in_order(10).await);
    println!("many in order {}", in_order(10_000).await);

    let no_time = async {
        sleep(Duration::ZERO).await;
        sleep_until(Instant::from_nanos(0)).await;
    };
    let hour = Duration::from_secs(3_600);
    println!("zero {}", timeout(hour, no_time).await.is_ok());

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
