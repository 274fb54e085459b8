//! Crates that work in guests unchanged, each doing something that takes a waker, or that computes.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use embassy_futures::select::{Either, select};
use event_listener::Event;
use futures_concurrency::prelude::*;
use maitake_sync::WaitQueue;
use regex::Regex;
use sha2::{Digest, Sha256};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{ops, println, spawn};

#[wakebox_guest::main]
async fn main() {
    // Nobody waits for so many milliseconds.
    const NEVER: u64 = 3_600_000;
    let wait = async |millis| {
        sleep(Duration::from_millis(millis)).await;
        millis
    };
    match select(wait(NEVER), wait(1)).await {
        Either::First(slow) => println!("embassy-futures {slow}"),
        Either::Second(quick) => println!("embassy-futures {quick}"),
    }

    println!("futures-concurrency {:?}", [wait(2), wait(1)].join().await);
    println!(
        "futures-concurrency race {}",
        (wait(NEVER), wait(1)).race().await
    );

    let (event, seen) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
    let listeners: Vec<_> = (0..3)
        .map(|_| {
            let (listener, seen) = (event.listen(), seen.clone());
            spawn(async move {
                listener.await;
                seen.set(seen.get() + 1);
            })
        })
        .collect();
    event.notify(3);
    for listener in listeners {
        let _ = listener.await;
    }
    println!("event-listener {}", seen.get());

    let queue = Rc::new(WaitQueue::new());
    let waits = spawn({
        let queue = queue.clone();
        async move { queue.wait().await.is_ok() }
    });
    let _ = ops::nop().await;
    queue.wake_all();
    println!("maitake-sync {:?}", waits.await);

    let (sender, receiver) = thingbuf::mpsc::channel::<u32>(2);
    spawn(async move {
        for number in 0..5 {
            let _ = sender.send(number).await;
        }
    });
    let mut sum = 0;
    while let Some(number) = receiver.recv().await {
        sum += number;
    }
    println!("thingbuf {sum}");

    let pattern = Regex::new("([a-z]+)=([0-9]+)").expect("a pattern");
    let found = pattern.captures("and colour=42;").expect("a match");
    println!("regex {} {}", &found[1], &found[2]);

    let hash = Sha256::digest(b"abc");
    println!(
        "sha2 {:02x}{:02x}{:02x}{:02x}",
        hash[0], hash[1], hash[2], hash[3]
    );
}
