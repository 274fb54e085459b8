//! What is in a directory.

use alloc::rc::Rc;
use alloc::string::String;

use wakebox_abi::file::{DirectoryEntry, FileKind};
use wakebox_abi::op::{Handle, OpenDirectory, ReadDirectory};
use wakebox_abi::status::Status;

use super::{Metadata, symlink_metadata};
use crate::buf::IoBuf;
use crate::io::{Error, Reader, Result};
use crate::net::OwnedHandle;
use crate::op::Op;

/// Bytes of a batch of entries.
const BATCH: usize = 16 << 10;

/// Opens a directory for listing. Cancel-safe.
///
/// # Errors
///
/// `NotFound`, `NotADirectory`, `PermissionDenied`, and others of the host.
pub async fn read_dir(path: impl AsRef<str>) -> Result<ReadDir> {
    let path = path.as_ref();
    let buf = IoBuf::copy_of(path.as_bytes()).await?;
    let operation = OpenDirectory { path: buf.filled() };
    let (outcome, _) = Op::with_buf(operation, buf).giving_handle().await;
    let failed = |status| Error::new(status, alloc::format!("list {path}"));
    Ok(ReadDir {
        reader: Reader::new(),
        handle: OwnedHandle(Handle(outcome.map_err(failed)?)),
        path: path.trim_end_matches('/').into(),
    })
}

/// The entries of a directory, in no order, without `.` and `..`. See [`read_dir`].
#[derive(Debug)]
pub struct ReadDir {
    reader: Reader,
    handle: OwnedHandle,
    path: Rc<str>,
}

/// Something in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    directory: Rc<str>,
    name: String,
    kind: FileKind,
}

impl ReadDir {
    /// The next entry, or `None` when there are no more.
    ///
    /// Cancel-safe: what the host tells after the future was dropped is for the next call.
    ///
    /// # Errors
    ///
    /// Those of the host; `InvalidData` for an entry whose name is not UTF-8 and which this guest
    /// can therefore do nothing with: the next call goes on behind it.
    pub async fn next_entry(&mut self) -> Result<Option<DirEntry>> {
        let directory = self.handle.0;
        let fill = self
            .reader
            .fill_rest(BATCH, |into| ReadDirectory { directory, into });
        let failed = |status| Error::new(status, alloc::format!("list {}", self.path));
        if !fill.await.map_err(failed)? {
            return Ok(None);
        }
        let mut next = Err(Status::InvalidData);
        self.reader.consume(|batch| {
            let Some((entry, rest)) = DirectoryEntry::split(batch) else {
                return batch.len();
            };
            if let Ok(name) = core::str::from_utf8(entry.name) {
                next = Ok((String::from(name), entry.kind));
            }
            batch.len() - rest.len()
        });
        let (name, kind) = next.map_err(failed)?;
        Ok(Some(DirEntry {
            directory: self.path.clone(),
            name,
            kind,
        }))
    }
}

impl Drop for ReadDir {
    fn drop(&mut self) {
        // The Close that follows ends the read in flight.
        self.reader.leave();
    }
}

impl DirEntry {
    /// Its name in the directory.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.name
    }

    /// Its path: that of the directory, and the name.
    #[must_use]
    pub fn path(&self) -> String {
        alloc::format!("{}/{}", self.directory, self.name)
    }

    /// What it is, or was when it was listed.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// What is told of it, which may be a symbolic link. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`symlink_metadata`].
    pub async fn metadata(&self) -> Result<Metadata> {
        symlink_metadata(self.path()).await
    }
}
