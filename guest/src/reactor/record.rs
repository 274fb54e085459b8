//! What the reactor keeps of an operation, and what it says of its end.

use core::task::Waker;

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::op::{Handle, OVERFLOW, Operation};
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::trace::Reason;
use crate::wait_queue::{Key, Links, Member};

/// An operation without its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(super) opcode: u16,
    pub(super) params: [u64; Submission::PARAMS],
}

impl<O: Operation> From<O> for Request {
    #[inline]
    fn from(operation: O) -> Self {
        Self {
            opcode: O::OPCODE as u16,
            params: operation.to_params(),
        }
    }
}

/// How an operation ended: the value that it gave, or what went wrong.
pub(crate) type Outcome = Result<u32, Status>;

/// An orphan is an operation whose future is gone: what to do with its result.
#[derive(Debug, Default)]
pub(crate) struct Orphan {
    /// The buffer that the host may use until then.
    pub(crate) buf: Option<IoBuf>,
    /// Whether the value is a handle, which must be closed.
    pub(crate) value_is_handle: bool,
    /// Whether the value may be `OVERFLOW`, and the buffer then hold the handle of a message.
    pub(crate) value_may_overflow: bool,
}

impl Orphan {
    /// One that leaves a buffer.
    pub(crate) fn of(buf: IoBuf) -> Self {
        Self {
            buf: Some(buf),
            ..Self::default()
        }
    }

    /// The handle that an operation gave, if it gave one.
    pub(super) fn handle(&self, outcome: Outcome) -> Option<Handle> {
        let value = outcome.ok()?;
        if self.value_is_handle {
            return Some(Handle(value));
        }
        if !self.value_may_overflow || value != OVERFLOW {
            return None;
        }
        let bytes = self.buf.as_ref()?.written().first_chunk()?;
        Some(Handle(u32::from_le_bytes(*bytes)))
    }
}

/// Who waits for the end of an operation.
#[derive(Debug)]
pub(crate) enum Owner {
    /// A future, polled last with this waker.
    Future(Waker),
    /// Nobody any more: it is an orphan.
    Nobody(Orphan),
    /// Nobody yet, or somebody since, of a write that is [posted](Reactor::post): its buffer.
    Posted(IoBuf, Option<Waker>),
    /// Those who wait for what may be deferred.
    Waiters,
    /// The console, which wants its buffer back.
    Console(IoBuf),
    /// The timers.
    Deadline,
}

impl Owner {
    pub(super) fn is_future(&self) -> bool {
        matches!(self, Self::Future(_) | Self::Posted(_, Some(_)))
    }

    /// Whether its end may be told with another.
    pub(super) fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::Nobody(_) | Self::Console(_) | Self::Posted(_, None)
        )
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Queued { urgent: bool },
    InFlight(Token),
    Done(Outcome),
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) request: Request,
    pub(super) stage: Stage,
    pub(super) owner: Owner,
    /// Whether it is a write that was posted, and has not ended.
    pub(super) is_posted: bool,
    /// When it was submitted as deferrable: not before it was last asked for what is deferred.
    pub(super) deferrable_since: Option<u64>,
    pub(super) links: Links,
}

impl Member for Record {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Of the operation in it, or of the next one.
    pub(super) generation: u32,
    /// Who is in it.
    pub(super) record: Option<u32>,
}

/// What the caller of [`Reactor::next_event`] has to see to.
#[derive(Debug)]
pub(crate) enum Event {
    /// An operation is done: wake its future. The reason is for the trace.
    Wake(Waker, Reason),
    /// An orphan is done, or a write that was posted: drop what it left, and wake who waits for it.
    Drop(Orphan, Reason, Option<Waker>),
    /// Console output was taken.
    Console(IoBuf),
    /// A deadline was reached, or its operation cancelled.
    Deadline(Key, Outcome),
    /// A stale completion: it belongs to nothing in flight.
    Stale,
}

/// What the reactor has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) completions: u64,
    pub(crate) cancels: u64,
}
