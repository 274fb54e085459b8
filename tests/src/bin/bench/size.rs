//! The size of the smallest guest.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::table::{Bar, Row, Unit};

/// The file of `hello`, without the symbols that only people want.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("hello");
    let status = Command::new("strip")
        .arg(wakebox_tests::guest("hello"))
        .arg("-o")
        .arg(&stripped)
        .status()
        .context("`strip`, of binutils, is not there")?;
    ensure!(status.success(), "strip: {status}");
    let bytes = std::fs::metadata(&stripped)?.len();
    let row = Row::new("hello guest, release, stripped", Unit::Bytes, bytes as f64);
    Ok(vec![row.bar(Bar::AtMost(80.0 * 1024.0))])
}
