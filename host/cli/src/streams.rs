//! `-` where a file is named: standard input for what is read, standard output for what is written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use wakebox::Policy;
use wakebox::trace::json::{ReadError, Reader};

/// Longest policy that is read from standard input, in bytes.
const LONGEST_POLICY: u64 = 16 << 20;

/// Whether a path stands for a standard stream. A file of that name is `./-`.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Bytes by which a file is known.
const START: u64 = 8;

/// The first bytes of a regular file, if it can be read. What is none is read but once, by who uses it.
pub(super) fn start_of(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(START).read_to_end(&mut start).ok()?;
    Some(start)
}

/// A trace.
///
/// # Errors
///
/// As [`Reader::new`].
pub(super) fn trace(path: &Path) -> Result<Reader<Box<dyn BufRead>>, ReadError> {
    let from: Box<dyn BufRead> = match is_standard(path) {
        true => Box::new(BufReader::with_capacity(1 << 16, io::stdin())),
        false => Box::new(BufReader::with_capacity(1 << 16, File::open(path)?)),
    };
    Reader::new(from)
}

/// A policy; from standard input, directories are relative to the current one.
///
/// # Errors
///
/// It cannot be read, or is none.
pub(super) fn policy(path: &Path) -> Result<Policy> {
    if !is_standard(path) {
        return Ok(Policy::from_file(path)?);
    }
    let mut text = String::new();
    let read = io::stdin()
        .take(LONGEST_POLICY + 1)
        .read_to_string(&mut text);
    if read.context("cannot read the policy from standard input")? as u64 > LONGEST_POLICY {
        bail!("the policy on standard input is longer than 16 MiB");
    }
    Ok(Policy::from_toml(&text, path)?)
}
