//! The traits of `embedded-io-async`, which borrow their buffers: one copy each way.

use alloc::boxed::Box;

use embedded_io_async::{BufRead, ErrorKind, ErrorType, Read};
use wakebox_abi::status::Status;

use super::{Error, Result, StdinHandle};

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

impl ErrorType for StdinHandle {
    type Error = Error;
}

/// Dropping a read loses no byte.
impl Read for StdinHandle {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        Self::read(*self, into).await
    }
}

/// Gives everything that is `Read` a buffer, and so makes it `BufRead`: standard input, a half of a
/// connection.
///
/// A future may be dropped whenever that of the inner `read` may: what the buffer has got is for
/// the next. Bytes in the buffer are lost with the `BufReader`.
#[derive(Debug)]
pub struct BufReader<R> {
    inner: R,
    buf: Box<[u8]>,
    /// Where the bytes lie in it that nobody has consumed.
    rest: core::ops::Range<usize>,
}

impl<R: Read> BufReader<R> {
    /// A reader with a buffer of 2 KiB.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self::with_capacity(2 << 10, inner)
    }

    /// A reader with a buffer of so many bytes, at least one.
    #[must_use]
    pub fn with_capacity(capacity: usize, inner: R) -> Self {
        Self {
            inner,
            buf: alloc::vec![0; capacity.max(1)].into(),
            rest: 0..0,
        }
    }

    /// What it reads from. Bytes in the buffer are lost.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: ErrorType> ErrorType for BufReader<R> {
    type Error = R::Error;
}

impl<R: Read> Read for BufReader<R> {
    async fn read(&mut self, into: &mut [u8]) -> core::result::Result<usize, R::Error> {
        // What is as long as the buffer needs no way through it.
        if self.rest.is_empty() && into.len() >= self.buf.len() {
            return self.inner.read(into).await;
        }
        if into.is_empty() {
            return Ok(0);
        }
        let bytes = self.fill_buf().await?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for BufReader<R> {
    async fn fill_buf(&mut self) -> core::result::Result<&[u8], R::Error> {
        if self.rest.is_empty() {
            self.rest = 0..self.inner.read(&mut self.buf).await?;
        }
        Ok(&self.buf[self.rest.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.rest.start = (self.rest.start + count).min(self.rest.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// The result of a future that never waits.
    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_buffered_reader_gives_every_byte_once_and_in_order() {
        let text = b"one two three four";
        let mut reader = BufReader::with_capacity(7, &text[..]);
        assert_eq!(now(reader.fill_buf()).unwrap(), b"one two");
        reader.consume(4);
        assert_eq!(now(reader.fill_buf()).unwrap(), b"two");
        let mut short = [0; 2];
        assert_eq!(now(reader.read(&mut short)).unwrap(), 2);
        assert_eq!(&short, b"tw");
        let mut rest = Vec::new();
        loop {
            let mut part = [0; 9];
            match now(reader.read(&mut part)).unwrap() {
                0 => break,
                count => rest.extend_from_slice(&part[..count]),
            }
        }
        assert_eq!(rest, b"o three four");
        assert!(now(reader.fill_buf()).unwrap().is_empty());
    }
}
