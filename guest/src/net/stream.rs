//! Connections: what those over TCP and over Unix sockets have in common.

use alloc::rc::Rc;
use core::cell::OnceCell;
use core::fmt;
use core::marker::PhantomData;
use core::net::SocketAddr;

use wakebox_abi::op::{
    Amount, Buf, Handle, Operation, ReadStream, Shutdown, ShutdownStream, WriteStream,
};
use wakebox_abi::status::Status;

use super::OwnedHandle;
use super::outbox::Outbox;
use crate::buf::IoBuf;
use crate::io::{Error, Reader, Result};
use crate::op::Op;
use crate::reactor::{Orphan, Owner};
use crate::runtime::runtime;

/// Most bytes of a slice that one write takes, and one that writes all.
const WRITE_SIZE: usize = 64 << 10;
const WRITE_ALL_SIZE: usize = 256 << 10;

/// Most bytes of a buffer that are copied, so that nobody waits for them.
const COPIED: usize = 4 << 10;

/// A connection: [`TcpStream`](super::TcpStream) or [`UnixStream`](super::UnixStream). It is closed
/// when it is dropped.
///
/// All methods take `&self`, so that one future may read while another writes.
pub struct Stream<K> {
    pub(super) reader: Reader,
    /// What was written and is not sent, if anything was written.
    outbox: OnceCell<Rc<Outbox>>,
    /// Closed when nobody has anything to send any more.
    pub(super) handle: Rc<OwnedHandle>,
    /// Who is at the other side, if that is known.
    pub(super) peer: Option<SocketAddr>,
    kind: PhantomData<K>,
}

impl<K> fmt::Debug for Stream<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl<K> Stream<K> {
    pub(super) fn new(handle: Handle) -> Self {
        Self::of(OwnedHandle(handle), None)
    }

    pub(super) fn of(handle: OwnedHandle, peer: Option<SocketAddr>) -> Self {
        Self {
            reader: Reader::new(),
            outbox: OnceCell::new(),
            handle: Rc::new(handle),
            peer,
            kind: PhantomData,
        }
    }

    /// Whether nothing is under way, and nothing kept.
    pub(super) fn is_idle(&self) -> bool {
        let is_sent = |outbox: &Rc<Outbox>| outbox.is_empty() && Rc::strong_count(outbox) == 1;
        self.reader.is_idle() && self.outbox.get().is_none_or(is_sent)
    }

    /// Connects: the operation's value is the handle.
    pub(super) async fn open(operation: impl Operation, address: IoBuf, to: &str) -> Result<Self> {
        let (outcome, _) = Op::with_buf(operation, address).giving_handle().await;
        let handle =
            outcome.map_err(|status| Error::new(status, alloc::format!("connect to {to}")))?;
        Ok(Self::new(Handle(handle)))
    }

    /// Reads what there is, at least a byte, and returns the number of bytes. Zero is the
    /// end, or an empty slice. Reads have their turns in the order in which they began.
    ///
    /// Cancel-safe: what arrives after the future was dropped is for the next read.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn read(&self, into: &mut [u8]) -> Result<usize> {
        let stream = self.handle.0;
        let read = self.reader.read(into, |into| ReadStream { stream, into });
        Ok(read.await?)
    }

    /// Reads what there is, at least a byte, into several slices in turn, and returns the number of
    /// bytes. Zero is the end, or no room in the slices.
    ///
    /// Cancel-safe, as [`Self::read`].
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub async fn read_vectored(&self, into: &mut [&mut [u8]]) -> Result<usize> {
        let room = into.iter().map(|slice| slice.len()).sum();
        if room == 0 {
            return Ok(0);
        }
        let stream = self.handle.0;
        let fill = self
            .reader
            .fill_rest(room, |into| ReadStream { stream, into });
        fill.await?;
        let mut count = 0;
        self.reader.consume(|mut bytes| {
            for slice in into {
                let (now, later) = bytes.split_at(bytes.len().min(slice.len()));
                slice[..now.len()].copy_from_slice(now);
                count += now.len();
                bytes = later;
            }
            count
        });
        Ok(count)
    }

    /// Waits until there is at least a byte to read, or the end, and takes nothing. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub async fn readable(&self) -> Result<()> {
        let stream = self.handle.0;
        let fill = self.reader.fill_rest(0, |into| ReadStream { stream, into });
        fill.await?;
        Ok(())
    }

    /// Reads until the slice is full. Not cancel-safe: what was read so far is lost.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; `UnexpectedEof` if the end comes first.
    pub async fn read_exact(&self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            match self.read(into).await? {
                0 => return Err(Status::UnexpectedEof.into()),
                count => into = &mut into[count..],
            }
        }
        Ok(())
    }

    /// Reads into a buffer, from its start, at most its capacity, without copying, and
    /// gives it back with the length set.
    ///
    /// Cancel-safe as to bytes, which are for the next read; the buffer is gone with the future.
    pub async fn read_buf(&self, into: IoBuf) -> (Result<usize>, IoBuf) {
        let stream = self.handle.0;
        let (outcome, buf) = self
            .reader
            .read_buf(into, |into| ReadStream { stream, into })
            .await;
        (outcome.map_err(Error::from), buf)
    }

    /// Writes a part of the bytes, at least one and at most 64 KiB, and returns how many.
    ///
    /// They are copied and go out when the task next waits for something; this waits only for what was written before.
    /// So what keeps them from being sent is an error of the next call that writes, or of [`Self::flush`]. A connection that is dropped
    /// is closed when they are sent, or after half a minute. Cancel-safe: as long as it waits, nothing is written.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
    pub async fn write(&self, bytes: &[u8]) -> Result<usize> {
        self.write_vectored(&[bytes]).await
    }

    /// Writes a part of several slices in turn, together at least a byte, and returns the number of bytes. All else is
    /// as with [`Self::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn write_vectored(&self, slices: &[&[u8]]) -> Result<usize> {
        self.write_copy(slices, WRITE_SIZE).await
    }

    /// Writes a copy of at most so many bytes.
    async fn write_copy(&self, slices: &[&[u8]], most: usize) -> Result<usize> {
        // A quarter, so that a large write does not keep everybody else out of the arena.
        let most = most.min(runtime().arena.len() / 4);
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if all == 0 {
            return Ok(0);
        }
        let mut buf = IoBuf::with_capacity(all.min(most)).await?;
        for slice in slices {
            buf.extend_from_slice(slice);
        }
        let count = buf.len();
        self.post(buf).await?;
        Ok(count)
    }

    /// Writes everything, as [`Self::write`] does. Not cancel-safe: any part may have been written.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let count = self.write_copy(&[bytes], WRITE_ALL_SIZE).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes a whole buffer, without copying, and keeps it until it is sent. All else is as with [`Self::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn post(&self, buf: IoBuf) -> Result<()> {
        match buf.is_empty() {
            true => Ok(()),
            false => self.outbox().send(buf).await,
        }
    }

    /// Waits until the host has taken all that was written. Cancel-safe: it goes out in any case.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
    pub async fn flush(&self) -> Result<()> {
        match self.outbox.get() {
            Some(outbox) => outbox.flush().await,
            None => Ok(()),
        }
    }

    /// Writes from a buffer as much as the host takes, at least a byte, without copying, and gives
    /// it back unchanged. Not cancel-safe: any part may have been written, and the buffer is gone.
    pub async fn write_buf(&self, buf: IoBuf) -> (Result<usize>, IoBuf) {
        self.write_range(buf.filled(), Amount::Some, buf).await
    }

    /// Writes a whole buffer and gives it back: one operation, however long the peer takes. Up to 4 KiB are copied if the arena has
    /// space for them, and not waited for, as [`Self::write`] does it; others are not copied, and are waited for. Not
    /// cancel-safe, as [`Self::write_buf`].
    pub async fn write_all_buf(&self, mut buf: IoBuf) -> (Result<()>, IoBuf) {
        // Not where that would wait for space of the arena: whoever has some may be the next to wait so.
        if buf.len() <= COPIED
            && let Some(mut copy) = IoBuf::try_with_capacity(buf.len())
        {
            copy.extend_from_slice(&buf);
            return (self.post(copy).await, buf);
        }
        let mut left = buf.filled();
        while left.len > 0 {
            let outcome;
            (outcome, buf) = self.write_range(left, Amount::All, buf).await;
            match outcome {
                Ok(0) => return (Err(Status::BrokenPipe.into()), buf),
                Ok(count) => {
                    left.offset += count as u32;
                    left.len = left.len.saturating_sub(count as u32);
                }
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// What was written and is not sent.
    pub(super) fn outbox(&self) -> &Rc<Outbox> {
        self.outbox.get_or_init(|| Outbox::new(self.handle.clone()))
    }

    /// Writes a range of a buffer.
    async fn write_range(&self, from: Buf, amount: Amount, buf: IoBuf) -> (Result<usize>, IoBuf) {
        if let Err(error) = self.flush().await {
            return (Err(error), buf);
        }
        let write = WriteStream {
            stream: self.handle.0,
            from,
            amount,
        };
        let (outcome, buf) = Op::with_buf(write, buf).await;
        let buf = buf.unwrap_or_else(|| unreachable!("a write has a buffer"));
        let count = outcome.map(|count| count as usize);
        (count.map_err(Error::from), buf)
    }

    /// Shuts down one direction or both. After `Write` the peer reads to its end.
    /// What was written before is sent first. Cancel-safe once that is: it happens whether or not
    /// anybody waits.
    ///
    /// # Errors
    ///
    /// Those of the host, and as [`Self::flush`].
    pub async fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.flush().await?;
        let stream = self.handle.0;
        Op::new(ShutdownStream { stream, how }).await.0?;
        Ok(())
    }

    /// Shuts down writing, soon, without waiting for it.
    pub(super) fn finish(&self) {
        if let Some(outbox) = self.outbox.get() {
            return outbox.end();
        }
        let shutdown = ShutdownStream {
            stream: self.handle.0,
            how: Shutdown::Write,
        };
        runtime()
            .reactor
            .submit_urgent(shutdown.into(), Owner::Nobody(Orphan::default()));
    }
}

impl<K> Drop for Stream<K> {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox.get() {
            outbox.left();
        }
        // The Close that follows ends the read in flight.
        self.reader.leave();
    }
}
