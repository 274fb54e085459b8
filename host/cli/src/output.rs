//! Files that the command writes at the end: opened at the beginning, before it is in its jail, where
//! it can open none.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// An open file for something that may have to be written. It stays empty if there is nothing; one
/// that was there before keeps what is in it until then.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// Opens the file, or makes it with these rights, less the umask.
    ///
    /// # Errors
    ///
    /// It cannot be written; `what` says what was to be in it.
    pub(super) fn open(path: &Path, mode: u32, what: &str) -> Result<Self> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .open(path)
            .with_context(|| format!("cannot write {what} {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Empties it, for all that is written now.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn start(&mut self) -> io::Result<&mut File> {
        // A pipe or a terminal has nothing to empty.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        Ok(&mut self.file)
    }
}
