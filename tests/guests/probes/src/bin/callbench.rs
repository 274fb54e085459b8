//! Calls of a host function, so many in all and so many at once; says how many a second.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::{env, println, spawn, time};

wakebox_guest::host_fns! {
    async fn add(a: u64, b: u64) -> u64 = "add";
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args().map(|arg| arg.parse::<u64>().expect("a number"));
    let (calls, at_once) = (args.next().expect("calls"), args.next().expect("at once"));
    let start = time::now();
    let callers: Vec<_> = (0..at_once)
        .map(|_| {
            spawn(async move {
                for n in 0..calls / at_once {
                    assert_eq!(add(n, 1).await.expect("added"), n + 1);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("not aborted");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", calls as f64 / seconds);
}
