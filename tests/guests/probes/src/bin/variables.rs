//! Prints its environment, sorted.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::{env, println};

#[wakebox_guest::main]
async fn main() {
    let mut variables: Vec<_> = env::vars().collect();
    variables.sort_unstable();
    for (name, value) in variables {
        println!("{name}={value}");
    }
}
