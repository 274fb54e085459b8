#![no_std]
#![no_main]

use core::time::Duration;

use {{library}}::greeting;
use wakebox_guest::{env, println, spawn, time};

#[wakebox_guest::main]
async fn main() {
    println!("{}", greeting(env::args().next().unwrap_or("world")));

    // Both sleep at once. The host wakes each of them across the boundary.
    let tick = spawn(async {
        time::sleep(Duration::from_millis(50)).await;
        println!("tick");
    });
    time::sleep(Duration::from_millis(100)).await;
    println!("tock");
    let _ = tick.await;
}
