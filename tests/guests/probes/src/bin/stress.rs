//! A random mixture, to prove that no wake-up is lost: `stress [SEED] [STEPS]`.
//!
//! Workers do no-ops, short sleeps, yields, timeouts that give up, and pass tokens through
//! channels. If a wake-up is lost, the guest never ends. The checksum depends on the seed
//! and the number of steps only, so all wake modes print the same.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use async_channel::{Receiver, Sender};
use wakebox_guest::io::Result;
use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, ops, println, random, spawn};

const WORKERS: u64 = 24;

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

async fn work(mut random: Random, steps: u64, from: Receiver<u64>, to: Sender<u64>) -> Result<u64> {
    let mut sum = 0_u64;
    for step in 0..steps {
        let choice = random.next(100);
        let amount = random.next(1_000);
        match choice {
            0..40 => ops::nop().await?,
            40..55 => yield_now().await,
            55..70 => sleep(Duration::from_micros(amount / 10)).await,
            70..75 => sleep(Duration::from_micros(amount * 2)).await,
            75..85 => {
                // Either way is right; what counts is that the next step comes.
                let _ = timeout(Duration::from_nanos(amount * 40), ops::nop()).await;
            }
            85..90 => {
                let mut bytes = [0; 32];
                let _ = timeout(Duration::from_micros(amount / 20), random::fill(&mut bytes)).await;
            }
            _ => {
                let child = spawn(async move {
                    let _ = ops::nop().await;
                    amount
                });
                if amount.is_multiple_of(3) {
                    child.abort();
                    let _ = child.await;
                } else {
                    let _ = child.await;
                }
            }
        }
        sum = sum.wrapping_mul(31).wrapping_add(choice * 1_000 + amount);
        // Every few steps the token of this round goes around.
        if step % 16 == 0 {
            let _ = to.send(step).await;
            let _ = from.recv().await;
        }
    }
    Ok(sum)
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args().map(|arg| arg.parse::<u64>().unwrap_or(1));
    let seed = args.next().unwrap_or(1);
    let steps = args.next().unwrap_or(2_000);

    let channels: Vec<_> = (0..WORKERS).map(|_| async_channel::bounded(1)).collect();
    let mut senders: Vec<Sender<u64>> = channels.iter().map(|(sender, _)| sender.clone()).collect();
    senders.rotate_left(1);
    let workers: Vec<_> = channels
        .into_iter()
        .zip(senders)
        .zip(1..)
        .map(|(((_, from), to), number)| {
            // Another for each seed and worker, and never zero.
            let random = Random((seed << 8 | number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            spawn(work(random, steps, from, to))
        })
        .collect();
    let mut checksum = 0_u64;
    for worker in workers {
        checksum = checksum.rotate_left(7) ^ worker.await.unwrap_or(Ok(0))?;
    }
    println!("checksum {checksum:016x}");
    Ok(())
}
