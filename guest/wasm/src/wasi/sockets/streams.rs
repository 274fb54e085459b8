//! A TCP connection and its streams. It is closed when all three are gone, and what was written is sent.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;

use wakebox_guest::net::{self, TcpStream};
use wakebox_guest::task::spawn_named;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, StreamError, StreamResult,
};

use super::types::{ErrorCode, Shutdown};
use crate::files::status;
use crate::flight::{Reads, Writes};
use crate::platform::OneThread;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    writes: RefCell<Writes>,
    /// Whether nobody wants to read any more.
    deaf: Cell<bool>,
    /// Whether there are streams for what comes and what goes, in 0.3.
    streams: Cell<(bool, bool)>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Rc<Self> {
        Rc::new(Self {
            stream,
            writes: RefCell::new(Writes::new()),
            deaf: Cell::new(false),
            streams: Cell::default(),
        })
    }

    /// Takes the stream of what comes; nobody does twice.
    pub(super) fn receives(&self) -> bool {
        let (comes, goes) = self.streams.get();
        self.streams.set((true, goes));
        !comes
    }

    /// As that, of what goes.
    pub(super) fn sends(&self) -> bool {
        let (comes, goes) = self.streams.get();
        self.streams.set((comes, true));
        !goes
    }

    pub(super) fn input(self: &Rc<Self>) -> DynInputStream {
        Box::new(OneThread(Input {
            connection: self.clone(),
            reads: Reads::new(),
        }))
    }

    pub(super) fn output(self: &Rc<Self>) -> DynOutputStream {
        Box::new(OneThread(Output(self.clone())))
    }

    /// Ends one direction or both; writing after what was written.
    pub(super) async fn shutdown(self: Rc<Self>, how: Shutdown) -> Result<(), ErrorCode> {
        if matches!(how, Shutdown::Receive | Shutdown::Both) {
            self.deaf.set(true);
            self.stream.shutdown(net::Shutdown::Read).await?;
        }
        if matches!(how, Shutdown::Send | Shutdown::Both) {
            let under_way = {
                let mut writes = self.writes.borrow_mut();
                writes.close();
                writes.leave()
            };
            let Some(mut under_way) = under_way else {
                return Ok(self.stream.shutdown(net::Shutdown::Write).await?);
            };
            drop(spawn_named("send", async move {
                under_way.landed().await;
                let _ = self.stream.shutdown(net::Shutdown::Write).await;
            }));
        }
        Ok(())
    }
}

struct Input {
    connection: Rc<Connection>,
    reads: Reads,
}

/// A read of a connection, which has begun when it is polled.
async fn read(connection: Rc<Connection>) -> crate::flight::Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; CHUNK];
    let count = connection.stream.read(&mut bytes).await.map_err(status)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[async_trait]
impl Pollable for OneThread<Input> {
    async fn ready(&mut self) {
        let Input { connection, reads } = &mut self.0;
        if !connection.deaf.get() {
            OneThread(reads.ready(|| read(connection.clone()))).await;
        }
    }
}

#[async_trait]
impl InputStream for OneThread<Input> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let Input { connection, reads } = &mut self.0;
        if connection.deaf.get() {
            return Err(StreamError::Closed);
        }
        reads.take(size, || read(connection.clone()))
    }
}

struct Output(Rc<Connection>);

#[async_trait]
impl Pollable for OneThread<Output> {
    async fn ready(&mut self) {
        OneThread(poll_fn(|cx| self.0.0.writes.borrow_mut().poll(cx))).await;
    }
}

#[async_trait]
impl OutputStream for OneThread<Output> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let connection = self.0.0.clone();
        let count = bytes.len();
        let write = async move { connection.stream.write_all(&bytes).await.map_err(status) };
        self.0.0.writes.borrow_mut().begin(count, write)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check_write().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.0.writes.borrow_mut().check()
    }

    /// What was written is sent, and nobody waits for that.
    async fn cancel(&mut self) {
        if let Some(mut under_way) = self.0.0.writes.borrow_mut().leave() {
            drop(spawn_named("send", async move {
                under_way.landed().await;
            }));
        }
    }
}
