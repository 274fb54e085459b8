//! `cargo xtask deny`: licences and sources of everything we depend on.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::{process, workspace};

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    if !process::has_cargo_command("deny") {
        bail!("cargo-deny is not installed; `cargo install --locked cargo-deny` gets it");
    }
    let config = workspace::root().join("deny.toml");
    for manifest in ["Cargo.toml", "tests/guests/Cargo.toml"] {
        process::check(
            process::cargo()
                .args(["deny", "--manifest-path", manifest, "check", "--config"])
                .arg(&config)
                .args(["licenses", "bans", "sources"]),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
