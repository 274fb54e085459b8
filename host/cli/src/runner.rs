//! `wakebox cargo-runner`: what cargo starts in a guest's crate for `cargo run` and for `cargo test`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use wakebox::{Error, Image, LoadError};

use super::{process, run};

/// Runs a guest as `wakebox run` does. A program that is none, a test for instance, replaces this process,
/// as if cargo had started it: it was built for this host, and no grant or limit means anything to it.
pub(super) fn run(args: run::Args) -> Result<ExitCode> {
    let (file, given) = args.program();
    let is_guest = match Image::from_path(file) {
        Err(Error::Load { source, .. }) => source != LoadError::NoNote,
        _ => true,
    };
    if is_guest {
        return run::run(args);
    }
    process::restore_signals();
    let error = Command::new(file).args(given).exec();
    Err(error).with_context(|| format!("cannot start {}", file.display()))
}
