//! `cargo xtask soak takes [N]`: very many tenants of one pool, and what is left of them.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use wakebox_tests::takes;

/// Tenants before anything is measured: allocators, thread pools and the pool get their size.
const WARM_UP: u64 = 1_000;
/// Resident memory that may be left after a soak, in bytes.
const GROWTH: i64 = 8 << 20;

fn main() -> ExitCode {
    wakebox_tests::exit("soak", run())
}

fn run() -> Result<()> {
    let (mut count, mut seed) = (100_000, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            "--seed" => seed = args.next().context("--seed")?.parse()?,
            number => match number.parse() {
                Ok(number) => count = number,
                Err(_) => bail!("usage: takes [N] [--seed N]"),
            },
        }
    }
    let left = takes::takes(WARM_UP, count, seed)?;
    println!("{left}; none found a byte of another");
    ensure!(left.growth() < GROWTH, "that is more than 8 MiB");
    Ok(())
}
