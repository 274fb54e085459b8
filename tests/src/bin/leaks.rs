//! `cargo xtask soak sandboxes [N]`: thousands of sandboxes, and what is left of them.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use wakebox_tests::leaks;

/// Sandboxes before anything is measured: allocators and thread pools get their size.
const WARM_UP: usize = 1_000;
/// Resident memory that may be left after a soak, in bytes.
const GROWTH: i64 = 8 << 20;

fn main() -> ExitCode {
    wakebox_tests::exit("soak", run())
}

fn run() -> Result<()> {
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse().with_context(|| count.clone())?,
        None => 10_000,
    };
    let left = leaks::sandboxes(WARM_UP, count)?;
    println!("{left}");
    ensure!(left.growth() < GROWTH, "that is more than 8 MiB");
    Ok(())
}
