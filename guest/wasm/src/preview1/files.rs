//! `fd_*`: what is done with what is open.

use alloc::rc::Rc;
use alloc::vec::Vec;

use wakebox_guest::fs::{FileKind, FileTime, Metadata};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::InputStream;

use super::descriptors::{Descriptor, OpenFile};
use super::{Errno, Outcome, Process};
use crate::files::{CHUNK, Open, Synced, status};

/// What is written goes to the end.
pub(super) const APPEND: u32 = 1;
/// Whoever writes waits until the bytes are on the disk, or all of the file.
pub(super) const SYNC_DATA: u32 = 2;
pub(super) const SYNC_ALL: u32 = 16;
/// Reads wait for writes of others.
pub(super) const SYNC_READS: u32 = 8;

/// What `filestat_set_times` sets.
const SET_ACCESSED: u32 = 1;
const ACCESSED_NOW: u32 = 2;
const SET_MODIFIED: u32 = 4;
const MODIFIED_NOW: u32 = 8;

const CHARACTER_DEVICE: u8 = 2;

/// The number of a kind.
pub(super) fn filetype(kind: FileKind) -> u8 {
    match kind {
        FileKind::Directory => 3,
        FileKind::File => 4,
        FileKind::Symlink => 7,
        FileKind::Other => 0,
    }
}

/// What the last access and change are set to.
pub(super) fn times(accessed: u64, modified: u64, set: u32) -> Result<(FileTime, FileTime), Errno> {
    let time = |ns: u64, at: u32, now: u32| match (set & at != 0, set & now != 0) {
        (true, true) => Err(Errno::Inval),
        (false, true) => Ok(FileTime::Now),
        (false, false) => Ok(FileTime::Keep),
        (true, false) => Ok(FileTime::At(i64::try_from(ns).unwrap_or(i64::MAX))),
    };
    let accessed = time(accessed, SET_ACCESSED, ACCESSED_NOW)?;
    Ok((accessed, time(modified, SET_MODIFIED, MODIFIED_NOW)?))
}

/// What `filestat` tells.
pub(super) fn filestat(found: &Metadata) -> [u8; 64] {
    let (device, inode) = found.identity();
    let accessed = found.accessed().as_nanos() as u64;
    let modified = found.modified().as_nanos() as u64;
    let kind = u64::from(filetype(found.kind()));
    let words = [
        device,
        inode,
        kind,
        u64::from(found.links()),
        found.len(),
        accessed,
        modified,
        found.changed().as_nanos() as u64,
    ];
    let mut bytes = [0; 64];
    for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}

/// Where bytes are read or written.
enum At {
    Cursor,
    Offset(u64),
}

#[allow(clippy::unused_async, reason = "the functions are called alike")]
impl Process<'_> {
    pub(super) async fn fd_advise(&mut self, fd: u32, _: u64, _: u64, _: u32) -> Outcome {
        self.file(fd).map(|_| ())
    }

    pub(super) async fn fd_allocate(&mut self, fd: u32, _: u64, _: u64) -> Outcome {
        self.file(fd)?;
        Err(Errno::Notsup)
    }

    pub(super) async fn fd_close(&mut self, fd: u32) -> Outcome {
        self.descriptors().remove(fd).map(drop)
    }

    pub(super) async fn fd_datasync(&mut self, fd: u32) -> Outcome {
        Ok(self.open(fd)?.sync(true).await?)
    }

    pub(super) async fn fd_sync(&mut self, fd: u32) -> Outcome {
        Ok(self.open(fd)?.sync(false).await?)
    }

    pub(super) async fn fd_fdstat_get(&mut self, fd: u32, into: u32) -> Outcome {
        let (kind, flags) = match self.descriptors().get(fd)? {
            Descriptor::File(file) => {
                let kind = match file.open.is_directory() {
                    true => FileKind::Directory,
                    false => FileKind::File,
                };
                let synced = match file.open.synced {
                    Synced::Nothing => 0,
                    Synced::Data => SYNC_DATA,
                    Synced::All => SYNC_ALL,
                };
                let appends = u32::from(file.appending.is_some());
                (filetype(kind), (synced | appends) as u8)
            }
            _ => (CHARACTER_DEVICE, 0),
        };
        // All rights, also of seeking: a character device without them would be taken for a terminal.
        let mut stat = [0xff; 24];
        stat[..8].copy_from_slice(&[kind, 0, flags, 0, 0, 0, 0, 0]);
        self.put(into, &stat)
    }

    pub(super) async fn fd_fdstat_set_flags(&mut self, fd: u32, flags: u32) -> Outcome {
        if flags & (SYNC_DATA | SYNC_ALL | SYNC_READS) != 0 {
            // Of what is open, as on other systems.
            return Err(Errno::Notsup);
        }
        if let Descriptor::File(file) = self.descriptors().get(fd)? {
            let open = file.open.clone();
            let appending = OpenFile::appends(&open, flags & APPEND != 0).await?;
            self.file(fd)?.appending = appending;
        }
        Ok(())
    }

    pub(super) async fn fd_fdstat_set_rights(&mut self, fd: u32, _: u64, _: u64) -> Outcome {
        // Nobody asks for rights that this would take away: the policy decides.
        self.descriptors().get(fd).map(|_| ())
    }

    pub(super) async fn fd_filestat_get(&mut self, fd: u32, into: u32) -> Outcome {
        let stat = match self.descriptors().get(fd)? {
            Descriptor::File(file) => {
                let open = file.open.clone();
                filestat(&open.metadata().await?)
            }
            _ => {
                let mut stat = [0; 64];
                stat[16] = CHARACTER_DEVICE;
                stat
            }
        };
        self.put(into, &stat)
    }

    pub(super) async fn fd_filestat_set_size(&mut self, fd: u32, size: u64) -> Outcome {
        Ok(self.open(fd)?.set_length(size).await?)
    }

    pub(super) async fn fd_filestat_set_times(
        &mut self,
        fd: u32,
        accessed: u64,
        modified: u64,
        set: u32,
    ) -> Outcome {
        let (accessed, modified) = times(accessed, modified, set)?;
        Ok(self.open(fd)?.set_times(accessed, modified).await?)
    }

    pub(super) async fn fd_prestat_get(&mut self, fd: u32, into: u32) -> Outcome {
        let length = self.granted(fd)?.path().len() as u32;
        self.put_u32(into, 0)?;
        self.put_u32(into.wrapping_add(4), length)
    }

    pub(super) async fn fd_prestat_dir_name(&mut self, fd: u32, into: u32, count: u32) -> Outcome {
        let open = self.granted(fd)?;
        let path = open.path().as_bytes();
        self.put(into, path.get(..count as usize).unwrap_or(path))
    }

    /// A directory that the policy grants. A program counts them until there is none.
    fn granted(&mut self, fd: u32) -> Result<Rc<Open>, Errno> {
        match self.descriptors().get(fd)? {
            Descriptor::File(file) if file.is_granted => Ok(file.open.clone()),
            _ => Err(Errno::Badf),
        }
    }

    pub(super) async fn fd_renumber(&mut self, fd: u32, to: u32) -> Outcome {
        self.descriptors().renumber(fd, to)
    }

    pub(super) async fn fd_tell(&mut self, fd: u32, into: u32) -> Outcome {
        self.fd_seek(fd, 0, 1, into).await
    }

    pub(super) async fn fd_seek(&mut self, fd: u32, by: i64, whence: u32, into: u32) -> Outcome {
        let Descriptor::File(file) = self.descriptors().get(fd)? else {
            return Err(Errno::Spipe);
        };
        let (open, cursor) = (file.open.clone(), file.cursor);
        if open.is_directory() {
            return Err(Errno::Badf);
        }
        let from = match whence {
            0 => 0,
            1 => cursor,
            2 => open.metadata().await?.len(),
            _ => return Err(Errno::Inval),
        };
        let cursor = from.checked_add_signed(by).ok_or(Errno::Inval)?;
        self.file(fd)?.cursor = cursor;
        self.put_u64(into, cursor)
    }

    pub(super) async fn fd_read(&mut self, fd: u32, list: u32, count: u32, into: u32) -> Outcome {
        self.read(fd, list, count, At::Cursor, into).await
    }

    pub(super) async fn fd_pread(
        &mut self,
        fd: u32,
        list: u32,
        count: u32,
        offset: u64,
        into: u32,
    ) -> Outcome {
        self.read(fd, list, count, At::Offset(offset), into).await
    }

    async fn read(&mut self, fd: u32, list: u32, count: u32, at: At, into: u32) -> Outcome {
        let pieces = self.pieces(list, count)?;
        let most = pieces
            .iter()
            .map(|(_, length)| *length as usize)
            .sum::<usize>();
        let most = most.min(CHUNK);
        let bytes = match (self.descriptors().get(fd)?, &at) {
            (Descriptor::Input(input), At::Cursor) => {
                let mut input = input.clone();
                input.ready().await;
                // The end is no bytes.
                input.read(most).unwrap_or_default().to_vec()
            }
            (Descriptor::File(file), at) => {
                let offset = match at {
                    At::Cursor => file.cursor,
                    At::Offset(offset) => *offset,
                };
                let open = file.open.clone();
                open.read(most as u64, offset).await?
            }
            (Descriptor::Input(_), At::Offset(_)) => return Err(Errno::Spipe),
            (Descriptor::Output(_), _) => return Err(Errno::Badf),
        };
        self.scatter(&pieces, &bytes)?;
        if let (Descriptor::File(file), At::Cursor) = (self.descriptors().get(fd)?, at) {
            file.cursor += bytes.len() as u64;
        }
        self.put_u32(into, bytes.len() as u32)
    }

    pub(super) async fn fd_write(&mut self, fd: u32, list: u32, count: u32, into: u32) -> Outcome {
        self.write(fd, list, count, At::Cursor, into).await
    }

    pub(super) async fn fd_pwrite(
        &mut self,
        fd: u32,
        list: u32,
        count: u32,
        offset: u64,
        into: u32,
    ) -> Outcome {
        self.write(fd, list, count, At::Offset(offset), into).await
    }

    async fn write(&mut self, fd: u32, list: u32, count: u32, at: At, into: u32) -> Outcome {
        let pieces = self.pieces(list, count)?;
        let bytes = self.gather(&pieces, CHUNK)?;
        let (open, appends, offset) = match (self.descriptors().get(fd)?, &at) {
            (Descriptor::Output(write), At::Cursor) => {
                write(&bytes);
                return self.put_u32(into, bytes.len() as u32);
            }
            (Descriptor::File(file), At::Offset(offset)) => (file.open.clone(), false, *offset),
            (Descriptor::File(file), At::Cursor) => {
                let appends = file.appending.is_some();
                let open = file.appending.as_ref().unwrap_or(&file.open);
                (open.clone(), appends, file.cursor)
            }
            (Descriptor::Output(_), At::Offset(_)) => return Err(Errno::Spipe),
            (Descriptor::Input(_), _) => return Err(Errno::Badf),
        };
        let count = open.write(&bytes, offset).await?;
        if let At::Cursor = at {
            let cursor = match appends {
                true => open.metadata().await?.len(),
                false => offset + count as u64,
            };
            self.file(fd)?.cursor = cursor;
        }
        self.put_u32(into, count as u32)
    }

    /// Entries from the cookie-th on, as many as there is room for: the last may be cut off, which
    /// says that there are more.
    pub(super) async fn fd_readdir(
        &mut self,
        fd: u32,
        at: u32,
        count: u32,
        cookie: u64,
        into: u32,
    ) -> Outcome {
        self.slice(at, count)?;
        if cookie == 0 {
            let mut list = self.open(fd)?.list().await?;
            let mut entries = Vec::new();
            loop {
                match list.next_entry().await.map_err(status) {
                    Ok(Some(entry)) => entries.push((entry.file_name().into(), entry.kind())),
                    Ok(None) => break,
                    // A name that cannot be said: the next call goes on behind it.
                    Err(wakebox_guest::io::Status::InvalidData) => {}
                    Err(status) => return Err(status.into()),
                }
            }
            self.file(fd)?.entries = entries.into();
        }
        let entries = self.file(fd)?.entries.clone();
        let mut bytes = Vec::new();
        let first = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, (name, kind)) in entries.iter().enumerate().skip(first) {
            if bytes.len() >= count as usize {
                break;
            }
            bytes.extend((index as u64 + 1).to_le_bytes());
            // Not known: who wants it asks for the entry's own.
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend([filetype(*kind), 0, 0, 0]);
            bytes.extend(name.as_bytes());
        }
        bytes.truncate(count as usize);
        self.put(at, &bytes)?;
        self.put_u32(into, bytes.len() as u32)
    }
}
