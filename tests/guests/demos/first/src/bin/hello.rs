//! The smallest guest: one line, and the end.
//!
//! What to watch: there is no kernel to boot, so the line is there in the time that the
//! host needs to make the machine.
#![no_std]
#![no_main]

use wakebox_guest::println;

#[wakebox_guest::main]
async fn main() {
    println!("Hello from ring 3.");
}
