//! A guest that measures something, and what it says of it.

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;
use wakebox::{Builder, Captured, Output, Stats};

/// Runs a guest to its end. Returns what it printed and what it did.
pub(crate) fn run(runtime: &Runtime, builder: Builder) -> Result<(String, Stats)> {
    let output = Captured::new();
    let mut sandbox = builder.stdout(Output::Capture(output.clone())).build()?;
    let outcome = runtime.block_on(sandbox.run())?;
    ensure!(outcome.is_success(), "{outcome}");
    Ok((output.text(), sandbox.stats()))
}
