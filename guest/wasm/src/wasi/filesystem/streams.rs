//! Streams of files. What is asked of the host stays in flight while nobody waits for it, so that a pollable
//! may be looked at as often as one likes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use wakebox_guest::io::Status;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::Node;
use crate::files;
use crate::platform::OneThread;

/// Bytes that may be written at once.
const CHUNK: usize = 64 << 10;

/// Something that is in flight, and its outcome when it has one.
enum Flight<T> {
    Nothing,
    Under(Pin<Box<dyn Future<Output = files::Result<T>> + Send + Sync>>),
    Landed(files::Result<T>),
}

impl<T> Flight<T> {
    fn start(act: impl Future<Output = files::Result<T>> + 'static) -> Self {
        let mut flight = Self::Under(Box::pin(OneThread(act)));
        // Submits it.
        flight.look();
        flight
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Under(act) = self {
            let Poll::Ready(outcome) = act.as_mut().poll(cx) else {
                return Poll::Pending;
            };
            *self = Self::Landed(outcome);
        }
        Poll::Ready(())
    }

    /// Whether nothing is in flight.
    fn look(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    async fn landed(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// The outcome, if there is one that nobody has taken.
    fn take(&mut self) -> Option<files::Result<T>> {
        self.look();
        match core::mem::replace(self, Self::Nothing) {
            Self::Landed(outcome) => Some(outcome),
            other => {
                *self = other;
                None
            }
        }
    }
}

fn failed(status: Status) -> StreamError {
    StreamError::LastOperationFailed(status.into())
}

/// A file, from an offset on. It is read as much of as is asked for, and no more: others may write to what
/// follows.
pub(super) struct FileInput {
    node: Node,
    offset: u64,
    read: Flight<Vec<u8>>,
    /// Bytes that were read, and asked for by nobody.
    rest: Bytes,
    has_ended: bool,
}

impl FileInput {
    pub(super) fn new(node: Node, offset: u64) -> Self {
        Self {
            node,
            offset,
            read: Flight::Nothing,
            rest: Bytes::new(),
            has_ended: false,
        }
    }
}

#[async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {
        // Without a read in flight, one is to be asked for.
        self.read.landed().await;
    }
}

#[async_trait]
impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match self.read.take() {
            Some(Ok(bytes)) => {
                self.has_ended = bytes.is_empty();
                self.offset += bytes.len() as u64;
                self.rest = bytes.into();
            }
            Some(Err(status)) => {
                self.has_ended = true;
                return Err(failed(status));
            }
            None => {}
        }
        if !self.rest.is_empty() {
            return Ok(self.rest.split_to(size.min(self.rest.len())));
        }
        if self.has_ended {
            return Err(StreamError::Closed);
        }
        if size > 0 && matches!(self.read, Flight::Nothing) {
            let (node, offset) = (self.node.clone(), self.offset);
            let read = async move { node.read(size as u64, offset).await };
            self.read = Flight::start(read);
        }
        Ok(Bytes::new())
    }
}

/// A file, into which is written from an offset on; of one that was opened for appending, at its end.
pub(super) struct FileOutput {
    node: Node,
    offset: u64,
    write: Flight<()>,
    is_closed: bool,
}

impl FileOutput {
    pub(super) fn new(node: Node, offset: u64) -> Self {
        Self {
            node,
            offset,
            write: Flight::Nothing,
            is_closed: false,
        }
    }
}

#[async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        self.write.landed().await;
    }
}

#[async_trait]
impl OutputStream for FileOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.check_write()? < bytes.len() {
            return Err(StreamError::trap("more is written than check-write allows"));
        }
        let (node, offset) = (self.node.clone(), self.offset);
        self.offset += bytes.len() as u64;
        self.write = Flight::start(async move { node.write_all(&bytes, offset).await });
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check_write().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.write.take() {
            Some(Err(status)) => {
                self.is_closed = true;
                Err(failed(status))
            }
            _ if self.is_closed => Err(StreamError::Closed),
            _ if matches!(self.write, Flight::Nothing) => Ok(CHUNK),
            _ => Ok(0),
        }
    }

    /// What was written is written, also if the stream is gone.
    async fn cancel(&mut self) {
        self.write.landed().await;
    }
}
