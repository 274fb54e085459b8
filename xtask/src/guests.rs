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
    /// Optimized, and built in a fraction of the time.
    Demo,
}

impl Profile {
    /// What `--profile` calls it, and the folder that it is built into.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Debug => ("dev", "debug"),
            Self::Release => ("release", "release"),
            Self::Demo => ("demo", "demo"),
        }
    }
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let release = args.flag("--release");
    args.all_done()?;
    if !release {
        build(Profile::Debug)?;
    }
    build(Profile::Release)?;
    Ok(ExitCode::SUCCESS)
}

/// Guests with urgent tasks, which have a feature that others must not share: built by themselves.
pub(crate) const URGENT: &str = "wakebox-urgent";

/// Guests with several processors, as those.
pub(crate) const SPREAD: &str = "wakebox-spread";

/// Builds all guest programs.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn build(profile: Profile) -> Result<()> {
    let profile = ["--profile", profile.names().0];
    process::check(cargo("build").args(profile))?;
    for package in [URGENT, SPREAD] {
        process::check(cargo("build").args(profile).args(["--package", package]))?;
    }
    Ok(())
}

/// Builds one guest program of a package, and what that depends on.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn build_one(profile: Profile, package: &str, name: &str) -> Result<()> {
    let mut command = cargo("build");
    command.args(["--profile", profile.names().0, "--package", package]);
    process::check(command.args(["--bin", name]))
}

/// Builds one guest program as the tests have it, which is there most of the time.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn build_as_tested(profile: Profile, package: &str, name: &str) -> Result<()> {
    let mut command = cargo("build");
    command.args(["--quiet", "--profile", profile.names().0, "--bin", name]);
    if [URGENT, SPREAD].contains(&package) {
        command.args(["--package", package]);
    }
    process::check(&mut command)
}

/// Builds the guests that the benchmark alone runs: one that cannot be watched, and one with other executors.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn build_for_bench() -> Result<()> {
    for package in ["wakebox-untraced", "wakebox-peers"] {
        let mut command = cargo("build");
        command.args(["--quiet", "--release", "--package", package]);
        process::check(&mut command)?;
    }
    Ok(())
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
    let folder = workspace::guest_target().join(profile.names().1);
    let path = folder.join(name);
    if !path.is_file() {
        bail!("the guest was built, but {} is not there", path.display());
    }
    Ok(path)
}
