//! `cargo xtask hostile`: the hostile cases, by name.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::process;

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let list = args.flag("--list");
    let part = args.positional();
    args.all_done()?;
    let mut command = process::cargo();
    command.args([
        "run",
        "--quiet",
        "--package",
        "wakebox-tests",
        "--bin",
        "hostile",
        "--",
    ]);
    command.args(list.then_some("--list")).args(part);
    process::check(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
