//! Listing directories, and which are granted.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, OFlags, RawDir, statat};
use wakebox_abi::file::{DirectoryEntry, FileKind, PATH_MAX};
use wakebox_abi::op::{ListMounts, OpenDirectory, ReadDirectory};
use wakebox_abi::status::Status;

use super::handles::{Resource, Vacancy};
use super::path::{kind_of, path};
use super::{End, Start, Started, TokioBackend, status_of};
use crate::limits::LimitKind;

/// Most bytes of a batch.
const MOST: usize = 64 << 10;

impl Start for OpenDirectory {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let vacancy = resources.vacancy()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if let Some(opened) = resolved.open_cached(flags) {
            return Ok(Started::Done(open(opened?, vacancy)));
        }
        Ok(resources
            .disk
            .start(None, move || Ok(open(resolved.open(flags)?, vacancy))))
    }
}

fn open(directory: OwnedFd, vacancy: Vacancy) -> End {
    End::Open(Resource::Directory(Arc::new(directory)), vacancy)
}

impl Start for ReadDirectory {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < DirectoryEntry::BATCH_MIN {
            return Err(Status::InvalidInput);
        }
        let directory = resources.handles.directory(self.directory)?.clone();
        let (disk, meter) = (resources.disk.clone(), resources.meter.clone());
        let most = into.len().min(MOST);
        let list = move || {
            let taken = meter.take(LimitKind::FilesIn, most)?;
            if taken.len() < DirectoryEntry::BATCH_MIN {
                return Err(Status::QuotaExceeded);
            }
            let batch = batch(&directory, taken.len())?;
            taken.keep(batch.len());
            Ok(batch)
        };
        Ok(Started::pending_on(self.directory, async move {
            match disk.run(list).await.flatten() {
                Ok(batch) => End::bytes(into.fill(&batch)),
                Err(status) => status.into(),
            }
        }))
    }
}

impl Start for ListMounts {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < DirectoryEntry::HEAD + PATH_MAX {
            return Err(Status::InvalidInput);
        }
        let most = into.len().min(MOST);
        let first = usize::try_from(self.first).unwrap_or(usize::MAX);
        let mut batch = Vec::new();
        for path in resources.mounts.paths().skip(first) {
            let entry = DirectoryEntry {
                kind: FileKind::Directory,
                name: path.as_bytes(),
            };
            if batch.len() + DirectoryEntry::HEAD + path.len() > most {
                break;
            }
            batch.extend_from_slice(&entry.head());
            batch.extend_from_slice(entry.name);
        }
        Ok(Started::Done(End::bytes(into.fill(&batch))))
    }
}

/// The next entries of a directory, without `.` and `..`, encoded in at most `most` bytes. Empty
/// at the end.
fn batch(directory: &OwnedFd, most: usize) -> Result<Vec<u8>, Status> {
    // The kernel's own form of an entry is longer than ours: what it puts into this buffer at once
    // fits into a batch of the same size.
    let mut space = vec![MaybeUninit::uninit(); most];
    let mut entries = RawDir::new(directory, &mut space);
    let mut batch = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| status_of(&error.into()))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let file_type = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| {
                        FileType::from_raw_mode(stat.st_mode)
                    }),
                known => known,
            };
            let entry = DirectoryEntry {
                kind: kind_of(file_type),
                name: name.to_bytes(),
            };
            batch.extend_from_slice(&entry.head());
            batch.extend_from_slice(entry.name);
        }
        if entries.is_buffer_empty() && !batch.is_empty() {
            break;
        }
    }
    Ok(batch)
}
