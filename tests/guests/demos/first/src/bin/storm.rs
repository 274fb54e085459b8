//! 100,000 tasks that do 1,000,000 operations of the host: `storm [TASKS] [OPERATIONS]`.
//!
//! What to watch: only so many operations can be in flight as the completion ring has
//! places. The others stand in line, each task's future pending; none fails and none
//! spins. With `--stats` the host tells how few exits it took.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::io::Result;
use wakebox_guest::time::Instant;
use wakebox_guest::{env, ops, println, spawn, stats};

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args().map(|arg| arg.parse::<u64>().ok());
    let tasks = args.next().flatten().unwrap_or(100_000).max(1);
    let operations = args.next().flatten().unwrap_or(1_000_000);

    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            // What is left over goes to the first tasks.
            let share = operations / tasks + u64::from(task < operations % tasks);
            spawn(async move {
                for _ in 0..share {
                    ops::nop().await?;
                }
                Result::Ok(share)
            })
        })
        .collect();
    let spawned = start.elapsed();
    let mut done = 0;
    for handle in handles {
        done += handle.await.unwrap_or(Ok(0))?;
    }

    let elapsed = start.elapsed();
    println!("{tasks} tasks spawned in {} us", spawned.as_micros());
    println!(
        "{done} operations in {} ms: {} per second",
        elapsed.as_millis(),
        u128::from(done) * 1_000_000 / elapsed.as_micros().max(1)
    );
    println!("{} polls in {} turns", stats().polls, stats().turns);
    Ok(())
}
