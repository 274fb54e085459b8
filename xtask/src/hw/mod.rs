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

use anyhow::Result;

use crate::args::Args;
use crate::workspace;

/// Everything that this task keeps.
fn folder() -> PathBuf {
    workspace::root().join("target/hw")
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let qemu = args.option::<PathBuf>("--qemu")?;
    let short = args.flag("--short");
    if args.flag("--install") {
        args.all_done()?;
        fetch::all()?;
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

/// Runs the tests whose names contain one of `filters`, or all.
///
/// # Errors
///
/// If one fails, or the machine does.
pub(crate) fn test(qemu: Option<PathBuf>, short: bool, filters: &[String]) -> Result<()> {
    let qemu = machine::Qemu::find(qemu)?;
    let kernel = fetch::kernel()?;
    let image = build::image(&kernel, short, filters)?;
    qemu.run(&kernel, &image)
}
