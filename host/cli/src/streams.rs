//! `-` where a file is named: standard input for what is read, standard output for what is written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use wakebox::trace::json::{ReadError, Reader};
use wakebox::{Policy, units};

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
    let file = regular(path).ok()?;
    file.take(START).read_to_end(&mut start).ok()?;
    Some(start)
}

/// A regular file, opened without waiting: a FIFO has nobody who writes, and a device has effects.
///
/// # Errors
///
/// What opening it says; it is something else than a file.
pub(super) fn regular(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Looked at first, for opening a device may have effects; and once more, for it may have been replaced.
    let what_it_is = |is_file: bool| match is_file {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    };
    what_it_is(std::fs::metadata(path)?.is_file())?;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    what_it_is(file.metadata()?.is_file())?;
    Ok(file)
}

/// All of it, unless it has more than so many bytes.
///
/// # Errors
///
/// What reading it says; it is longer.
pub(super) fn bounded(from: impl Read, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(longest + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > longest {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {}", units::bytes(longest)),
        )),
        false => Ok(bytes),
    }
}

/// As [`bounded`], for a text.
///
/// # Errors
///
/// As there; it is not UTF-8.
pub(super) fn bounded_text(from: impl Read, longest: u64) -> io::Result<String> {
    let bytes = bounded(from, longest)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
    let text = bounded_text(io::stdin(), LONGEST_POLICY)
        .context("cannot read the policy from standard input")?;
    Ok(Policy::from_toml(&text, path)?)
}
