//! The traits of `embedded-io-async`, which borrow their buffers: one copy each way.

use embedded_io_async::{BufRead, ErrorType, Read, Write};

use super::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, Stream, WriteHalf};
use crate::io::{Error, Result};

impl<K> ErrorType for Stream<K> {
    type Error = Error;
}

impl<K> ErrorType for &Stream<K> {
    type Error = Error;
}

impl<K> ErrorType for ReadHalf<'_, K> {
    type Error = Error;
}

impl<K> ErrorType for WriteHalf<'_, K> {
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

/// Dropping a read loses no byte. Halves get a buffer of their own from
/// [`BufReader`](crate::io::BufReader).
impl<K> BufRead for Stream<K> {
    async fn fill_buf(&mut self) -> Result<&[u8]> {
        self.readable().await?;
        Ok(self.reader.rest())
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(|rest| count.min(rest.len()));
    }
}

/// Dropping a read loses no byte.
impl<K> Read for &Stream<K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Stream::read(self, into).await
    }
}

/// Dropping a read loses no byte.
impl<K> Read for ReadHalf<'_, K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Self::read(self, into).await
    }
}

/// Dropping a read loses no byte.
impl<K> Read for OwnedReadHalf<K> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Self::read(self, into).await
    }
}

/// Cancel-safe. A flush waits for nothing: what was written goes out when the task next waits for something
/// ([`Stream::flush`] waits until it has).
impl<K> Write for Stream<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Cancel-safe. A flush waits for nothing: what was written goes out when the task next waits for something
/// ([`Stream::flush`] waits until it has).
impl<K> Write for &Stream<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Stream::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Cancel-safe. A flush waits for nothing: what was written goes out when the task next waits for something
/// ([`Stream::flush`] waits until it has).
impl<K> Write for WriteHalf<'_, K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Cancel-safe. A flush waits for nothing: what was written goes out when the task next waits for something
/// ([`Stream::flush`] waits until it has).
impl<K> Write for OwnedWriteHalf<K> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
