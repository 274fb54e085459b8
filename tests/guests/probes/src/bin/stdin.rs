//! Echoes the lines of standard input, with their numbers, to its end.
#![no_std]
#![no_main]

use wakebox_guest::io::{Result, stdin};
use wakebox_guest::println;

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut lines = stdin().lines();
    let mut count = 0;
    while let Some(line) = lines.next_line().await? {
        count += 1;
        println!("{count}: {line}");
    }
    println!("end after {count}");
    Ok(())
}
