//! Panics in a task with a name, after printing a line.
#![no_std]
#![no_main]

use wakebox_guest::task::spawn_named;
use wakebox_guest::{env, println};

#[inline(never)]
fn fetch(numbers: &[u32], index: usize) -> u32 {
    numbers[index]
}

#[wakebox_guest::main]
async fn main() {
    let index = env::args().count() + 7;
    println!("about to panic");
    let task = spawn_named("unlucky", async move { fetch(&[1, 2, 3], index) });
    let _ = task.await;
}
