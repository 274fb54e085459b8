//! Functions of a guest that the embedding program calls.
//!
//! A call is put into a queue; the guest takes calls out with an operation and answers with
//! another. Each becomes a task there, so hundreds go on at once, and a guest may call the
//! host back while it works on one.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallHeader, CallKind, ReplyKind};
use wakebox_abi::status::Status;

use super::{Budget, MESSAGE_MAX, Share, deserialize};
use crate::driver::thread::Seat;

/// Most calls that wait or are being worked on; a further one awaits its turn.
const CALLS_MAX: usize = 4096;

/// For how long a caller looks after the rings itself before it awaits (wake mode `poll`).
const HELP: Duration = Duration::from_micros(50);

/// Why a call to a guest gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The guest has ended, or has stopped taking calls.
    #[error("the guest has ended or takes no more calls")]
    Ended,
    /// The guest has no function of this name.
    #[error("the guest exports no function `{0}`")]
    NoSuchFunction(String),
    /// The guest could not read the arguments. Not every wrong type is noticed: postcard carries no
    /// types, so both sides have to declare the same ones.
    #[error("the function `{0}` of the guest takes other arguments than it was given")]
    BadInput(String),
    /// The result is not what the caller expects.
    #[error("the function `{0}` of the guest gave a result of another type than is expected")]
    BadOutput(String),
    /// The arguments or the result are too large, or cannot be serialized.
    #[error("the arguments or the result of `{0}` are larger than {MESSAGE_MAX} bytes")]
    TooLarge(String),
    /// A limit on the guest's messages is reached: [`Limits::calls_in`](crate::Limits::calls_in),
    /// [`Limits::calls_out`](crate::Limits::calls_out), or what the host keeps for it.
    #[error("the guest's limit on messages does not allow the call of `{0}`")]
    LimitReached(String),
}

/// What is waited for by the caller of one call.
#[derive(Debug)]
enum Pending {
    /// Nothing yet but these parts.
    Waiting {
        parts: Vec<u8>,
        shares: Vec<Share>,
        waker: Option<Waker>,
    },
    /// The end.
    Done(Result<Vec<u8>, ReplyKind>),
    TooLarge,
    LimitReached,
}

#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<Vec<u8>>,
    pending: HashMap<u64, Pending>,
    next_call: u64,
    /// Operations of the guest that wait for a call, first come first served.
    takers: VecDeque<Waker>,
    /// Callers that wait for room.
    callers: Vec<Waker>,
    closed: bool,
    ended: bool,
}

/// The calls to one guest.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
}

impl Mailbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest call if there is one now, `Ready(None)` when no more will come.
    pub(crate) fn try_take(&self) -> Poll<Option<Vec<u8>>> {
        let mut queue = self.queue();
        match queue.calls.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if queue.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Waits for a call; `None` when no more will come.
    pub(crate) fn take(self: &Arc<Self>) -> Take {
        Take {
            mailbox: self.clone(),
            waker: None,
        }
    }

    /// Takes an answer. One for a call that nobody waits for is dropped.
    pub(crate) fn reply(
        &self,
        call: u64,
        kind: ReplyKind,
        bytes: &[u8],
        budget: &Budget,
    ) -> Result<(), Status> {
        let mut queue = self.queue();
        let Some(pending) = queue.pending.get_mut(&call) else {
            return Ok(());
        };
        let Pending::Waiting {
            parts,
            shares,
            waker,
        } = pending
        else {
            return Err(Status::InvalidInput);
        };
        let fits = parts.len() + bytes.len() <= MESSAGE_MAX;
        let share = budget.take(bytes.len()).filter(|_| fits);
        let end = match (share, kind) {
            (None, _) => Pending::TooLarge,
            (Some(share), ReplyKind::Part) => {
                parts.extend_from_slice(bytes);
                shares.push(share);
                return Ok(());
            }
            (Some(_), ReplyKind::Result) => {
                parts.extend_from_slice(bytes);
                Pending::Done(Ok(std::mem::take(parts)))
            }
            (Some(_), other) => Pending::Done(Err(other)),
        };
        let waker = waker.take();
        *pending = end;
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends a call that a limit does not allow.
    pub(crate) fn refuse(&self, call: u64) {
        let mut queue = self.queue();
        let Some(pending) = queue.pending.get_mut(&call) else {
            return;
        };
        let Pending::Waiting { waker, .. } = pending else {
            return;
        };
        let waker = waker.take();
        *pending = Pending::LimitReached;
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// No more calls will come: the guest reads to the end of them.
    pub(crate) fn close(&self) {
        let takers = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.takers)
        };
        takers.into_iter().for_each(Waker::wake);
    }

    /// The guest has ended: whoever waits for an answer learns it.
    pub(crate) fn end(&self) {
        let wakers: Vec<_> = {
            let mut queue = self.queue();
            queue.closed = true;
            queue.ended = true;
            queue.calls.clear();
            let waiting = queue
                .pending
                .values_mut()
                .filter_map(|pending| match pending {
                    Pending::Waiting { waker, .. } => waker.take(),
                    _ => None,
                });
            let mut wakers: Vec<_> = waiting.collect();
            wakers.extend(queue.takers.drain(..));
            wakers.append(&mut queue.callers);
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Enqueues a message and returns who is to be woken for it.
    fn push(
        queue: &mut Queue,
        call: u64,
        kind: CallKind,
        name: &str,
        input: &[u8],
    ) -> Option<Waker> {
        let header = CallHeader {
            call,
            kind,
            name_len: name.len() as u32,
        };
        let message = [&header.to_bytes(), name.as_bytes(), input].concat();
        queue.calls.push_back(message);
        queue.takers.pop_front()
    }
}

/// Waits for a call. Dropping it loses none.
#[derive(Debug)]
pub(crate) struct Take {
    mailbox: Arc<Mailbox>,
    /// What stands in the queue of takers for this one, unless it was woken.
    waker: Option<Waker>,
}

impl Take {
    fn unregister(&mut self, queue: &mut Queue) {
        if let Some(own) = self.waker.take() {
            queue.takers.retain(|waker| !waker.will_wake(&own));
        }
    }
}

impl Future for Take {
    type Output = Option<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mailbox = self.mailbox.clone();
        let mut queue = mailbox.queue();
        self.unregister(&mut queue);
        match queue.calls.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.takers.push_back(context.waker().clone());
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let mailbox = self.mailbox.clone();
        let mut queue = mailbox.queue();
        self.unregister(&mut queue);
        // It may have been woken for a call that it will not take: the next one is.
        let next = if queue.calls.is_empty() {
            None
        } else {
            queue.takers.pop_front()
        };
        drop(queue);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Calls functions of a guest. Clones call the same one.
#[derive(Clone, Debug)]
pub struct Caller {
    mailbox: Arc<Mailbox>,
    seat: Option<Arc<Seat>>,
}

impl Caller {
    /// `seat` is the seat of a driver that the caller may help, in wake mode `poll`.
    pub(crate) fn new(mailbox: Arc<Mailbox>, seat: Option<Arc<Seat>>) -> Self {
        Self { mailbox, seat }
    }

    /// Calls the function that the guest exports by this name, and gives what it returns.
    ///
    /// Calls go on at once, each as a task of the guest; one beyond 4,096 awaits its turn.
    /// Dropping the future takes the call back: the task in the guest is aborted. The guest
    /// must run ([`Sandbox::run`](crate::Sandbox::run), or
    /// [`Sandbox::start`](crate::Sandbox::start)) and take calls (`wakebox_guest::serve`); one
    /// that never does keeps its callers waiting, so put a time-out around a call to a guest
    /// that is not trusted to answer.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call<A, R>(&self, name: &str, input: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let input = postcard::to_stdvec(input).map_err(|_| CallError::TooLarge(name.into()))?;
        let bytes = self.call_bytes(name, &input).await?;
        deserialize(&bytes).map_err(|_| CallError::BadOutput(name.into()))
    }

    /// Calls with arguments that are serialized already, in postcard's format, and gives the
    /// serialized result.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn call_bytes(&self, name: &str, input: &[u8]) -> Result<Vec<u8>, CallError> {
        self.carry(CallKind::Call, name, input).await
    }

    /// Calls with arguments in JSON (an array for several, `null` for none) and gives the result in
    /// JSON, for callers that do not know the types. The guest must be built with the feature
    /// `json` of `wakebox-guest`, which it is by default.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; [`CallError::BadInput`] also if the guest does not take JSON.
    pub async fn call_json(&self, name: &str, input: &str) -> Result<String, CallError> {
        let bytes = self.carry(CallKind::Json, name, input.as_bytes()).await?;
        String::from_utf8(bytes).map_err(|_| CallError::BadOutput(name.into()))
    }

    async fn carry(&self, kind: CallKind, name: &str, input: &[u8]) -> Result<Vec<u8>, CallError> {
        if input.len() > MESSAGE_MAX {
            return Err(CallError::TooLarge(name.into()));
        }
        let call = match &self.seat {
            // This thread looks after the rings itself for a moment: the way to the guest and back
            // then takes no other thread.
            Some(seat) => seat.help(
                HELP,
                || self.try_submit(kind, name, input),
                |call| {
                    call.as_ref()
                        .map_or(true, |call| call.as_ref().is_none_or(PendingCall::is_done))
                },
            )?,
            None => self.try_submit(kind, name, input)?,
        };
        let call = match call {
            Some(call) => call,
            None => self.submit(kind, name, input).await?,
        };
        call.result(name).await
    }

    /// Tells the guest that no more calls will come. Those under way are answered.
    pub fn close(&self) {
        self.mailbox.close();
    }

    /// Enqueues a call if there is room.
    fn try_submit(
        &self,
        kind: CallKind,
        name: &str,
        input: &[u8],
    ) -> Result<Option<PendingCall>, CallError> {
        let mut queue = self.mailbox.queue();
        if queue.closed {
            return Err(CallError::Ended);
        }
        if queue.pending.len() >= CALLS_MAX {
            return Ok(None);
        }
        let call = queue.next_call;
        queue.next_call += 1;
        queue.pending.insert(
            call,
            Pending::Waiting {
                parts: Vec::new(),
                shares: Vec::new(),
                waker: None,
            },
        );
        let taker = Mailbox::push(&mut queue, call, kind, name, input);
        drop(queue);
        if let Some(taker) = taker {
            taker.wake();
        }
        Ok(Some(PendingCall {
            mailbox: self.mailbox.clone(),
            call,
        }))
    }

    /// Enqueues a call when there is room.
    async fn submit(
        &self,
        kind: CallKind,
        name: &str,
        input: &[u8],
    ) -> Result<PendingCall, CallError> {
        poll_fn(|context| {
            // Registered before looking, so that room made in between is not missed.
            self.mailbox.queue().callers.push(context.waker().clone());
            match self.try_submit(kind, name, input) {
                Ok(None) => Poll::Pending,
                Ok(Some(call)) => Poll::Ready(Ok(call)),
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}

/// A call on its way. Dropped before its end, it is taken back.
struct PendingCall {
    mailbox: Arc<Mailbox>,
    call: u64,
}

impl PendingCall {
    fn is_done(&self) -> bool {
        let queue = self.mailbox.queue();
        queue.ended || !matches!(queue.pending.get(&self.call), Some(Pending::Waiting { .. }))
    }

    async fn result(self, name: &str) -> Result<Vec<u8>, CallError> {
        poll_fn(|context| {
            let mut queue = self.mailbox.queue();
            let ended = queue.ended;
            match queue.pending.get_mut(&self.call) {
                Some(Pending::Waiting { .. }) if ended => Poll::Ready(Err(CallError::Ended)),
                Some(Pending::Waiting { waker, .. }) => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
                Some(Pending::Done(Ok(bytes))) => Poll::Ready(Ok(std::mem::take(bytes))),
                Some(Pending::Done(Err(ReplyKind::NoSuchFunction))) => {
                    Poll::Ready(Err(CallError::NoSuchFunction(name.into())))
                }
                Some(Pending::Done(Err(_))) => Poll::Ready(Err(CallError::BadInput(name.into()))),
                Some(Pending::TooLarge) => Poll::Ready(Err(CallError::TooLarge(name.into()))),
                Some(Pending::LimitReached) => {
                    Poll::Ready(Err(CallError::LimitReached(name.into())))
                }
                None => Poll::Ready(Err(CallError::Ended)),
            }
        })
        .await
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let (taker, callers) = {
            let mut queue = self.mailbox.queue();
            let pending = queue.pending.remove(&self.call);
            let taker = match pending {
                Some(Pending::Waiting { .. }) if !queue.closed => {
                    Mailbox::push(&mut queue, self.call, CallKind::Cancel, "", &[])
                }
                _ => None,
            };
            (taker, std::mem::take(&mut queue.callers))
        };
        taker.into_iter().chain(callers).for_each(Waker::wake);
    }
}
