//! Random tasks do random things for a while: sleep, work, wait for the host and for each
//! other. If a wake-up were lost, it would not end. Arguments: a seed, steps for each task.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, ops, println, random, spawn};

const TASKS: u64 = 24;

#[wakebox_guest::main]
async fn main() {
    let mut numbers = env::args().filter_map(|number| number.parse::<u64>().ok());
    let (seed, steps) = (
        numbers.next().expect("a seed"),
        numbers.next().expect("steps"),
    );
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| spawn(live(Random(seed ^ (task + 1) << 32), steps)))
        .collect();
    let mut operations = 0;
    for task in tasks {
        operations += task.await.expect("nobody aborts it");
    }
    println!("{operations}");
}

async fn live(mut random: Random, steps: u64) -> u64 {
    let mut operations = 0;
    for _ in 0..steps {
        match random.below(10) {
            0..4 => {
                ops::nop().await.expect("a no-op cannot fail");
                operations += 1;
            }
            4 => {
                let burst: Vec<_> = (0..random.below(20)).map(|_| spawn(ops::nop())).collect();
                for nop in burst {
                    nop.await
                        .expect("nobody aborts it")
                        .expect("a no-op cannot fail");
                    operations += 1;
                }
            }
            5 => sleep(Duration::from_nanos(random.below(300_000))).await,
            6 => {
                let _ = timeout(Duration::from_nanos(random.below(50_000)), async {
                    let mut bytes = [0; 32];
                    let _ = random::fill(&mut bytes).await;
                    sleep(Duration::from_micros(20)).await;
                })
                .await;
            }
            7 => work(random.below(20_000)),
            8 => {
                let task = spawn(sleep(Duration::from_micros(50)));
                if random.below(2) == 0 {
                    task.abort();
                }
                let _ = task.await;
            }
            _ => yield_now().await,
        }
    }
    operations
}

/// Computes for some nanoseconds, give or take.
fn work(steps: u64) {
    for step in 0..steps {
        core::hint::black_box(step);
    }
}

/// Knuth's 64-bit linear congruential generator, of which the high bits are good.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
