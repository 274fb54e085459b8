//! `cargo xtask loom`: the models of waking, kicking, killing and parking, deeper than the tests go.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::process;

/// Under a minute on two cores; eight take two.
const DEPTH: u32 = 5;

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let depth = args.option("--depth")?.unwrap_or(DEPTH);
    args.all_done()?;
    let models = [
        ("wakebox-abi", "wake_model"),
        ("wakebox-abi", "post_model"),
        ("wakebox-guest", "pool_model"),
        ("wakebox", "park_model"),
    ];
    for (package, model) in models {
        process::check(
            process::cargo()
                .args(["test", "--release", "--package", package])
                .args(["--test", model])
                .env("LOOM_MAX_PREEMPTIONS", depth.to_string()),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
