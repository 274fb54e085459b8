//! What is told of a file.

use core::time::Duration;

use wakebox_abi::file::{FileKind, FileStat};
use wakebox_abi::status::Status;

use crate::io::Result;

/// What is told of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(FileStat);

impl Metadata {
    /// The one at the start of a buffer.
    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Self> {
        let bytes = bytes.and_then(<[u8]>::first_chunk);
        let stat = FileStat::from_bytes(bytes.ok_or(Status::InvalidData)?);
        Ok(Self(stat))
    }

    /// Length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "as in std")]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.0.kind
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.0.kind == FileKind::File
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.0.kind == FileKind::Directory
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.0.kind == FileKind::Symlink
    }

    /// Unix permission bits, the low twelve.
    #[must_use]
    pub fn permissions(&self) -> u32 {
        self.0.permissions
    }

    /// When its bytes were changed last, since 1970; zero if earlier.
    #[must_use]
    pub fn modified(&self) -> Duration {
        since_1970(self.0.modified_ns)
    }

    /// When it was read last, since 1970; zero if earlier. Many hosts tell this only roughly.
    #[must_use]
    pub fn accessed(&self) -> Duration {
        since_1970(self.0.accessed_ns)
    }

    /// When it was made, since 1970, if the host's file system tells.
    #[must_use]
    pub fn created(&self) -> Option<Duration> {
        (self.0.created_ns != 0).then(|| since_1970(self.0.created_ns))
    }

    /// When its bytes, names or rights were changed last, since 1970; zero if earlier.
    #[must_use]
    pub fn changed(&self) -> Duration {
        since_1970(self.0.changed_ns)
    }

    /// How many names it has.
    #[must_use]
    pub fn links(&self) -> u32 {
        self.0.links
    }

    /// Numbers of the file system on which it is and of the file there, which mean nothing else: what has the
    /// same two is one file.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.0.device, self.0.inode)
    }
}

fn since_1970(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
