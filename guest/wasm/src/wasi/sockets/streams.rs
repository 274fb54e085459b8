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
use crate::flight::{Flight, Writes, failed};
use crate::platform::OneThread;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    writes: RefCell<Writes>,
    /// Whether nobody wants to read any more.
    deaf: Cell<bool>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Rc<Self> {
        Rc::new(Self {
            stream,
            writes: RefCell::new(Writes::new()),
            deaf: Cell::new(false),
        })
    }

    pub(super) fn input(self: &Rc<Self>) -> DynInputStream {
        Box::new(OneThread(Input {
            connection: self.clone(),
            read: Flight::Nothing,
            rest: Bytes::new(),
            has_ended: false,
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
    read: Flight<Vec<u8>>,
    /// Bytes that were read, and taken by nobody.
    rest: Bytes,
    has_ended: bool,
}

impl Input {
    /// Sees to it that a read is in flight, if there is anything to wait for.
    fn ask(&mut self) {
        if self.rest.is_empty() && !self.has_ended && self.read.is_nothing() {
            let connection = self.connection.clone();
            self.read = Flight::start(async move {
                let mut bytes = alloc::vec![0; CHUNK];
                let count = connection.stream.read(&mut bytes).await.map_err(status)?;
                bytes.truncate(count);
                Ok(bytes)
            });
        }
    }
}

#[async_trait]
impl Pollable for OneThread<Input> {
    async fn ready(&mut self) {
        if !self.0.connection.deaf.get() {
            self.0.ask();
            self.0.read.landed().await;
        }
    }
}

#[async_trait]
impl InputStream for OneThread<Input> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let input = &mut self.0;
        if input.connection.deaf.get() {
            return Err(StreamError::Closed);
        }
        match input.read.take() {
            Some(Ok(bytes)) => {
                input.has_ended = bytes.is_empty();
                input.rest = bytes.into();
            }
            Some(Err(status)) => {
                input.has_ended = true;
                return Err(failed(status));
            }
            None => {}
        }
        if input.has_ended && input.rest.is_empty() {
            return Err(StreamError::Closed);
        }
        input.ask();
        Ok(input.rest.split_to(size.min(input.rest.len())))
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
