//! Functions that the host calls, run by `host/examples/callme.rs`.
//!
//! What to watch: `main` only serves. Each call is a task of its own, so that hundreds go on at
//! once in one guest; one that the host gives up is dropped in the middle; and a function that is
//! called may call the host back meanwhile.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{println, serve};

wakebox_guest::host_fns! {
    async fn price(item: &str) -> Option<u32> = "price";
}

#[derive(Deserialize)]
struct Order {
    customer: String,
    items: Vec<String>,
}

#[derive(Serialize)]
enum Receipt {
    Total { customer: String, cents: u32 },
    Unknown { item: String },
}

/// Takes its time, without holding anybody up.
#[wakebox_guest::export]
async fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis)).await;
    millis
}

/// Counts primes, which keeps the virtual processor busy.
#[wakebox_guest::export]
async fn primes(below: u32) -> u32 {
    (2..below)
        .filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0))
        .count() as u32
}

/// Asks the host for the price of each item.
#[wakebox_guest::export]
async fn checkout(order: Order) -> Receipt {
    let mut cents = 0;
    for item in order.items {
        match price(&item).await {
            Ok(Some(price)) => cents += price,
            _ => return Receipt::Unknown { item },
        }
    }
    let customer = order.customer;
    Receipt::Total { customer, cents }
}

/// Never ends by itself.
#[wakebox_guest::export]
async fn patience() {
    struct Lost;
    impl Drop for Lost {
        fn drop(&mut self) {
            println!("guest: a call was given up, its task is dropped");
        }
    }
    let _lost = Lost;
    core::future::pending().await
}

#[wakebox_guest::main]
async fn main() {
    serve().await;
    println!("guest: no more calls will come");
}
