//! Tasks of `embassy-executor` beside those of the guest: each waits for the other kind.
#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{embassy, ops, println, spawn};

static NUMBERS: Channel<CriticalSectionRawMutex, u32, 1> = Channel::new();
static DONE: Signal<CriticalSectionRawMutex, u32> = Signal::new();
static SECOND: Signal<CriticalSectionRawMutex, u32> = Signal::new();

/// Waits for timers of both kinds and for the host, and says a number after each.
#[embassy_executor::task]
async fn counts() {
    Timer::after_micros(10).await;
    NUMBERS.send(1).await;
    sleep(Duration::from_micros(10)).await;
    NUMBERS.send(2).await;
    ops::nop().await.unwrap();
    NUMBERS.send(3).await;
}

/// Adds up what the other says, with the help of a task that it spawns.
#[embassy_executor::task]
async fn adds(spawner: Spawner) {
    let mut sum = 0;
    for _ in 0..3 {
        sum += NUMBERS.receive().await;
    }
    spawner.spawn(doubles(sum).unwrap());
}

#[embassy_executor::task]
async fn doubles(number: u32) {
    DONE.signal(2 * number);
}

/// On another executor: is woken by a task of the guest.
#[embassy_executor::task]
async fn answers() {
    let number = NUMBERS.receive().await;
    SECOND.signal(number + 1);
}

#[wakebox_guest::main]
async fn main() {
    let beside = spawn(async {
        sleep(Duration::from_micros(10)).await;
        "a timer of the guest"
    });
    let spawner = embassy::start();
    spawner.spawn(counts().unwrap());
    spawner.spawn(adds(spawner).unwrap());
    println!("embassy-executor {}", DONE.wait().await);
    println!("beside it {}", beside.await.unwrap());

    embassy::start().spawn(answers().unwrap());
    // It waits by then.
    sleep(Duration::from_micros(10)).await;
    NUMBERS.send(41).await;
    println!("another executor {}", SECOND.wait().await);
}
