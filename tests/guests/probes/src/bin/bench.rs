//! What things take, measured inside the guest: `bench [OPERATIONS [nop]]`; a line `key value` each.
//! With `nop`, only what operations take.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::io::Result;
use wakebox_guest::task::yield_now;
use wakebox_guest::time::Instant;
use wakebox_guest::{env, ops, println, spawn};

const TASKS: u64 = 1_000;
const ROUNDS: u64 = 200;

/// Nanoseconds since `start`, for one of `count`.
fn each(start: Instant, count: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A task that is spawned, polled once and gone.
async fn spawn_and_complete() -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..TASKS {
            spawn(async {});
        }
        // Behind all of them.
        yield_now().await;
        rounds.push(each(start, TASKS));
    }
    median(rounds)
}

/// A task that wakes itself while it is polled.
async fn wake_and_poll() -> f64 {
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            spawn(async {
                for _ in 0..ROUNDS + 1 {
                    yield_now().await;
                }
            })
        })
        .collect();
    let mut rounds = Vec::new();
    yield_now().await;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        yield_now().await;
        rounds.push(each(start, TASKS + 1));
    }
    for task in tasks {
        let _ = task.await;
    }
    median(rounds)
}

/// A turn of the executor in which one task is polled.
async fn turn() -> f64 {
    let start = Instant::now();
    for _ in 0..TASKS * ROUNDS {
        yield_now().await;
    }
    each(start, TASKS * ROUNDS)
}

/// A look at the clock.
fn look_at_clock() -> f64 {
    let start = Instant::now();
    for _ in 0..TASKS {
        core::hint::black_box(Instant::now());
    }
    each(start, TASKS)
}

/// Nanoseconds of each of `count` no-ops, one at a time, in ascending order.
async fn round_trips(count: u64) -> Result<Vec<u64>> {
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let start = Instant::now();
        ops::nop().await?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times)
}

/// No-ops a second, with so many in flight.
async fn throughput(in_flight: u64, count: u64) -> Result<u64> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            spawn(async move {
                for _ in 0..count / in_flight {
                    ops::nop().await?;
                }
                Result::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap_or(Ok(()))?;
    }
    let nanos = start.elapsed().as_nanos().max(1) as u64;
    Ok(count / in_flight * in_flight * 1_000_000_000 / nanos)
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args();
    let count = args.next().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(20_000_u64).max(256);
    if args.next() != Some("nop") {
        println!("spawn_complete_ns {:.1}", spawn_and_complete().await);
        println!("wake_poll_ns {:.1}", wake_and_poll().await);
        println!("turn_ns {:.1}", turn().await);
        println!("clock_ns {:.1}", look_at_clock());
    }
    let times = round_trips(count).await?;
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("nop_min_ns {}", at(0));
    println!("nop_median_ns {}", at(50));
    println!("nop_p99_ns {}", at(99));
    // As a median, but finer than the steps of the counter.
    let middle = &times[times.len() * 2 / 5..times.len() * 3 / 5];
    let sum: u64 = middle.iter().sum();
    println!("nop_middle_ns {:.2}", sum as f64 / middle.len() as f64);
    for in_flight in [1, 16, 256] {
        // As many exits each, roughly, in a mode that has one for each batch.
        let rate = throughput(in_flight, count * in_flight.min(16)).await?;
        println!("ops_per_second_{in_flight} {rate}");
    }
    Ok(())
}
