//! Many more operations than both rings have places: `ringfull [OPERATIONS]`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, ops, println, spawn};

#[wakebox_guest::main]
async fn main() {
    let count: usize = env::args()
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(50_000);
    let ends = Rc::new(RefCell::new(Vec::with_capacity(count)));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let ends = ends.clone();
            spawn(async move {
                if ops::nop().await.is_ok() {
                    ends.borrow_mut().push(number);
                }
            })
        })
        .collect();
    // Every third gives up while it stands in line or is in flight.
    let mut aborted = 0;
    sleep(Duration::ZERO).await;
    for task in tasks.iter().skip(1).step_by(3) {
        task.abort();
    }
    for task in tasks {
        aborted += usize::from(task.await.is_err());
    }
    let ends = ends.take();
    println!("ended {} of {count}", ends.len() + aborted);
    println!("in order {}", ends.is_sorted());
    let still = timeout(Duration::from_secs(10), ops::nop()).await;
    println!("still works {}", still.is_ok());
}
