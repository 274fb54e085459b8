//! What `picoserve` asks of a runtime: sockets and a clock.
//!
//! ```ignore
//! let server = picoserve::Server::custom(&app, Timer, &config, &mut buffer);
//! server.serve(stream).await?;
//! ```

use embedded_io_async::{ErrorType, Write};
use picoserve::mem::{BorrowedBuffer, BorrowedCursor};
use picoserve::time::Duration;
use picoserve::{Error as ServeError, Timeouts};

use super::{Shutdown, TcpStream};
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::time;

/// Marks what belongs to this runtime, where `picoserve` wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Runtime;

/// The guest's clock, for the time-outs of `picoserve`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl picoserve::Timer<Runtime> for Timer {
    async fn delay(&self, duration: Duration) {
        time::sleep(time::Duration::from_millis(duration.as_millis())).await;
    }
}

/// The writing half of a connection, for `picoserve`: what is written is sent together, when the task
/// waits for something next, or when the buffer is full.
///
/// A flush waits for nothing: `picoserve` flushes between the head of a response and its body, and both
/// go out in one write so. What is flushed by a task that then computes goes out when that has come back.
///
/// Nothing that was written is lost when this is dropped, or the connection. What could not be sent
/// is an error of the next operation.
#[derive(Debug)]
pub struct Writer<'a> {
    stream: &'a TcpStream,
}

impl ErrorType for Writer<'_> {
    type Error = Error;
}

/// Cancel-safe: what was written is sent in any case.
impl Write for Writer<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let write = |buf: &mut IoBuf| buf.extend_from_slice(bytes);
        self.stream.outbox().write(write).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.outbox().check()
    }
}

impl picoserve::io::Write for Writer<'_> {
    async fn write_with<F, R>(&mut self, write: F) -> Result<R>
    where
        F: FnOnce(BorrowedCursor<'_>) -> R,
    {
        let append = |buf: &mut IoBuf| {
            let used = buf.len();
            buf.set_len(buf.capacity());
            let mut free = BorrowedBuffer::new(&mut buf[used..]);
            let result = write(free.unfilled());
            let written = free.len();
            buf.set_len(used + written);
            result
        };
        self.stream.outbox().write(append).await
    }
}

impl picoserve::io::Socket<Runtime> for TcpStream {
    type Error = Error;
    type ReadHalf<'a> = &'a TcpStream;
    type WriteHalf<'a> = Writer<'a>;

    fn split(&mut self) -> (&TcpStream, Writer<'_>) {
        let stream = &*self;
        (stream, Writer { stream })
    }

    async fn abort<T: picoserve::Timer<Runtime>>(
        self,
        _: &Timeouts,
        _: &T,
    ) -> core::result::Result<(), ServeError<Error>> {
        Ok(())
    }

    /// Says that there is no more, and reads until the peer says so too: a connection that is
    /// closed over unread bytes is reset, and the peer may lose the end of its answer.
    async fn shutdown<T: picoserve::Timer<Runtime>>(
        self,
        timeouts: &Timeouts,
        timer: &T,
    ) -> core::result::Result<(), ServeError<Error>> {
        let end = TcpStream::shutdown(&self, Shutdown::Write);
        timer
            .run_with_timeout(timeouts.write, end)
            .await
            .map_err(ServeError::WriteTimeout)?
            .map_err(ServeError::Write)?;
        let rest = async {
            let mut bytes = [0; 512];
            while self.read(&mut bytes).await? > 0 {}
            Ok(())
        };
        timer
            .run_with_timeout(timeouts.read_request, rest)
            .await
            .map_err(ServeError::ReadTimeout)?
            .map_err(ServeError::Read)
    }
}
