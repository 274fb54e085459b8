//! `cargo xtask deny`: licences and sources of everything we depend on, and known holes in it.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::{process, workspace};

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let advisories = args.flag("--advisories");
    args.all_done()?;
    if !process::has_cargo_command("deny") {
        bail!("cargo-deny is not installed; `cargo install --locked cargo-deny` gets it");
    }
    let mut checks = vec!["licenses", "bans", "sources"];
    if advisories {
        // Fetches RustSec's database: https://github.com/RustSec/advisory-db.
        checks.push("advisories");
    }
    let config = workspace::root().join("deny.toml");
    for manifest in [
        "Cargo.toml",
        "tests/guests/Cargo.toml",
        "guest/wasm/Cargo.toml",
        "host/wasm/Cargo.toml",
    ] {
        process::check(
            process::cargo()
                .args(["deny", "--manifest-path", manifest, "--config"])
                .arg(&config)
                .arg("check")
                .args(&checks),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
