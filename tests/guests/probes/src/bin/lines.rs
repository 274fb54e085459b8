//! Says the lines of standard input again, with their numbers, and then that it ended.
#![no_std]
#![no_main]

use wakebox_guest::io::stdin;
use wakebox_guest::println;

#[wakebox_guest::main]
async fn main() {
    let mut lines = stdin().lines();
    let mut number = 0;
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                number += 1;
                println!("{number} {line}");
            }
            Ok(None) => break,
            Err(error) => println!("error {:?}", error.status()),
        }
    }
    println!("end");
}
