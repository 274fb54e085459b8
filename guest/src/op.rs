//! One operation of the host, as a future.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wakebox_abi::op::Operation;

use crate::buf::IoBuf;
use crate::reactor::{Orphan, Outcome, Request};
use crate::runtime::runtime;
use crate::trace;
use crate::wait_queue::Key;

/// An operation of the host. Nothing happens before it is polled; it is cancelled when
/// it is dropped.
///
/// The ready value also returns the buffer, if the operation has one. From the first poll
/// to the end, also beyond the life of the future, the buffer belongs to the host.
#[derive(Debug)]
#[must_use = "an operation does nothing unless it is polled"]
pub(crate) struct Op {
    request: Request,
    orphan: Orphan,
    cancel: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    New,
    Submitted(Key),
    Done,
}

impl Op {
    /// An operation without a buffer.
    pub(crate) fn new(operation: impl Operation) -> Self {
        Self {
            request: operation.into(),
            orphan: Orphan::default(),
            cancel: true,
            state: State::New,
        }
    }

    /// An operation that names this buffer.
    pub(crate) fn with_buf(operation: impl Operation, buf: IoBuf) -> Self {
        let mut op = Self::new(operation);
        op.orphan.buf = Some(buf);
        op
    }

    /// Says that the value is a handle, to be closed if nobody is there to take it.
    pub(crate) fn giving_handle(mut self) -> Self {
        self.orphan.value_is_handle = true;
        self
    }

    /// Says that the value may be [`OVERFLOW`](wakebox_abi::op::OVERFLOW), and that the message is to be
    /// closed if nobody is there to read it.
    #[cfg(feature = "calls")]
    pub(crate) fn giving_message(mut self) -> Self {
        self.orphan.value_may_overflow = true;
        self
    }

    /// Drops the future without a Cancel, because what follows ends the operation.
    pub(crate) fn leave(mut self) {
        self.cancel = false;
    }
}

/// A write of the host under way that nobody waits for, unless they poll this. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Posted(Key);

impl Posted {
    /// Submits an operation that names this buffer.
    pub(crate) fn new(operation: impl Operation, buf: IoBuf) -> Self {
        Self(runtime().reactor.post(operation.into(), buf))
    }

    /// How it ended, if it has. Not to be asked or polled again then.
    pub(crate) fn take(&mut self) -> Option<Outcome> {
        runtime().reactor.take(self.0)
    }

    /// Waits for its end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = runtime().reactor.poll(self.0, cx.waker()) {
            return Poll::Ready(outcome);
        }
        trace::waits_for(runtime().reactor.reason(self.0));
        Poll::Pending
    }

    /// Nobody will ask how it ended.
    pub(crate) fn leave(self) {
        runtime().reactor.abandon(self.0, Orphan::default(), false);
    }
}

impl Future for Op {
    type Output = (Outcome, Option<IoBuf>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.state {
            State::New => {
                let key = runtime().reactor.submit(self.request, cx.waker());
                self.state = State::Submitted(key);
                trace::waits_for(runtime().reactor.reason(key));
                Poll::Pending
            }
            State::Submitted(key) => match runtime().reactor.poll(key, cx.waker()) {
                Some(outcome) => {
                    self.state = State::Done;
                    Poll::Ready((outcome, self.orphan.buf.take()))
                }
                None => {
                    trace::waits_for(runtime().reactor.reason(key));
                    Poll::Pending
                }
            },
            State::Done => panic!("an operation was polled after it was done"),
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        if let State::Submitted(key) = self.state {
            let orphan = core::mem::take(&mut self.orphan);
            runtime().reactor.abandon(key, orphan, self.cancel);
        }
    }
}
