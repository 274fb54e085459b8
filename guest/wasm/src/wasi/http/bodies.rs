//! Bodies: those that come, and those that a component writes.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, StreamError, StreamResult,
};

use super::super::define::{Define, Linker, part_if, pollable, resource};
use super::super::value::Cx;
use super::fields::Fields;
use super::{Done, Outcome};
use crate::flight::{Flight, Reads};
use crate::http::{Body, Pipe};
use crate::platform::OneThread;

/// A body that comes, and whether somebody has taken its stream.
pub(super) struct Incoming {
    body: Rc<Body>,
    is_taken: bool,
}

pub(super) type IncomingBody = OneThread<Incoming>;

impl Incoming {
    pub(super) fn new(body: Rc<Body>) -> IncomingBody {
        OneThread(Self {
            body,
            is_taken: false,
        })
    }

    fn stream(&mut self) -> Option<DynInputStream> {
        let is_first = !core::mem::replace(&mut self.is_taken, true);
        is_first.then(|| {
            Box::new(OneThread(Input {
                body: self.body.clone(),
                reads: Reads::new(),
            })) as DynInputStream
        })
    }
}

/// The bytes of one.
struct Input {
    body: Rc<Body>,
    reads: Reads,
}

#[async_trait]
impl Pollable for OneThread<Input> {
    async fn ready(&mut self) {
        let Input { body, reads } = &mut self.0;
        OneThread(reads.ready(|| read(body.clone()))).await;
    }
}

#[async_trait]
impl InputStream for OneThread<Input> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let Input { body, reads } = &mut self.0;
        reads.take(size, || read(body.clone()))
    }
}

async fn read(body: Rc<Body>) -> crate::flight::Result<Vec<u8>> {
    body.read().await
}

/// What comes behind a body.
pub(super) struct Trailers {
    over: Flight<()>,
    body: Rc<Body>,
    is_taken: bool,
}

pub(super) type FutureTrailers = OneThread<Trailers>;

impl Trailers {
    fn of(body: Rc<Body>) -> FutureTrailers {
        let reads = body.clone();
        OneThread(Self {
            over: Flight::start(async move {
                while !reads.read().await?.is_empty() {}
                Ok(())
            }),
            body,
            is_taken: false,
        })
    }
}

#[async_trait]
impl Pollable for FutureTrailers {
    async fn ready(&mut self) {
        self.0.over.landed().await;
    }
}

/// A body that a component writes.
pub(super) struct Outgoing {
    pub(super) pipe: Rc<Pipe>,
    is_taken: bool,
}

pub(super) type OutgoingBody = OneThread<Outgoing>;

impl Outgoing {
    pub(super) fn new(pipe: Rc<Pipe>) -> OutgoingBody {
        OneThread(Self {
            pipe,
            is_taken: false,
        })
    }

    fn stream(&mut self) -> Option<DynOutputStream> {
        let is_first = !core::mem::replace(&mut self.is_taken, true);
        is_first.then(|| Box::new(OneThread(Output(self.pipe.clone()))) as DynOutputStream)
    }
}

/// A body that is dropped before it is finished is not whole.
impl Drop for Outgoing {
    fn drop(&mut self) {
        self.pipe.cut();
    }
}

struct Output(Rc<Pipe>);

#[async_trait]
impl Pollable for OneThread<Output> {
    async fn ready(&mut self) {
        OneThread(core::future::poll_fn(|cx| self.0.0.poll_room(cx))).await;
    }
}

#[async_trait]
impl OutputStream for OneThread<Output> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.check_write()? < bytes.len() {
            return Err(StreamError::trap("more is written than check-write allows"));
        }
        self.0.0.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check_write().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.0.room().ok_or(StreamError::Closed)
    }
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    resource::<IncomingBody>(instance, "incoming-body")?;
    resource::<FutureTrailers>(instance, "future-trailers")?;
    resource::<OutgoingBody>(instance, "outgoing-body")?;
    part_if::<IncomingBody, DynInputStream>(instance, "[method]incoming-body.stream", |body| {
        body.0.stream()
    })?;
    part_if::<OutgoingBody, DynOutputStream>(instance, "[method]outgoing-body.write", |body| {
        body.0.stream()
    })?;
    pollable::<FutureTrailers>(instance, "[method]future-trailers.subscribe")?;
    instance.define(
        "[static]incoming-body.finish",
        |mut cx: Cx<'_>, (this,): (Resource<IncomingBody>,)| {
            let table = &mut cx.data_mut().table;
            let body = table.delete(this)?.0.body;
            Ok((table.push(Trailers::of(body))?,))
        },
    )?;
    instance.define(
        "[method]future-trailers.get",
        |mut cx: Cx<'_>, (this,): (Resource<FutureTrailers>,)| {
            let table = &mut cx.data_mut().table;
            let trailers = &mut table.get_mut(&this)?.0;
            if trailers.is_taken {
                return Ok((Some(Done::<Outcome<Option<Resource<Fields>>>>::Err(())),));
            }
            let Some(over) = trailers.over.take() else {
                return Ok((None,));
            };
            trailers.is_taken = true;
            let entries = trailers.body.trailers();
            Ok((Some(Ok(match over {
                Ok(()) if entries.is_empty() => Ok(None),
                Ok(()) => Ok(Some(table.push(Fields::fixed(entries))?)),
                Err(status) => Err(status.into()),
            })),))
        },
    )?;
    instance.define(
        "[static]outgoing-body.finish",
        |mut cx: Cx<'_>, (this, trailers): (Resource<OutgoingBody>, Option<Resource<Fields>>)| {
            let table = &mut cx.data_mut().table;
            let body = table.delete(this)?;
            let trailers = trailers
                .map(|trailers| table.delete(trailers))
                .transpose()?;
            let entries = trailers.map(|trailers| trailers.entries);
            body.0.pipe.finish(entries.unwrap_or_default());
            Ok((Outcome::Ok(()),))
        },
    )
}
