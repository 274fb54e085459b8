//! `cargo xtask hw-test`: the end-to-end tests on KVM for AMD-V, which QEMU emulates.
//!
//! Everything is kept in `target/hw`: QEMU and the kernel, if they were fetched, the statically
//! linked tests, and the file system from which the machine starts. Its first process is
//! `tests/src/bin/hw-init`, which runs the tests.

mod build;
mod cpio;
mod fetch;
mod machine;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::workspace;

/// A test that has not ended by then hangs.
const BOUND: Duration = Duration::from_secs(1200);
/// The same in the short run, whose tests are small.
const SHORT_BOUND: Duration = Duration::from_secs(300);
/// A machine that has then still not said that a test hangs does so itself.
const AFTER: Duration = Duration::from_secs(60);

/// Everything that this task keeps.
fn folder() -> PathBuf {
    workspace::root().join("target/hw")
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let qemu = args.option::<PathBuf>("--qemu")?;
    let short = args.flag("--short");
    if args.flag("--install") {
        args.all_done()?;
        install()?;
        return Ok(ExitCode::SUCCESS);
    }
    args.done()?;
    test(qemu, short, &args.rest)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether what the lane needs is here.
///
/// # Errors
///
/// What is missing, and what to do.
pub(crate) fn is_ready() -> Result<()> {
    machine::Qemu::find(None)?;
    fetch::kernel()?;
    Ok(())
}

/// Fetches what the lane needs, if it is not here.
///
/// # Errors
///
/// What could not be fetched, and why.
pub(crate) fn install() -> Result<()> {
    fetch::all().context("what the hardware lane needs cannot be fetched")
}

/// Runs the tests whose names contain one of `filters`, or all.
///
/// # Errors
///
/// If one fails, or the machine does.
pub(crate) fn test(qemu: Option<PathBuf>, short: bool, filters: &[String]) -> Result<()> {
    let qemu = machine::Qemu::find(qemu)?;
    let kernel = fetch::kernel()?;
    let bound = if short { SHORT_BOUND } else { BOUND };
    let image = build::image(&kernel, short, filters, bound)?;
    qemu.run(&kernel, &image, bound + AFTER)
}
