//! Producers, a bounded channel, consumers; one producer is cancelled on the way.
//!
//! What to watch: the channel holds four items, so the quick producers wait for the slow
//! consumers, without a thread, a lock or an exit. The channel and the race are those of
//! `async-channel` and `futures-lite`, unchanged.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use wakebox_guest::task::{name, spawn_named};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{println, stats};

const ITEMS: u32 = 8;

struct Item {
    from: usize,
    number: u32,
}

async fn produce(from: usize, items: Sender<Item>) {
    for number in 0..ITEMS {
        sleep(Duration::from_millis(5)).await;
        if items.send(Item { from, number }).await.is_err() {
            break;
        }
    }
    println!("{} is done", name());
}

async fn consume(items: Receiver<Item>) -> u32 {
    let mut eaten = 0;
    // Either the next item, or nothing for so long that there will be none.
    let next = || {
        or(async { items.recv().await.ok() }, async {
            sleep(Duration::from_millis(200)).await;
            println!("{} gives up waiting", name());
            None
        })
    };
    while let Some(Item { from, number }) = next().await {
        println!("{} takes {number} of producer {from}", name());
        sleep(Duration::from_millis(10)).await;
        eaten += 1;
    }
    eaten
}

#[wakebox_guest::main]
async fn main() {
    let (sender, receiver) = async_channel::bounded(4);
    let producers: Vec<_> = (0..3)
        .map(|n| spawn_named(format!("producer {n}"), produce(n, sender.clone())))
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|n| spawn_named(format!("consumer {n}"), consume(receiver.clone())))
        .collect();
    drop((sender, receiver));

    sleep(Duration::from_millis(30)).await;
    println!("producer 1 is cancelled");
    producers[1].abort();

    let mut eaten = 0;
    for consumer in consumers {
        eaten += consumer.await.unwrap_or(0);
    }
    for (n, producer) in producers.into_iter().enumerate() {
        if let Err(error) = producer.await {
            println!("producer {n}: {error}");
        }
    }
    println!("{eaten} items, {} polls", stats().polls);
}
