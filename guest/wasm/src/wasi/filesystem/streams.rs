//! Streams of files.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::poll_fn;

use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::Node;
use crate::flight::{Flight, Writes, failed};

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
        if size > 0 && self.read.is_nothing() {
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
    writes: Writes,
}

impl FileOutput {
    pub(super) fn new(node: Node, offset: u64) -> Self {
        Self {
            node,
            offset,
            writes: Writes::new(),
        }
    }
}

#[async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        poll_fn(|cx| self.writes.poll(cx)).await;
    }
}

#[async_trait]
impl OutputStream for FileOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let (node, offset, count) = (self.node.clone(), self.offset, bytes.len());
        let write = async move { node.write_all(&bytes, offset).await };
        self.writes.begin(count, write)?;
        self.offset += count as u64;
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.writes.check().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.writes.check()
    }

    /// What was written is written, also if the stream is gone.
    async fn cancel(&mut self) {
        self.ready().await;
    }
}
