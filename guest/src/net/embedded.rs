//! The traits of `embedded-io-async`, which borrow their buffers: one copy each way.

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use wakebox_abi::status::Status;

use super::{OwnedReadHalf, OwnedWriteHalf, Stream};
use crate::io::{Error, Result};

impl embedded_io_async::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self.status() {
            Status::NotFound => ErrorKind::NotFound,
            Status::PermissionDenied => ErrorKind::PermissionDenied,
            Status::ConnectionRefused => ErrorKind::ConnectionRefused,
            Status::ConnectionReset => ErrorKind::ConnectionReset,
            Status::ConnectionAborted => ErrorKind::ConnectionAborted,
            Status::NotConnected => ErrorKind::NotConnected,
            Status::AddrInUse => ErrorKind::AddrInUse,
            Status::AddrNotAvailable => ErrorKind::AddrNotAvailable,
            Status::BrokenPipe => ErrorKind::BrokenPipe,
            Status::AlreadyExists => ErrorKind::AlreadyExists,
            Status::InvalidInput => ErrorKind::InvalidInput,
            Status::InvalidData => ErrorKind::InvalidData,
            Status::TimedOut => ErrorKind::TimedOut,
            Status::Unsupported => ErrorKind::Unsupported,
            Status::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Other,
        }
    }
}

impl<K> ErrorType for Stream<K> {
    type Error = Error;
}

impl<K> ErrorType for &Stream<K> {
    type Error = Error;
}

impl<K> ErrorType for OwnedReadHalf<K> {
    type Error = Error;
}

impl<K> ErrorType for OwnedWriteHalf<K> {
    type Error = Error;
}

/// Dropping a read loses no byte.
impl<K> Read for Stream<K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Self::read(self, into).await
    }
}

/// Dropping a read loses no byte.
impl<K> Read for &Stream<K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Stream::read(self, into).await
    }
}

/// Dropping a read loses no byte.
impl<K> Read for OwnedReadHalf<K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Self::read(self, into).await
    }
}

/// What was written is the host's, so there is nothing to flush.
impl<K> Write for Stream<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What was written is the host's, so there is nothing to flush.
impl<K> Write for &Stream<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Stream::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What was written is the host's, so there is nothing to flush.
impl<K> Write for OwnedWriteHalf<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
