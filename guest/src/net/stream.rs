//! A connection.

use alloc::rc::Rc;
use core::fmt::Display;
use core::net::SocketAddr;

use wakebox_abi::op::{
    Buf, End, Handle, ReadStream, Shutdown, ShutdownStream, TcpConnect, WriteStream,
};
use wakebox_abi::status::Status;

use super::{OwnedHandle, encode, socket_name};
use crate::buf::IoBuf;
use crate::io::{Error, Reader, Result};
use crate::op::Op;
use crate::reactor::{Owner, Residue};
use crate::runtime::runtime;

/// Most bytes of a slice that one write takes.
const WRITE_SIZE: usize = 64 << 10;

/// A TCP connection. It is closed when it is dropped.
///
/// All methods take `&self`, so that one future may read while another writes.
#[derive(Debug)]
pub struct TcpStream {
    reader: Reader,
    handle: OwnedHandle,
}

impl TcpStream {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            reader: Reader::new(),
            handle: OwnedHandle(handle),
        }
    }

    /// Connects to an address, as in "127.0.0.1:80" or "example.org:80".
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `ConnectionRefused`, and others of the host.
    pub async fn connect(address: impl Display) -> Result<Self> {
        let (buf, text) = encode(&address).await?;
        let address = buf.filled();
        let (outcome, _) = Op::with_buf(TcpConnect { address }, buf)
            .giving_handle()
            .await;
        let handle =
            outcome.map_err(|status| Error::new(status, alloc::format!("connect to {text}")))?;
        Ok(Self::new(Handle(handle)))
    }

    /// Reads what there is, at least a byte, and returns the number of bytes. Zero is the
    /// end, or an empty slice. The future may be dropped; no byte is lost.
    ///
    /// # Errors
    ///
    /// Those of the host, and `Busy` while another future reads.
    pub async fn read(&self, into: &mut [u8]) -> Result<usize> {
        let stream = self.handle.0;
        let read = self.reader.read(into, |into| ReadStream { stream, into });
        Ok(read.await?)
    }

    /// Reads until the slice is full. If the future is dropped, what was read so far is lost.
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
    /// gives it back with the length set. If the future is dropped, the buffer is too;
    /// no byte is lost.
    pub async fn read_buf(&self, into: IoBuf) -> (Result<usize>, IoBuf) {
        let stream = self.handle.0;
        let (outcome, buf) = self
            .reader
            .read_buf(into, |into| ReadStream { stream, into })
            .await;
        (outcome.map_err(Error::from), buf)
    }

    /// Writes as much as the host takes, at least a byte, and returns the number of bytes.
    /// If the future is dropped, any part of them may have been written.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn write(&self, bytes: &[u8]) -> Result<usize> {
        // A quarter, so that a large write does not keep everybody else out of the arena.
        let size = bytes.len().min(WRITE_SIZE).min(runtime().arena.len() / 4);
        let Some(chunk) = bytes.get(..size).filter(|chunk| !chunk.is_empty()) else {
            return Ok(0);
        };
        let buf = IoBuf::copy_of(chunk).await?;
        let (outcome, _buf) = self.write_range(buf.filled(), buf).await;
        outcome
    }

    /// Writes everything.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes).await? {
                0 => return Err(Status::BrokenPipe.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    /// Writes a whole buffer, without copying, and gives it back.
    pub async fn write_all_buf(&self, mut buf: IoBuf) -> (Result<()>, IoBuf) {
        let mut left = buf.filled();
        while left.len > 0 {
            let outcome;
            (outcome, buf) = self.write_range(left, buf).await;
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

    /// Writes a range of a buffer.
    async fn write_range(&self, from: Buf, buf: IoBuf) -> (Result<usize>, IoBuf) {
        let stream = self.handle.0;
        let (outcome, buf) = Op::with_buf(WriteStream { stream, from }, buf).await;
        let buf = buf.unwrap_or_else(|| unreachable!("a write has a buffer"));
        let count = outcome.map(|count| count as usize);
        (count.map_err(Error::from), buf)
    }

    /// Shuts down one direction or both. After `Write` the peer reads to its end.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn shutdown(&self, how: Shutdown) -> Result<()> {
        let stream = self.handle.0;
        Op::new(ShutdownStream { stream, how }).await.0?;
        Ok(())
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn local_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Local).await
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn peer_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Peer).await
    }

    /// Splits the connection into two halves that tasks of their own may have.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Rc::new(self);
        (
            OwnedReadHalf {
                stream: stream.clone(),
            },
            OwnedWriteHalf { stream },
        )
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        // The Close that follows ends the read in flight.
        self.reader.leave();
    }
}

/// The reading half of a connection; it has the reading methods of [`TcpStream`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Rc<TcpStream>,
}

/// The writing half of a connection; it has the writing methods of [`TcpStream`]. When it
/// is dropped, the peer reads to its end.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Rc<TcpStream>,
}

impl OwnedReadHalf {
    /// See [`TcpStream::read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.stream.read(into).await
    }

    /// See [`TcpStream::read_exact`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn read_exact(&mut self, into: &mut [u8]) -> Result<()> {
        self.stream.read_exact(into).await
    }

    /// See [`TcpStream::read_buf`].
    pub async fn read_buf(&mut self, into: IoBuf) -> (Result<usize>, IoBuf) {
        self.stream.read_buf(into).await
    }
}

impl OwnedWriteHalf {
    /// See [`TcpStream::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.stream.write(bytes).await
    }

    /// See [`TcpStream::write_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// See [`TcpStream::write_all_buf`].
    pub async fn write_all_buf(&mut self, buf: IoBuf) -> (Result<()>, IoBuf) {
        self.stream.write_all_buf(buf).await
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        let shutdown = ShutdownStream {
            stream: self.stream.handle.0,
            how: Shutdown::Write,
        };
        runtime()
            .reactor
            .submit_urgent(shutdown.into(), Owner::Nobody(Residue::default()));
    }
}
