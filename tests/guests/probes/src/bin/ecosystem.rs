//! Crates of the async ecosystem, unchanged, each doing something that takes a waker.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use futures_lite::future::{or, zip};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{ops, println, spawn};

static CHANNEL: Channel<CriticalSectionRawMutex, u32, 2> = Channel::new();
static SIGNAL: Signal<CriticalSectionRawMutex, u32> = Signal::new();

/// Milliseconds that nobody waits.
const NEVER: u64 = 3_600_000;

async fn wait(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis)).await;
    millis
}

#[wakebox_guest::main]
async fn main() {
    // Operations of one kind end in the order of their submission, so the fewest end first.
    let operations = async |count: usize| {
        for _ in 0..count {
            let _ = ops::nop().await;
        }
        count
    };
    let unordered: FuturesUnordered<_> = [3, 1, 2].into_iter().map(operations).collect();
    println!("futures {:?}", unordered.collect::<Vec<_>>().await);
    let joined = futures::join!(wait(2), ops::nop());
    println!("futures join {}", joined.0);
    let selected = futures::select_biased! {
        slow = core::pin::pin!(futures::FutureExt::fuse(wait(NEVER))) => slow,
        quick = core::pin::pin!(futures::FutureExt::fuse(wait(1))) => quick,
    };
    println!("futures select {selected}");

    println!("futures-lite {}", or(wait(NEVER), wait(1)).await);
    println!("futures-lite zip {:?}", zip(wait(2), wait(1)).await);

    let (sender, receiver) = async_channel::bounded(1);
    spawn(async move {
        for number in 0..5 {
            let _ = sender.send(number).await;
        }
    });
    println!("async-channel {:?}", receiver.collect::<Vec<i32>>().await);

    let mutex = Rc::new(async_lock::Mutex::new(0));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let mutex = mutex.clone();
            spawn(async move {
                let mut guard = mutex.lock().await;
                let before = *guard;
                let _ = ops::nop().await;
                *guard = before + 1;
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    println!("async-lock {}", mutex.lock().await);

    spawn(async {
        for number in 0..5 {
            CHANNEL.send(number).await;
        }
    });
    let sum = Cell::new(0);
    for _ in 0..5 {
        sum.set(sum.get() + CHANNEL.receive().await);
    }
    println!("embassy-sync channel {}", sum.get());
    spawn(async {
        wait(1).await;
        SIGNAL.signal(7);
    });
    println!("embassy-sync signal {}", SIGNAL.wait().await);

    log::info!("log {}", 1);
    log::debug!("not shown");
}
