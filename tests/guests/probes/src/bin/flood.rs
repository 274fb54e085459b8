//! Wants far more operations in flight than there is room for.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, ops, println, spawn};

#[wakebox_guest::main]
async fn main() {
    let count = env::args()
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a count");
    let tasks: Vec<_> = (0..count)
        .map(|number: u64| {
            spawn(async move {
                if number % 7 == 0 {
                    sleep(Duration::from_micros(number % 1000)).await;
                }
                for _ in 0..3 {
                    ops::nop().await.expect("room is waited for, never refused");
                }
            })
        })
        .collect();
    let mut done = 0_u64;
    for task in tasks {
        task.await.expect("nobody aborts it");
        done += 1;
    }
    println!("{done}");
}
