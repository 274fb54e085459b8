//! Awaits what never comes.
#![no_std]
#![no_main]

use wakebox_guest::println;

#[wakebox_guest::main]
async fn main() {
    println!("waiting");
    core::future::pending::<()>().await;
}
