//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The workspace of guest programs.
pub(crate) fn guest_workspace() -> PathBuf {
    root().join("tests/guests")
}

/// Where guest programs are built, whatever the target directory of everything else.
pub(crate) fn guest_target() -> PathBuf {
    root().join("target/guests")
}

/// Where cargo builds, wherever it was told to.
///
/// # Errors
///
/// If this process does not know where it was started from.
pub(crate) fn target() -> Result<PathBuf> {
    // This program is `TARGET/debug/xtask`.
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let target = own.ancestors().nth(2).context("started from nowhere")?;
    Ok(target.to_owned())
}

/// A program of this workspace, as the tests find it.
///
/// # Errors
///
/// As [`target`].
pub(crate) fn debug_binary(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("debug").join(name))
}

/// A program of this workspace, built for a demo.
///
/// # Errors
///
/// As [`target`].
pub(crate) fn demo_binary(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("demo").join(name))
}
