//! Functions of a guest that the embedding program calls.
//!
//! A call is put into a queue; the guest takes calls out with an operation and answers with
//! another. Each becomes a task there, so hundreds go on at once, and a guest may call the
//! host back while it works on one.

mod error;
mod items;
mod queue;
mod stream;

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallKind, ReplyKind};
use wakebox_abi::status::Status;
use wakebox_typed::{Typed, signature};

use self::error::words;
pub use self::error::{CallError, GuestEnd, Mismatch};
pub(crate) use self::queue::CallQueue;
use self::queue::{CALLS_MAX, Entry, Pending, State, Wants, header};
pub use self::stream::GuestStream;
use super::help::{Errand, Help};
use super::{MESSAGE_MAX, Message, read};
use crate::account::{Kept, Parts};
use crate::outside;

/// For how long a caller looks after the rings itself before it awaits (wake mode `poll`).
const HELP: Duration = Duration::from_micros(50);

/// Most exported functions that are listed.
const EXPORTS_MAX: usize = 1024;

/// A serialized result.
#[derive(Debug)]
struct Answer {
    bytes: Kept,
    /// Whether a record of its types is at its end.
    is_typed: bool,
}

/// Calls functions of a guest. Clones call the same one.
#[derive(Clone, Debug)]
pub struct Caller {
    call_queue: Arc<CallQueue>,
    /// Weak: a host function that keeps what calls its guest does not keep the sandbox.
    helper: Option<Weak<dyn Help>>,
}

impl Caller {
    /// `helper` takes turns of a driver that the caller may help, in wake mode `poll`.
    pub(crate) fn new(call_queue: Arc<CallQueue>, helper: Option<Weak<dyn Help>>) -> Self {
        Self { call_queue, helper }
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
    /// Postcard, the format, carries no types; so a record of the types of what is written goes with
    /// it and is compared with what is read. It has the kind of each number, text, list, option and
    /// enum. Names, tuples and structs are not in it, so they may differ; nor is what is absent from
    /// the value: in a list that is empty, an option that is `None`, another variant.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call<A, R>(&self, name: &str, input: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let input = postcard::to_stdvec(&Typed(input));
        let input = input.map_err(|_| CallError::TooLarge(name.into()))?;
        let caller = || Some(signature::<A, R>().to_string());
        let answer = self.carry(CallKind::Typed, name, &input).await;
        let answer = answer.map_err(|error| error.called_as(caller))?;
        let account = self.call_queue.lock().account.clone();
        let message = Message {
            bytes: &answer.bytes,
            is_typed: answer.is_typed,
        };
        let status = match read::<R>(message, &account) {
            Ok(result) => return Ok(result.hand_over()),
            Err(status) => status,
        };
        let is_typed = answer.is_typed;
        drop(answer);
        if status == Status::LimitReached {
            return Err(CallError::LimitReached(name.into()));
        }
        let mut mismatch = Mismatch::new(name);
        if is_typed {
            // So it knows the question, too.
            mismatch = self.told(mismatch).await;
        }
        Err(CallError::BadOutput(Box::new(mismatch)).called_as(caller))
    }

    /// Calls with arguments that are serialized already, in postcard's format, and gives the
    /// serialized result.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn call_bytes(&self, name: &str, input: &[u8]) -> Result<Vec<u8>, CallError> {
        let answer = self.carry(CallKind::Call, name, input).await?;
        Ok(answer.bytes.hand_over())
    }

    /// Calls with arguments in JSON (an array for several, `null` for none) and gives the result in
    /// JSON, for callers that do not know the types. The guest must be built with the feature
    /// `json` of `wakebox-guest`, which it is by default.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; [`CallError::BadInput`] also if the guest does not take JSON.
    pub async fn call_json(&self, name: &str, input: &str) -> Result<String, CallError> {
        let answer = self.carry(CallKind::Json, name, input.as_bytes()).await?;
        let text = String::from_utf8(answer.bytes.hand_over());
        text.map_err(|_| CallError::BadOutput(Box::new(Mismatch::new(name))))
    }

    /// The functions that the guest exports, each with its types as in `sum: (u64, u64) -> u64`: at most
    /// 1,024, in the guest's own words, escaped, and cut off if they are long. Waits as a call does.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]. A guest of an older release exports no function of the empty name, and says so.
    pub async fn exports(&self) -> Result<Vec<String>, CallError> {
        let answer = self.carry(CallKind::Signature, "", &[]).await?;
        let bytes: &[u8] = &answer.bytes;
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        Ok(lines.take(EXPORTS_MAX).map(words).collect())
    }

    /// Adds what the guest says of the types of its function.
    async fn told(&self, mut mismatch: Mismatch) -> Mismatch {
        let asked = self.submit(CallKind::Signature, Wants::Result, &mismatch.function, &[]);
        if let Ok(call) = asked.await {
            let answer = call.result(&mismatch.function).await;
            mismatch.guest = answer.ok().map(|answer| words(&answer.bytes));
        }
        mismatch
    }

    async fn carry(&self, kind: CallKind, name: &str, input: &[u8]) -> Result<Answer, CallError> {
        fits(name, input)?;
        // A thread that has a driver already (a subscriber may call there) must not want another.
        let helper = self.helper.as_ref().filter(|_| outside::is_outside());
        let call = match helper.and_then(Weak::upgrade) {
            // This thread looks after the rings itself for a moment: the way to the guest and back
            // then takes no other thread.
            Some(helper) => {
                let mut submission = Submission {
                    caller: self,
                    message: (kind, name, input),
                    submitted: Ok(None),
                };
                helper.help(HELP, &mut submission);
                submission.submitted?
            }
            None => self.try_submit(kind, Wants::Result, name, input)?,
        };
        let call = match call {
            Some(call) => call,
            None => self.submit(kind, Wants::Result, name, input).await?,
        };
        match call.result(name).await {
            Err(CallError::BadOutput(mismatch)) => {
                Err(CallError::BadOutput(Box::new(self.told(*mismatch).await)))
            }
            result => result,
        }
    }

    /// Tells the guest that no more calls will come. Those under way are answered.
    pub fn close(&self) {
        self.call_queue.close();
    }

    /// Enqueues a call if there is room.
    fn try_submit(
        &self,
        kind: CallKind,
        wants: Wants,
        name: &str,
        input: &[u8],
    ) -> Result<Option<PendingCall>, CallError> {
        let account = {
            let queue = self.call_queue.lock();
            if !queue.has_room()? {
                return Ok(None);
            }
            queue.account.clone()
        };
        // Without the lock, for which a driver may wait.
        let message = account
            .concat(&[&header(0, kind, name), name.as_bytes(), input])
            .map_err(|_| CallError::LimitReached(name.into()))?;
        let mut queue = self.call_queue.lock();
        let Some(call) = queue.push(kind, wants, name, message)? else {
            return Ok(None);
        };
        let taker = queue.takers.pop();
        drop(queue);
        taker.into_iter().for_each(outside::wake);
        Ok(Some(PendingCall {
            call_queue: self.call_queue.clone(),
            call,
        }))
    }

    /// Enqueues a call when there is room.
    async fn submit(
        &self,
        kind: CallKind,
        wants: Wants,
        name: &str,
        input: &[u8],
    ) -> Result<PendingCall, CallError> {
        let mut room = Room {
            call_queue: &self.call_queue,
            ticket: None,
        };
        poll_fn(|context| {
            // Registered before looking, so that room made in between is not missed.
            room.wait(context.waker());
            match self.try_submit(kind, wants, name, input) {
                Ok(None) => Poll::Pending,
                Ok(Some(call)) => Poll::Ready(Ok(call)),
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}

/// A call that is submitted by a thread that helps.
struct Submission<'a> {
    caller: &'a Caller,
    message: (CallKind, &'a str, &'a [u8]),
    submitted: Result<Option<PendingCall>, CallError>,
}

impl Errand for Submission<'_> {
    fn begin(&mut self) {
        let (kind, name, input) = self.message;
        self.submitted = self.caller.try_submit(kind, Wants::Result, name, input);
    }

    fn is_done(&self) -> bool {
        match &self.submitted {
            Ok(Some(call)) => call.is_done(),
            Ok(None) | Err(_) => true,
        }
    }
}

/// A caller that waits for room.
struct Room<'a> {
    call_queue: &'a CallQueue,
    ticket: Option<u64>,
}

impl Room<'_> {
    fn wait(&mut self, waker: &Waker) {
        self.call_queue.lock().callers.wait(&mut self.ticket, waker);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.call_queue.lock();
            let was_woken = queue.callers.leave(&mut self.ticket);
            // It may not have taken the room that it was woken for; and if it has, there may be more.
            let any = queue.pending.len() < CALLS_MAX;
            if was_woken && any {
                queue.callers.pop()
            } else {
                None
            }
        };
        next.into_iter().for_each(outside::wake);
    }
}

/// A call on its way. Dropped before its end, it is taken back: out of the queue if the guest has
/// not seen it, else the guest is told.
struct PendingCall {
    call_queue: Arc<CallQueue>,
    call: u64,
}

impl PendingCall {
    fn is_done(&self) -> bool {
        let queue = self.call_queue.lock();
        let pending = queue.pending.get(&self.call).map(|entry| &entry.pending);
        queue.ended.is_some() || !matches!(pending, Some(Pending::Waiting { .. }))
    }

    /// The serialized result.
    async fn result(self, name: &str) -> Result<Answer, CallError> {
        let end = poll_fn(|context| self.poll_end(&mut self.call_queue.lock(), context)).await;
        let (kind, parts) = end.map_err(|end| end.error(name))?;
        if matches!(kind, ReplyKind::Item | ReplyKind::End) {
            return Err(End::Many.error(name));
        }
        self.answer(name, kind, parts)
    }

    /// What a reply says. By whoever has called, and without the lock.
    fn answer(&self, name: &str, kind: ReplyKind, parts: Parts) -> Result<Answer, CallError> {
        if kind == ReplyKind::NoSuchFunction {
            return Err(CallError::NoSuchFunction(name.into()));
        }
        let account = self.call_queue.lock().account.clone();
        let joined = parts.join(&account);
        let bytes = joined.map_err(|_| CallError::LimitReached(name.into()))?;
        if kind == ReplyKind::BadInput {
            let mismatch = Mismatch::new(name).told(&bytes);
            return Err(CallError::BadInput(Box::new(mismatch)));
        }
        // An item is in the form of the call, and who asks for one without types does not ask.
        let is_typed = matches!(kind, ReplyKind::Typed | ReplyKind::Item);
        Ok(Answer { bytes, is_typed })
    }

    /// Waits for the last reply.
    fn poll_end(
        &self,
        queue: &mut State,
        context: &Context<'_>,
    ) -> Poll<Result<(ReplyKind, Parts), End>> {
        let why = queue.ended.clone();
        let Some(entry) = queue.pending.get_mut(&self.call) else {
            return Poll::Ready(Err(End::Guest(queue.why())));
        };
        if let Pending::Waiting { waker, .. } = &mut entry.pending {
            if let Some(why) = why {
                return Poll::Ready(Err(End::Guest(why)));
            }
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        // What is left in its place is not looked at again.
        let end = std::mem::replace(&mut entry.pending, Pending::LimitReached);
        Poll::Ready(match end {
            Pending::Done(kind, parts) => Ok((kind, parts)),
            Pending::Many => Err(End::Many),
            Pending::TooLarge => Err(End::TooLarge),
            Pending::LimitReached | Pending::Waiting { .. } => Err(End::LimitReached),
        })
    }
}

/// How a call ended without a reply.
enum End {
    /// It gave items, of which one result does not consist.
    Many,
    TooLarge,
    LimitReached,
    /// The guest has.
    Guest(GuestEnd),
}

impl End {
    fn error(self, name: &str) -> CallError {
        match self {
            Self::Many => CallError::BadOutput(Box::new(Mismatch::new(name))),
            Self::TooLarge => CallError::TooLarge(name.into()),
            Self::LimitReached => CallError::LimitReached(name.into()),
            Self::Guest(why) => CallError::Ended(why),
        }
    }
}

/// Whether arguments may be so long.
fn fits(name: &str, input: &[u8]) -> Result<(), CallError> {
    match input.len() > MESSAGE_MAX {
        true => Err(CallError::TooLarge(name.into())),
        false => Ok(()),
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let (unseen, gone, taker, caller) = {
            let mut queue = self.call_queue.lock();
            let unseen = queue.calls.remove(&self.call);
            let entry = queue.pending.remove(&self.call);
            let caller = queue.callers.pop();
            let waits = |entry: &Entry| matches!(entry.pending, Pending::Waiting { .. });
            let is_under_way = unseen.is_none() && queue.ended.is_none();
            match entry {
                Some(entry) if is_under_way && waits(&entry) => {
                    let Entry {
                        pending,
                        items,
                        charge,
                    } = entry;
                    queue.cancels.push_back((self.call, charge));
                    (None, Some((pending, items)), queue.takers.pop(), caller)
                }
                entry => {
                    let gone = entry.map(|entry| (entry.pending, entry.items));
                    (unseen, gone, None, caller)
                }
            }
        };
        taker.into_iter().chain(caller).for_each(outside::wake);
        // Without the lock, as it may take a moment.
        let items = gone.and_then(|(_, items)| items);
        let senders = items.map(|items| items.into_senders());
        senders.into_iter().flatten().for_each(outside::wake);
        drop(unseen);
    }
}

#[cfg(test)]
mod tests;
