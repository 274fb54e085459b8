//! `cargo xtask guests`: builds the guest programs.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::{process, workspace};

/// How optimized a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let release = args.flag("--release");
    args.all_done()?;
    if !release {
        build(Profile::Debug, None)?;
    }
    build(Profile::Release, None)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds one guest program, or all of them.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn build(profile: Profile, name: Option<&str>) -> Result<()> {
    let mut command = cargo("build");
    if profile == Profile::Release {
        command.arg("--release");
    }
    if let Some(name) = name {
        command.args(["--quiet", "--bin", name]);
    }
    process::check(&mut command)
}

/// Builds the guest that the benchmark compares those that can be watched with.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn build_untraced() -> Result<()> {
    let mut command = cargo("build");
    command.args(["--quiet", "--release", "--package", "wakebox-untraced"]);
    process::check(&mut command)
}

/// `cargo SUBCOMMAND` in the guests' own workspace, which lies beside ours.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = process::cargo();
    command
        .arg(subcommand)
        .current_dir(workspace::guest_workspace())
        .env("CARGO_TARGET_DIR", workspace::guest_target())
        // It would hide the flags in the workspace's own configuration.
        .env_remove("RUSTFLAGS");
    command
}

/// Where a guest program lies once it is built.
///
/// # Errors
///
/// If it is not there.
pub(crate) fn path(profile: Profile, name: &str) -> Result<PathBuf> {
    let profile = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    let path = workspace::guest_target().join(profile).join(name);
    if !path.is_file() {
        bail!("the guest was built, but {} is not there", path.display());
    }
    Ok(path)
}
