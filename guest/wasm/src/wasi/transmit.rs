//! Streams and futures of WASI 0.3: what a component is given, and what it gives.
//!
//! Of each stream one read or one write is in flight, of a bounded number of bytes. How it ended is what the future
//! beside it gives.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::pin::Pin;
use core::task::{Context, Poll};

use wakebox_guest::io::Status;
use wakebox_guest::task::spawn_named;
use wasmtime::component::{
    Destination, FutureConsumer, FutureProducer, FutureReader, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult, Val,
};
use wasmtime::{AsContextMut, Error, Result, StoreContextMut};
use wasmtime_wasi_io::bytes::Bytes;

use super::State;
use super::any::Any;
use super::value::{Cx, Given, Taken, mismatch};
use crate::flight::{self, Flight, Verdict};
use crate::platform::OneThread;

/// Most bytes that one operation moves.
pub(crate) const CHUNK: usize = 64 << 10;

/// Makes a value, for the component that gets it.
pub(crate) type Finish = dyn FnOnce(&mut Cx<'_>) -> Result<Val>;

/// A value that comes later: what a function awaits, or a future that a component is given.
pub(crate) struct Later(OneThread<Pin<Box<dyn Future<Output = Box<Finish>>>>>);

impl Later {
    pub(crate) fn new<R: Given>(act: impl Future<Output = R> + 'static) -> Self {
        Self::of(async move { Ok(act.await) })
    }

    /// As that, of what may end the component.
    pub(crate) fn of<R: Given>(act: impl Future<Output = Result<R>> + 'static) -> Self {
        Self::then(act, |value, cx| value?.given(cx))
    }

    /// Makes the value of what an operation gives, with what belongs to the instance.
    pub(crate) fn then<T: 'static>(
        act: impl Future<Output = T> + 'static,
        make: impl FnOnce(T, &mut Cx<'_>) -> Result<Val> + 'static,
    ) -> Self {
        Self(OneThread(Box::pin(async move {
            let outcome = act.await;
            Box::new(move |cx: &mut Cx<'_>| make(outcome, cx)) as Box<Finish>
        })))
    }
}

impl Future for Later {
    type Output = Box<Finish>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Box<Finish>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl FutureProducer<State> for OneThread<Later> {
    type Item = Any;

    fn poll_produce(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, State>,
        finish: bool,
    ) -> Poll<Result<Option<Any>>> {
        match Pin::new(&mut self.0).poll(cx) {
            Poll::Ready(make) => Poll::Ready(made(make, &mut store).map(Some)),
            Poll::Pending if finish => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A value in a stream or a future.
fn made(make: Box<Finish>, cx: &mut Cx<'_>) -> Result<Any> {
    cx.data_mut().is_newer = true;
    make(cx).map(Any)
}

impl Given for Later {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let future = FutureReader::new(cx.as_context_mut(), OneThread(self))?;
        Ok(Val::Future(
            future.try_into_future_any(cx.as_context_mut())?,
        ))
    }
}

/// The future that gives how something ended, with the errors of an interface.
pub(crate) fn ending<E: Given + From<Status>>(verdict: Rc<Verdict>) -> Later {
    Later::new(async move { verdict.settled().await.map_err(E::from) })
}

/// An operation.
pub(crate) type Act<T> = Pin<Box<dyn Future<Output = flight::Result<T>>>>;

/// A stream of bytes that a component is given: what reads up to so many, and none at the end.
pub(crate) struct Incoming {
    read: Box<dyn FnMut(usize) -> Act<Vec<u8>>>,
    flight: Flight<Vec<u8>>,
    rest: Bytes,
    verdict: Rc<Verdict>,
    /// What ends the component.
    failure: Rc<Cell<Option<Error>>>,
}

/// A read that may fail as no stream says it.
type Failing = Pin<Box<dyn Future<Output = Result<Vec<u8>>>>>;

impl Incoming {
    /// The stream, and how it ends.
    pub(crate) fn new(
        read: impl FnMut(usize) -> Act<Vec<u8>> + 'static,
    ) -> (OneThread<Self>, Rc<Verdict>) {
        let verdict = Rc::<Verdict>::default();
        let stream = Self {
            read: Box::new(read),
            flight: Flight::Nothing,
            rest: Bytes::new(),
            verdict: verdict.clone(),
            failure: Rc::default(),
        };
        (OneThread(stream), verdict)
    }

    /// A stream whose errors end the component.
    pub(crate) fn failing(mut read: impl FnMut(usize) -> Failing + 'static) -> OneThread<Self> {
        let failure = Rc::<Cell<Option<Error>>>::default();
        let fails = failure.clone();
        let (mut stream, _) = Self::new(move |most| {
            let (act, fails) = (read(most), fails.clone());
            Box::pin(async move {
                act.await.map_err(|error| {
                    fails.set(Some(error));
                    Status::InvalidData
                })
            })
        });
        stream.0.failure = failure;
        stream
    }

    /// Waits until there are bytes; gives whether there are.
    fn poll_filled(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<bool> {
        if !self.rest.is_empty() {
            return Poll::Ready(true);
        }
        if self.flight.is_nothing() {
            self.flight = Flight::start((self.read)(most.min(CHUNK)));
        }
        core::task::ready!(self.flight.poll(cx));
        match self.flight.take() {
            Some(Ok(bytes)) if !bytes.is_empty() => self.rest = bytes.into(),
            Some(outcome) => self.verdict.settle(outcome.map(|_| ())),
            None => {}
        }
        Poll::Ready(!self.rest.is_empty())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.verdict.settle(Ok(()));
    }
}

/// What to tell of an operation that is not done.
fn waits(finish: bool) -> Poll<Result<StreamResult>> {
    match finish {
        // It stays in flight, and what comes of it is for whoever asks next.
        true => Poll::Ready(Ok(StreamResult::Cancelled)),
        false => Poll::Pending,
    }
}

impl StreamProducer<State> for OneThread<Incoming> {
    type Item = u8;
    type Buffer = Vec8;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        destination: Destination<'a, u8, Vec8>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let room = destination.remaining(&mut store);
        let most = room.filter(|room| *room > 0).unwrap_or(CHUNK);
        let this = &mut self.0;
        match this.poll_filled(cx, most) {
            Poll::Pending => return waits(finish),
            Poll::Ready(false) => {
                let failure = this.failure.take();
                return Poll::Ready(failure.map_or(Ok(StreamResult::Dropped), Err));
            }
            Poll::Ready(true) => {}
        }
        if room != Some(0) {
            let mut direct = destination.as_direct(store, this.rest.len());
            let room = direct.remaining();
            let count = room.len().min(this.rest.len());
            room[..count].copy_from_slice(&this.rest.split_to(count));
            direct.mark_written(count);
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The buffer beside a component's memory, which stays empty.
type Vec8 = wasmtime::component::VecBuffer<u8>;

impl Given for OneThread<Incoming> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let stream = StreamReader::new(cx.as_context_mut(), self)?;
        Ok(Val::Stream(
            stream.try_into_stream_any(cx.as_context_mut())?,
        ))
    }
}

/// A stream of values that a component is given: what makes the next, and nothing at the end.
pub(crate) struct Items {
    next: Box<dyn FnMut() -> Act<Option<Box<Finish>>>>,
    flight: Flight<Option<Box<Finish>>>,
    verdict: Rc<Verdict>,
}

impl Items {
    /// The stream, and how it ends.
    pub(crate) fn new(
        next: impl FnMut() -> Act<Option<Box<Finish>>> + 'static,
    ) -> (OneThread<Self>, Rc<Verdict>) {
        let verdict = Rc::<Verdict>::default();
        let stream = Self {
            next: Box::new(next),
            flight: Flight::Nothing,
            verdict: verdict.clone(),
        };
        (OneThread(stream), verdict)
    }
}

/// A value of a stream.
pub(crate) fn item<T: Given>(value: T) -> Box<Finish> {
    Box::new(move |cx| value.given(cx))
}

impl Drop for Items {
    fn drop(&mut self) {
        self.verdict.settle(Ok(()));
    }
}

impl StreamProducer<State> for OneThread<Items> {
    type Item = Any;
    type Buffer = Option<Any>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        mut destination: Destination<'a, Any, Option<Any>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let this = &mut self.0;
        if this.flight.is_nothing() {
            this.flight = Flight::start((this.next)());
        }
        if this.flight.poll(cx).is_pending() {
            return waits(finish);
        }
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let outcome = match this.flight.take() {
            Some(Ok(Some(make))) => {
                destination.set_buffer(Some(made(make, &mut store)?));
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            Some(Err(status)) => Err(status),
            Some(Ok(None)) | None => Ok(()),
        };
        this.verdict.settle(outcome);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Given for OneThread<Items> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let stream = StreamReader::new(cx.as_context_mut(), self)?;
        Ok(Val::Stream(
            stream.try_into_stream_any(cx.as_context_mut())?,
        ))
    }
}

/// A stream of bytes that a component gives.
pub(crate) struct Outgoing(StreamReader<u8>);

impl Taken for Outgoing {
    fn taken(value: &Val, _: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::Stream(stream) => Ok(Self(stream.clone().try_into_stream_reader()?)),
            _ => mismatch(),
        }
    }
}

impl Outgoing {
    /// Writes what comes, and no bytes at the end; gives how it ends.
    pub(crate) fn pipe(
        self,
        cx: &mut Cx<'_>,
        write: impl FnMut(Vec<u8>) -> Act<()> + 'static,
    ) -> Result<Rc<Verdict>> {
        let verdict = Rc::<Verdict>::default();
        let sink = Sink {
            write: Box::new(write),
            flight: Flight::Nothing,
            verdict: verdict.clone(),
        };
        self.0.pipe(cx.as_context_mut(), OneThread(sink))?;
        Ok(verdict)
    }

    /// Takes nothing of it.
    pub(crate) fn refuse(mut self, cx: &mut Cx<'_>, status: Status) -> Result<Rc<Verdict>> {
        self.0.close(cx.as_context_mut())?;
        let verdict = Rc::<Verdict>::default();
        verdict.settle(Err(status));
        Ok(verdict)
    }
}

struct Sink {
    write: Box<dyn FnMut(Vec<u8>) -> Act<()>>,
    flight: Flight<()>,
    verdict: Rc<Verdict>,
}

impl StreamConsumer<State> for OneThread<Sink> {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let this = &mut self.0;
        // What was taken before comes first.
        if this.flight.poll(cx).is_pending() {
            return waits(finish);
        }
        if let Some(Err(status)) = this.flight.take() {
            this.verdict.settle(Err(status));
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        let mut source = source.as_direct(store);
        let there = source.remaining();
        let bytes = there[..there.len().min(CHUNK)].to_vec();
        if !bytes.is_empty() {
            source.mark_read(bytes.len());
            this.flight = Flight::start((this.write)(bytes));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// What was taken is written, also when the stream is gone.
impl Drop for Sink {
    fn drop(&mut self) {
        if self.verdict.is_settled() {
            return;
        }
        let mut flight = core::mem::replace(&mut self.flight, Flight::Nothing);
        let end = (self.write)(Vec::new());
        let verdict = self.verdict.clone();
        drop(spawn_named("write", async move {
            flight.landed().await;
            let outcome = match flight.take() {
                Some(Err(status)) => Err(status),
                _ => end.await,
            };
            verdict.settle(outcome);
        }));
    }
}

/// A stream that is given back as it came.
impl Given for Outgoing {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        Ok(Val::Stream(
            self.0.try_into_stream_any(cx.as_context_mut())?,
        ))
    }
}

/// A future that a component gives.
pub(crate) struct Promised(FutureReader<Any>);

impl Taken for Promised {
    fn taken(value: &Val, _: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::Future(future) => Ok(Self(future.clone().try_into_future_reader()?)),
            _ => mismatch(),
        }
    }
}

impl Given for Promised {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        Ok(Val::Future(
            self.0.try_into_future_any(cx.as_context_mut())?,
        ))
    }
}

/// What is done with a value when it comes; with none if none will.
type Kept = Box<dyn FnOnce(Option<(Val, &mut Cx<'_>)>) -> Result<()>>;

impl Promised {
    /// Does something with its value.
    pub(crate) fn keep(
        self,
        cx: &mut Cx<'_>,
        kept: impl FnOnce(Option<(Val, &mut Cx<'_>)>) -> Result<()> + 'static,
    ) -> Result<()> {
        let keeps = OneThread(Keeps(Some(Box::new(kept))));
        self.0.pipe(cx.as_context_mut(), keeps)
    }
}

struct Keeps(Option<Kept>);

impl FutureConsumer<State> for OneThread<Keeps> {
    type Item = Any;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'_, State>,
        mut source: Source<'_, Any>,
        _: bool,
    ) -> Poll<Result<()>> {
        let mut value = None;
        source.read(&mut store, &mut value)?;
        if let (Some(Any(value)), Some(kept)) = (value, self.0.0.take()) {
            kept(Some((value, &mut store)))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Keeps {
    fn drop(&mut self) {
        if let Some(kept) = self.0.take() {
            let _ = kept(None);
        }
    }
}
