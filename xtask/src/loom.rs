//! `cargo xtask loom`: the wake protocol's model, deeper than the tests go.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::process;

/// Under a minute on two cores; eight take two.
const DEPTH: u32 = 5;

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let depth = args.option("--depth")?.unwrap_or(DEPTH);
    args.all_done()?;
    process::check(
        process::cargo()
            .args(["test", "--release", "--package", "wakebox-abi"])
            .args(["--test", "wake_model"])
            .env("LOOM_MAX_PREEMPTIONS", depth.to_string()),
    )?;
    Ok(ExitCode::SUCCESS)
}
