//! Asks for a name, and does not wait for ever.
//!
//! What to watch: while one task waits for a line on standard input, another counts
//! down on the same terminal. Whichever is first ends the other: the read is cancelled in
//! flight, or the countdown is aborted. Try a terminal, a pipe, and `< /dev/null`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use wakebox_guest::io::stdin;
use wakebox_guest::time::{Duration, interval, timeout};
use wakebox_guest::{eprint, print, println, spawn};

const SECONDS: u64 = 5;

async fn count_down() {
    let mut beat = interval(Duration::from_secs(1));
    for left in (1..=SECONDS).rev() {
        beat.tick().await;
        eprint!("{left}... ");
    }
}

#[wakebox_guest::main]
async fn main() {
    print!("What is your name? ");
    let countdown = spawn(count_down());
    let mut line = String::new();
    let answer = timeout(Duration::from_secs(SECONDS), stdin().read_line(&mut line)).await;
    countdown.abort();
    let _ = countdown.await;

    let name = match answer {
        Ok(Ok(_)) if !line.trim().is_empty() => line.trim(),
        Ok(Err(error)) => {
            println!("\n{error}");
            "anonymous"
        }
        _ => "anonymous",
    };
    println!("\nHello, {name}!");
}
