//! How a file is opened.

use wakebox_abi::file::OpenFlags;
use wakebox_abi::op::{Handle, OpenFile};

use super::File;
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;

/// How a file is opened. The options are those of `std::fs::OpenOptions`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions(OpenFlags);

impl OpenOptions {
    /// None of them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn set(mut self, flag: u32, value: bool) -> Self {
        let OpenFlags(bits) = &mut self.0;
        *bits = if value { *bits | flag } else { *bits & !flag };
        self
    }

    /// For reading.
    #[must_use]
    pub fn read(self, yes: bool) -> Self {
        self.set(OpenFlags::READ, yes)
    }

    /// For writing.
    #[must_use]
    pub fn write(self, yes: bool) -> Self {
        self.set(OpenFlags::WRITE, yes)
    }

    /// For writing at its end, wherever that is at the moment of the write.
    #[must_use]
    pub fn append(self, yes: bool) -> Self {
        self.set(OpenFlags::APPEND, yes)
    }

    /// Emptied. Wants `write`.
    #[must_use]
    pub fn truncate(self, yes: bool) -> Self {
        self.set(OpenFlags::TRUNCATE, yes)
    }

    /// Made if it does not exist. Wants `write` or `append`.
    #[must_use]
    pub fn create(self, yes: bool) -> Self {
        self.set(OpenFlags::CREATE, yes)
    }

    /// Made, and an error if it exists. Wants `write` or `append`.
    #[must_use]
    pub fn create_new(self, yes: bool) -> Self {
        self.set(OpenFlags::CREATE_NEW, yes)
    }

    /// Each write waits until its bytes are on the disk; with `all`, all of the file. Wants `write` or `append`.
    #[must_use]
    pub fn synced(self, yes: bool, all: bool) -> Self {
        self.set(OpenFlags::SYNC_DATA, yes && !all)
            .set(OpenFlags::SYNC_ALL, yes && all)
    }

    /// Opens a regular file.
    ///
    /// Cancel-safe as to handles: one that comes too late is closed. The file may have been made or
    /// emptied.
    ///
    /// # Errors
    ///
    /// `NotFound`, `PermissionDenied` by the policy or the host, `AlreadyExists`, `IsADirectory`,
    /// `LimitReached` if the sandbox has too much open, `InvalidInput` if the options contradict
    /// each other or the path cannot be, and others of the host.
    pub async fn open(self, path: impl AsRef<str>) -> Result<File> {
        let path = path.as_ref();
        let buf = IoBuf::copy_of(path.as_bytes()).await?;
        let operation = OpenFile {
            path: buf.filled(),
            flags: self.0,
        };
        let (outcome, _) = Op::with_buf(operation, buf).giving_handle().await;
        let failed = |status| Error::new(status, alloc::format!("open {path}"));
        let handle = Handle(outcome.map_err(failed)?);
        Ok(File::new(handle, self.0.has(OpenFlags::APPEND)))
    }
}
