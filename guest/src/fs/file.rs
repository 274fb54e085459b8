//! An open file.
//!
//! The host knows no cursor: it reads and writes where it is told. The cursor lies here and
//! moves when a result is taken, so that a read which was given up has not moved it.

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_abi::file::{FileStat, FileTime};
use wakebox_abi::op::{
    Buf, Handle, ReadFile, SetFileLength, SetFileTimes, StatFile, Sync, SyncFile, WriteFile,
};
use wakebox_abi::status::Status;

use super::{Metadata, OpenOptions};
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::net::OwnedHandle;
use crate::op::Op;
use crate::runtime::runtime;

/// Most bytes of a slice that one read or write takes.
const CHUNK: usize = 256 << 10;

/// An open file of the host. It is closed when it is dropped.
///
/// [`read_at`](Self::read_at) and its kin take `&self`, so that many futures may use different
/// parts of a file at once. Those with a cursor take `&mut self`.
///
/// Reading what was opened for writing only, or the other way round, is `BadHandle`.
#[derive(Debug)]
pub struct File {
    handle: OwnedHandle,
    cursor: u64,
    /// Opened for appending: the host writes at the end, whatever it is told.
    appends: bool,
}

/// Where to set a file's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// So many bytes from the file's start.
    Start(u64),
    /// So many bytes from the file's end.
    End(i64),
    /// So many bytes from where it is.
    Current(i64),
}

/// The size of a buffer for a slice of this length: at most a quarter of the arena, so that a
/// large file does not keep everybody else out of it.
fn chunk(len: usize) -> usize {
    len.min(CHUNK).min(runtime().arena.len() / 4)
}

impl File {
    pub(super) fn new(handle: Handle, appends: bool) -> Self {
        Self {
            handle: OwnedHandle(handle),
            cursor: 0,
            appends,
        }
    }

    /// Opens a file for reading. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`OpenOptions::open`].
    pub async fn open(path: impl AsRef<str>) -> Result<Self> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens a file for writing, which is made if it does not exist and emptied if it does. Not
    /// cancel-safe: that may have happened if the future was dropped.
    ///
    /// # Errors
    ///
    /// Those of [`OpenOptions::open`].
    pub async fn create(path: impl AsRef<str>) -> Result<Self> {
        let options = OpenOptions::new().write(true).create(true).truncate(true);
        options.open(path).await
    }

    /// Reads from the cursor on and returns the number of bytes, perhaps fewer than there is room
    /// for. Zero is the end, or an empty slice. Cancel-safe: the cursor moves with the result.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let count = self.read_at(into, self.cursor).await?;
        self.cursor += count as u64;
        Ok(count)
    }

    /// Reads from the cursor on until the slice is full. Not cancel-safe: the cursor may have moved.
    ///
    /// # Errors
    ///
    /// Those of the host; `UnexpectedEof` if the end comes first.
    pub async fn read_exact(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            match self.read(into).await? {
                0 => return Err(Status::UnexpectedEof.into()),
                count => into = &mut into[count..],
            }
        }
        Ok(())
    }

    /// Appends everything from the cursor on to `bytes` and returns how much that is. Not
    /// cancel-safe: `bytes` has some of it, and the cursor stands behind that.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> Result<usize> {
        let before = bytes.len();
        let mut buf = IoBuf::with_capacity(chunk(CHUNK)).await?;
        loop {
            let outcome;
            (outcome, buf) = self.read_buf(buf).await;
            if outcome? == 0 {
                return Ok(bytes.len() - before);
            }
            bytes.extend_from_slice(&buf);
        }
    }

    /// Appends everything from the cursor on to `text` and returns how many bytes that is. Not
    /// cancel-safe: the cursor may have moved.
    ///
    /// # Errors
    ///
    /// Those of the host; `InvalidData` if it is not UTF-8, in which case nothing is appended.
    pub async fn read_to_string(&mut self, text: &mut String) -> Result<usize> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).await?;
        let new = String::from_utf8(bytes).map_err(|_| Status::InvalidData)?;
        text.push_str(&new);
        Ok(new.len())
    }

    /// Reads from the cursor on into a buffer, from its start, at most its capacity, without
    /// copying, and gives it back with the length set. Cancel-safe: the cursor moves with the
    /// result; the buffer is gone with the future.
    pub async fn read_buf(&mut self, into: IoBuf) -> (Result<usize>, IoBuf) {
        let (outcome, buf) = self.read_buf_at(into, self.cursor).await;
        if let Ok(count) = outcome {
            self.cursor += count as u64;
        }
        (outcome, buf)
    }

    /// Reads from `offset` bytes behind the file's start and returns the number of bytes, perhaps
    /// fewer than there is room for. Zero is the end, or an empty slice. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let buf = IoBuf::with_capacity(chunk(into.len())).await?;
        let (outcome, buf) = self.read_buf_at(buf, offset).await;
        let count = outcome?;
        into[..count].copy_from_slice(&buf);
        Ok(count)
    }

    /// Reads from `offset` bytes behind the file's start into a buffer, from its start, at most its
    /// capacity, without copying, and gives it back with the length set. Cancel-safe; the buffer is
    /// gone with the future.
    pub async fn read_buf_at(&self, mut into: IoBuf, offset: u64) -> (Result<usize>, IoBuf) {
        into.clear();
        let operation = ReadFile {
            file: self.handle.0,
            into: into.whole(),
            offset,
        };
        let (outcome, buf) = Op::with_buf(operation, into).await;
        let mut buf = buf.unwrap_or_else(|| unreachable!("a read has a buffer"));
        let count = outcome.map(|count| (count as usize).min(buf.capacity()));
        buf.set_len(count.unwrap_or(0));
        (count.map_err(Error::from), buf)
    }

    /// Writes from the cursor on, or at the end of a file that was opened for appending, as much as
    /// the host takes at once, and returns the number of bytes. The cursor stands behind them then; in
    /// the latter case, at the file's end, for which the host is asked. Not cancel-safe: any part may
    /// have been written; the cursor stands where it stood.
    ///
    /// # Errors
    ///
    /// `StorageFull`, `FileTooLarge`, and others of the host.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = self.write_at(bytes, self.cursor).await?;
        self.wrote(count as u64).await;
        Ok(count)
    }

    /// Writes everything from the cursor on, or at the end of a file that was opened for appending. Not
    /// cancel-safe: any part may have been written.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let mut written = 0;
        let mut outcome = Ok(());
        while written < bytes.len() {
            let offset = self.cursor.saturating_add(written as u64);
            match self.write_at(&bytes[written..], offset).await {
                Ok(0) => outcome = Err(Status::StorageFull.into()),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) => outcome = Err(error),
            }
            break;
        }
        self.wrote(written as u64).await;
        outcome
    }

    /// Writes a whole buffer from the cursor on, or at the end of a file that was opened for
    /// appending, without copying, and gives it back. Not cancel-safe: any part may have been written,
    /// and the buffer is gone.
    pub async fn write_all_buf(&mut self, buf: IoBuf) -> (Result<()>, IoBuf) {
        let len = buf.len() as u64;
        let (outcome, buf) = self.write_all_buf_at(buf, self.cursor).await;
        if outcome.is_ok() {
            self.wrote(len).await;
        }
        (outcome, buf)
    }

    /// Moves the cursor behind so many bytes that were written.
    async fn wrote(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        if self.appends
            && let Ok(stat) = self.metadata().await
        {
            self.cursor = stat.len();
        } else {
            // Should the host not tell where the end is, the bytes are written all the same.
            self.cursor += count;
        }
    }

    /// Writes from `offset` bytes behind the file's start as much as the host takes at once, and
    /// returns the number of bytes. Not cancel-safe: any part may have been written.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let buf = IoBuf::copy_of(&bytes[..chunk(bytes.len())]).await?;
        let (outcome, _) = self.write_range(buf.filled(), buf, offset).await;
        outcome
    }

    /// Writes a whole buffer from `offset` bytes behind the file's start, without copying, and gives
    /// it back. Not cancel-safe: any part may have been written, and the buffer is gone.
    pub async fn write_all_buf_at(&self, mut buf: IoBuf, mut offset: u64) -> (Result<()>, IoBuf) {
        let mut left = buf.filled();
        while left.len > 0 {
            let outcome;
            (outcome, buf) = self.write_range(left, buf, offset).await;
            match outcome {
                Ok(0) => return (Err(Status::StorageFull.into()), buf),
                Ok(count) => {
                    left.offset += count as u32;
                    left.len = left.len.saturating_sub(count as u32);
                    offset += count as u64;
                }
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Writes a range of a buffer.
    async fn write_range(&self, from: Buf, buf: IoBuf, offset: u64) -> (Result<usize>, IoBuf) {
        let operation = WriteFile {
            file: self.handle.0,
            from,
            offset,
        };
        let (outcome, buf) = Op::with_buf(operation, buf).await;
        let buf = buf.unwrap_or_else(|| unreachable!("a write has a buffer"));
        let count = outcome.map(|count| count as usize);
        (count.map_err(Error::from), buf)
    }

    /// Sets the cursor and returns where it is, in bytes from the file's start; behind its end is
    /// fine. Cancel-safe: it moves with the result. Asks the host only for [`SeekFrom::End`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it would stand before the start; those of [`Self::metadata`].
    pub async fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.cursor.checked_add_signed(by),
            SeekFrom::End(by) => self.metadata().await?.len().checked_add_signed(by),
        };
        self.cursor = target.ok_or(Status::InvalidInput)?;
        Ok(self.cursor)
    }

    /// Where the cursor is, in bytes from the file's start.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.cursor
    }

    /// What the host tells of the file. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn metadata(&self) -> Result<Metadata> {
        let mut buf = IoBuf::with_capacity(FileStat::SIZE).await?;
        buf.set_len(FileStat::SIZE);
        let operation = StatFile {
            file: self.handle.0,
            into: buf.filled(),
        };
        let (outcome, buf) = Op::with_buf(operation, buf).await;
        outcome?;
        Metadata::decode(buf.as_deref())
    }

    /// Cuts the file off at a length in bytes, or fills it up with zeroes. The cursor stays. Not
    /// cancel-safe: it may have happened if the future was dropped.
    ///
    /// # Errors
    ///
    /// `FileTooLarge`, `InvalidInput` for what was opened for reading, and others of the host.
    pub async fn set_len(&self, len: u64) -> Result<()> {
        let file = self.handle.0;
        Op::new(SetFileLength { file, len }).await.0?;
        Ok(())
    }

    /// Sets its times. Not cancel-safe: it may have happened if the future was dropped.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` for a file of a directory that is granted for reading, and others of the host.
    pub async fn set_times(&self, accessed: FileTime, modified: FileTime) -> Result<()> {
        let operation = SetFileTimes {
            file: self.handle.0,
            accessed,
            modified,
        };
        Op::new(operation).await.0?;
        Ok(())
    }

    /// Waits until all that was written is on the disk. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host, which may be about earlier writes.
    pub async fn sync_all(&self) -> Result<()> {
        self.sync(Sync::All).await
    }

    /// Waits until all bytes that were written are on the disk, but perhaps not the time of their
    /// change. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Self::sync_all`].
    pub async fn sync_data(&self) -> Result<()> {
        self.sync(Sync::Data).await
    }

    async fn sync(&self, what: Sync) -> Result<()> {
        let file = self.handle.0;
        Op::new(SyncFile { file, what }).await.0?;
        Ok(())
    }
}
