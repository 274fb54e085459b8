//! What is asked of the host and stays in flight while nobody waits for it, so that a pollable may be looked
//! at as often as one likes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use wakebox_guest::io::Status;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::streams::{StreamError, StreamResult};

use crate::platform::OneThread;

pub(crate) type Result<T> = core::result::Result<T, Status>;

/// Something that is in flight, and its outcome when it has one.
pub(crate) enum Flight<T> {
    Nothing,
    Under(Pin<Box<dyn Future<Output = Result<T>> + Send + Sync>>),
    Landed(Result<T>),
}

impl<T> Flight<T> {
    pub(crate) fn start(act: impl Future<Output = Result<T>> + 'static) -> Self {
        let mut flight = Self::Under(Box::pin(OneThread(act)));
        // Submits it.
        flight.look();
        flight
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    pub(crate) async fn landed(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// The outcome, if there is one that nobody has taken.
    pub(crate) fn take(&mut self) -> Option<Result<T>> {
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

/// How a stream has ended, for whoever waits for that.
#[derive(Default)]
pub(crate) struct Verdict(RefCell<(Option<Result<()>>, Vec<Waker>)>);

impl Verdict {
    /// Says so, if nobody has yet.
    pub(crate) fn settle(&self, outcome: Result<()>) {
        let mut inner = self.0.borrow_mut();
        inner.0.get_or_insert(outcome);
        let wakers = core::mem::take(&mut inner.1);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.0.borrow().0.is_some()
    }

    pub(crate) async fn settled(&self) -> Result<()> {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            if let Some(outcome) = inner.0 {
                return Poll::Ready(outcome);
            }
            if !inner.1.iter().any(|own| own.will_wake(cx.waker())) {
                inner.1.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// The error of a stream whose operation has ended with this.
pub(crate) fn failed(status: Status) -> StreamError {
    StreamError::LastOperationFailed(status.into())
}

/// What is read of something that nobody else reads: as much as comes, before anybody has asked for it. A read
/// that brings nothing is the end.
pub(crate) struct Reads {
    read: Flight<Vec<u8>>,
    /// Bytes that were read, and taken by nobody.
    rest: Bytes,
    has_ended: bool,
}

impl Reads {
    pub(crate) fn new() -> Self {
        Self {
            read: Flight::Nothing,
            rest: Bytes::new(),
            has_ended: false,
        }
    }

    /// Sees to it that a read is in flight, if there is anything to wait for.
    fn ask<F>(&mut self, read: impl FnOnce() -> F)
    where
        F: Future<Output = Result<Vec<u8>>> + 'static,
    {
        if self.rest.is_empty() && !self.has_ended && self.read.is_nothing() {
            self.read = Flight::start(read());
        }
    }

    /// Waits until there is something to take; `read` begins a read.
    pub(crate) async fn ready<F>(&mut self, read: impl FnOnce() -> F)
    where
        F: Future<Output = Result<Vec<u8>>> + 'static,
    {
        self.ask(read);
        self.read.landed().await;
    }

    /// Up to so many bytes of those that are there.
    pub(crate) fn take<F>(&mut self, size: usize, read: impl FnOnce() -> F) -> StreamResult<Bytes>
    where
        F: Future<Output = Result<Vec<u8>>> + 'static,
    {
        match self.read.take() {
            Some(Ok(bytes)) => {
                self.has_ended = bytes.is_empty();
                self.rest = bytes.into();
            }
            Some(Err(status)) => {
                self.has_ended = true;
                return Err(failed(status));
            }
            None => {}
        }
        if self.has_ended && self.rest.is_empty() {
            return Err(StreamError::Closed);
        }
        self.ask(read);
        Ok(self.rest.split_to(size.min(self.rest.len())))
    }
}

/// Bytes that may be written at once.
const CHUNK: usize = 64 << 10;

/// What is written to something: one write is in flight at a time.
pub(crate) struct Writes {
    write: Flight<()>,
    is_closed: bool,
}

impl Writes {
    pub(crate) fn new() -> Self {
        Self {
            write: Flight::Nothing,
            is_closed: false,
        }
    }

    /// How many bytes may be written now.
    pub(crate) fn check(&mut self) -> StreamResult<usize> {
        match self.write.take() {
            Some(Err(status)) => {
                self.is_closed = true;
                Err(failed(status))
            }
            _ if self.is_closed => Err(StreamError::Closed),
            _ if self.write.is_nothing() => Ok(CHUNK),
            _ => Ok(0),
        }
    }

    /// Writes so many bytes.
    pub(crate) fn begin(
        &mut self,
        bytes: usize,
        write: impl Future<Output = Result<()>> + 'static,
    ) -> StreamResult<()> {
        if self.check()? < bytes {
            return Err(StreamError::trap("more is written than check-write allows"));
        }
        self.write = Flight::start(write);
        Ok(())
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.write.poll(cx)
    }

    /// Lets nobody write any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// What is in flight, for whoever sees to it that it lands.
    pub(crate) fn leave(&mut self) -> Option<Flight<()>> {
        match self.write.look() {
            true => None,
            false => Some(core::mem::replace(&mut self.write, Flight::Nothing)),
        }
    }
}
