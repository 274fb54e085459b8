//! Ends with the exit code of its first argument.
#![no_std]
#![no_main]

use wakebox_guest::env;

#[wakebox_guest::main]
async fn main() -> i32 {
    env::args()
        .next()
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}
