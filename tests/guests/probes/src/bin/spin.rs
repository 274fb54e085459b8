//! Computes for ever, after a line.
#![no_std]
#![no_main]

use core::hint::black_box;

use wakebox_guest::println;
use wakebox_guest::task::yield_now;

#[wakebox_guest::main]
async fn main() {
    println!("spinning");
    // Twice, so that the line goes out in the first turn.
    yield_now().await;
    yield_now().await;
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}
