//! Functions of a guest that the embedding program calls.
//!
//! A call is put into a queue; the guest takes calls out with an operation and answers with
//! another. Each becomes a task there, so hundreds go on at once, and a guest may call the
//! host back while it works on one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallHeader, CallKind, ReplyKind};
use wakebox_abi::status::Status;
use wakebox_typed::{Typed, signature};

use super::help::{Errand, Help};
use super::{MESSAGE_MAX, Message, read};
use crate::account::{Account, Charge, Kept, Parts};
use crate::allowance::PIECE;
use crate::later::let_go;
use crate::outcome::Outcome;
use crate::outside;
use crate::text::Quoted;

/// Most calls that wait or are being worked on; a further one awaits its turn.
const CALLS_MAX: usize = 4096;

/// Bytes of a guest's words that are looked at for an error, of which it has fewer.
const WORDS_MAX: usize = 1024;

/// For how long a caller looks after the rings itself before it awaits (wake mode `poll`).
const HELP: Duration = Duration::from_micros(50);

/// Why a call to a guest gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The guest takes no more calls; and why.
    #[error("the guest takes no more calls: {0}")]
    Ended(GuestEnd),
    /// [`Sandbox::start`](crate::Sandbox::start) was called outside a Tokio runtime.
    #[error(
        "the guest does not run: no Tokio runtime was there when it was started. Call \
         `Sandbox::start` inside one that has I/O and time enabled"
    )]
    NoRuntime,
    /// The guest has no function of this name.
    #[error("the guest exports no function `{0}`")]
    NoSuchFunction(String),
    /// The arguments are not what the function takes.
    #[error("the function `{}` of the guest takes other arguments than it was given{}", .0.function, .0)]
    BadInput(Box<Mismatch>),
    /// The result is not what the caller expects.
    #[error("the function `{}` of the guest gave a result of another type than is expected{}", .0.function, .0)]
    BadOutput(Box<Mismatch>),
    /// The arguments or the result are too large, or cannot be serialized.
    #[error("the arguments or the result of `{0}` are larger than {MESSAGE_MAX} bytes")]
    TooLarge(String),
    /// A limit on the guest's messages is reached: [`Limits::calls_in`](crate::Limits::calls_in),
    /// [`Limits::calls_out`](crate::Limits::calls_out), or what the host keeps for it,
    /// [`Limits::host_memory`](crate::Limits::host_memory).
    #[error(
        "a limit of the guest (calls-in, calls-out or host-memory) does not allow the call of `{0}`"
    )]
    LimitReached(String),
}

/// What both sides say that the types of a function are: see
/// [`Caller::call`] for what is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The name of the function.
    pub function: String,
    /// What the caller has called, as in `u32 -> Option<Page>`: the arguments, a tuple if they are
    /// several, and the result. `None` if the call was one without types.
    pub caller: Option<String>,
    /// What the guest has, in its own words: escaped, and cut off if they are long. `None` if it
    /// does not say.
    pub guest: Option<String>,
}

impl Mismatch {
    fn new(function: &str) -> Self {
        Self {
            function: function.into(),
            caller: None,
            guest: None,
        }
    }
}

/// What a guest says in an error: no more of it is looked at than is quoted.
fn words(bytes: &[u8]) -> String {
    let bytes = bytes.get(..WORDS_MAX).unwrap_or(bytes);
    Quoted(String::from_utf8_lossy(bytes)).to_string()
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(guest) = &self.guest {
            write!(f, "; in the guest it is `{guest}`")?;
        }
        match &self.caller {
            Some(caller) => write!(f, "; it was called as `{caller}`"),
            None => Ok(()),
        }
    }
}

/// Why a guest takes no more calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestEnd {
    /// It was told that no more will come: [`Caller::close`], [`Running::close`](crate::Running::close).
    #[error("it was closed")]
    Closed,
    /// It has ended so: with a panic, at a limit, by itself. A panic or a fault is without its
    /// backtrace, which [`Sandbox::run`](crate::Sandbox::run) returns.
    #[error("{0}")]
    Outcome(Arc<Outcome>),
    /// The host could not go on: the text of what [`Sandbox::run`](crate::Sandbox::run) returns.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Its sandbox, or the future of its run, was dropped.
    #[error("its sandbox was dropped")]
    Dropped,
}

impl GuestEnd {
    /// How a run ended.
    pub(crate) fn of(result: &crate::Result<Outcome>) -> Self {
        match result {
            Ok(outcome) => Self::Outcome(Arc::new(outcome.clone())),
            Err(error) => Self::Failed(error.to_string().into()),
        }
    }
}

/// What is waited for by the caller of one call.
#[derive(Debug)]
enum Pending {
    /// Nothing yet but these parts of the result.
    Waiting {
        parts: Parts,
        waker: Option<Waker>,
    },
    /// The end: what kind of reply it was, and what came with it.
    Done(ReplyKind, Parts),
    TooLarge,
    LimitReached,
}

/// A serialized result.
#[derive(Debug)]
struct Answer {
    bytes: Kept,
    /// Whether a record of its types is at its end.
    is_typed: bool,
}

/// A call that has a caller.
#[derive(Debug)]
struct Entry {
    pending: Pending,
    /// For the entry; and for the cancellation that may come of it, which thus never finds the
    /// account full.
    charge: Charge,
}

impl Entry {
    /// Ends it, unless it has ended. Returns who waits for that.
    fn end(&mut self, how: Pending) -> Option<Waker> {
        let Pending::Waiting { waker, .. } = &mut self.pending else {
            return None;
        };
        let waker = waker.take();
        self.pending = how;
        waker
    }
}

#[derive(Debug)]
struct State {
    /// Messages of calls that the guest has yet to take, by the number of the call.
    calls: BTreeMap<u64, Kept>,
    /// Calls that the guest has taken and that nobody waits for any more, which it has yet to be
    /// told. They go before calls, so that there are never more of them than there were calls at
    /// once.
    cancels: VecDeque<(u64, Charge)>,
    pending: HashMap<u64, Entry>,
    next_call: u64,
    /// Operations of the guest that wait for a call.
    takers: Waiting,
    /// Callers that wait for room.
    callers: Waiting,
    closed: bool,
    ended: Option<GuestEnd>,
    account: Account,
}

impl State {
    /// The next message for the guest.
    fn pop(&mut self) -> Option<Kept> {
        if let Some((call, charge)) = self.cancels.pop_front() {
            let message = header(call, CallKind::Cancel, "").to_vec();
            return Some(charge.on(message));
        }
        self.calls.pop_first().map(|(_, message)| message)
    }

    /// Why no call is taken.
    fn why(&self) -> GuestEnd {
        self.ended.clone().unwrap_or(GuestEnd::Closed)
    }

    /// Whether there is room for a call.
    fn has_room(&self) -> Result<bool, CallError> {
        if self.closed {
            return Err(CallError::Ended(self.why()));
        }
        Ok(self.pending.len() < CALLS_MAX)
    }

    /// Enqueues a call, if there is room. The message is complete but for the number in its header.
    fn push(
        &mut self,
        kind: CallKind,
        name: &str,
        mut message: Kept,
    ) -> Result<Option<u64>, CallError> {
        if !self.has_room()? {
            return Ok(None);
        }
        let call = self.next_call;
        let header = header(call, kind, name);
        message.as_mut()[..header.len()].copy_from_slice(&header);
        let Ok(charge) = self.account.charge(size_of::<Entry>()) else {
            return Err(CallError::LimitReached(name.into()));
        };
        self.next_call += 1;
        let pending = Pending::Waiting {
            parts: Parts::default(),
            waker: None,
        };
        self.pending.insert(call, Entry { pending, charge });
        self.calls.insert(call, message);
        Ok(Some(call))
    }
}

fn header(call: u64, kind: CallKind, name: &str) -> [u8; CallHeader::SIZE] {
    let name_len = name.len() as u32;
    CallHeader {
        call,
        kind,
        name_len,
    }
    .to_bytes()
}

/// The calls to one guest.
#[derive(Debug)]
pub(crate) struct CallQueue {
    state: Mutex<State>,
}

impl CallQueue {
    /// An empty one whose next call has this number. What lies in it is charged to the account.
    pub(crate) fn starting_at(next_call: u64, account: Account) -> Self {
        Self {
            state: Mutex::new(State {
                calls: BTreeMap::new(),
                cancels: VecDeque::new(),
                pending: HashMap::new(),
                next_call,
                takers: Waiting::default(),
                callers: Waiting::default(),
                closed: false,
                ended: None,
                account,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next call, and how many are not answered.
    pub(crate) fn stand(&self) -> (u64, usize) {
        let state = self.lock();
        (state.next_call, state.pending.len())
    }

    /// Waits for a call; `None` when no more will come.
    pub(crate) fn take(self: &Arc<Self>) -> Take {
        Take {
            call_queue: self.clone(),
            ticket: None,
        }
    }

    /// Whether somebody waits for this answer of `len` bytes, so that it is worth being copied. One
    /// that is too large ends its call.
    ///
    /// # Errors
    ///
    /// The call has been answered.
    pub(crate) fn expects(&self, call: u64, len: usize) -> Result<bool, Status> {
        let mut queue = self.lock();
        let Some(entry) = queue.pending.get_mut(&call) else {
            return Ok(false);
        };
        let Pending::Waiting { parts, .. } = &entry.pending else {
            return Err(Status::InvalidInput);
        };
        if len.saturating_add(parts.len()) <= MESSAGE_MAX {
            return Ok(true);
        }
        let waker = entry.end(Pending::TooLarge);
        drop(queue);
        waker.into_iter().for_each(outside::wake);
        Ok(false)
    }

    /// Takes an answer. One for a call that nobody waits for is dropped.
    pub(crate) fn reply(&self, call: u64, kind: ReplyKind, bytes: Kept) -> Result<(), Status> {
        let mut queue = self.lock();
        let Some(entry) = queue.pending.get_mut(&call) else {
            return Ok(());
        };
        let Pending::Waiting { parts, .. } = &mut entry.pending else {
            return Err(Status::InvalidInput);
        };
        let added = if parts.len() + bytes.len() > MESSAGE_MAX {
            Err(Pending::TooLarge)
        } else if bytes.is_empty() && (kind == ReplyKind::Part || parts.len() > 0) {
            Ok(())
        } else {
            parts.add(bytes).map_err(|_| Pending::LimitReached)
        };
        if matches!((&added, kind), (Ok(()), ReplyKind::Part)) {
            return Ok(());
        }
        let parts = std::mem::take(parts);
        let (end, gone) = match added {
            Ok(()) => (Pending::Done(kind, parts), None),
            Err(end) => (end, Some(parts)),
        };
        let waker = entry.end(end);
        drop(queue);
        if let Some(gone) = gone.filter(|parts| parts.len() > PIECE) {
            let_go(gone);
        }
        waker.into_iter().for_each(outside::wake);
        Ok(())
    }

    /// Ends a call that a limit does not allow.
    pub(crate) fn refuse(&self, call: u64) {
        let mut queue = self.lock();
        let entry = queue.pending.get_mut(&call);
        let waker = entry.and_then(|entry| entry.end(Pending::LimitReached));
        drop(queue);
        waker.into_iter().for_each(outside::wake);
    }

    /// No more calls will come: the guest reads to the end of them.
    pub(crate) fn close(&self) {
        let wakers = {
            let mut queue = self.lock();
            queue.closed = true;
            [queue.takers.drain(), queue.callers.drain()]
        };
        wakers.into_iter().flatten().for_each(outside::wake);
    }

    /// The guest has ended: whoever waits for an answer learns it, and why. What was said first counts.
    pub(crate) fn end(&self, why: GuestEnd) {
        let (wakers, gone) = {
            let mut queue = self.lock();
            queue.closed = true;
            queue.ended.get_or_insert(why);
            let gone = (
                std::mem::take(&mut queue.calls),
                std::mem::take(&mut queue.cancels),
            );
            let waiting = queue.pending.values_mut();
            let waiting = waiting.filter_map(|entry| match &mut entry.pending {
                Pending::Waiting { waker, .. } => waker.take(),
                _ => None,
            });
            let mut wakers: Vec<_> = waiting.collect();
            wakers.extend(queue.takers.drain());
            wakers.extend(queue.callers.drain());
            (wakers, gone)
        };
        if !gone.0.is_empty() {
            let_go(gone);
        }
        wakers.into_iter().for_each(outside::wake);
    }
}

/// Futures that wait for something of a [`CallQueue`], first come first served. Each has one ticket at
/// most, however often it is polled, and gives it up when it is dropped.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiting {
    /// Keeps a future's ticket, or gives it one.
    fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        if let Some(own) = ticket.and_then(|ticket| self.wakers.get_mut(&ticket)) {
            own.clone_from(waker);
            return;
        }
        self.wakers.insert(self.next, waker.clone());
        *ticket = Some(self.next);
        self.next += 1;
    }

    /// Gives up a ticket. Returns whether its future was woken, and so may have been the one to whom
    /// something was given.
    fn leave(&mut self, ticket: &mut Option<u64>) -> bool {
        ticket
            .take()
            .is_some_and(|ticket| self.wakers.remove(&ticket).is_none())
    }

    /// Whose turn it is.
    fn pop(&mut self) -> Option<Waker> {
        self.wakers.pop_first().map(|(_, waker)| waker)
    }

    fn drain(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.wakers).into_values()
    }
}

/// What a watchdog wants to know. It does not wait for the queue.
impl std::fmt::Display for CallQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ok(queue) = self.state.try_lock() else {
            return f.write_str("in use");
        };
        write!(
            f,
            "{} queued, {} under way, {} takers, {} callers wait, closed {}, ended {}",
            queue.calls.len(),
            queue.pending.len(),
            queue.takers.wakers.len(),
            queue.callers.wakers.len(),
            queue.closed,
            queue.ended.is_some(),
        )
    }
}

/// Waits for a call. Dropping it loses none.
#[derive(Debug)]
pub(crate) struct Take {
    call_queue: Arc<CallQueue>,
    ticket: Option<u64>,
}

impl Future for Take {
    type Output = Option<Kept>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let call_queue = self.call_queue.clone();
        let mut queue = call_queue.lock();
        match queue.pop() {
            Some(message) => {
                queue.takers.leave(&mut self.ticket);
                Poll::Ready(Some(message))
            }
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.takers.wait(&mut self.ticket, context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.call_queue.lock();
            let was_woken = queue.takers.leave(&mut self.ticket);
            // It was woken for a call that it will not take: the next one is.
            let any = !queue.calls.is_empty() || !queue.cancels.is_empty();
            if was_woken && any {
                queue.takers.pop()
            } else {
                None
            }
        };
        next.into_iter().for_each(outside::wake);
    }
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
        let answer = match self.carry(CallKind::Typed, name, &input).await {
            Err(CallError::BadInput(mut mismatch)) => {
                mismatch.caller = caller();
                return Err(CallError::BadInput(mismatch));
            }
            other => other?,
        };
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
        mismatch.caller = caller();
        if is_typed {
            // So it knows the question, too.
            let asked = self.carry(CallKind::Signature, name, &[]);
            mismatch.guest = asked.await.ok().map(|answer| words(&answer.bytes));
        }
        Err(CallError::BadOutput(Box::new(mismatch)))
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

    async fn carry(&self, kind: CallKind, name: &str, input: &[u8]) -> Result<Answer, CallError> {
        if input.len() > MESSAGE_MAX {
            return Err(CallError::TooLarge(name.into()));
        }
        let call = match self.helper.as_ref().and_then(Weak::upgrade) {
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
        self.call_queue.close();
    }

    /// Enqueues a call if there is room.
    fn try_submit(
        &self,
        kind: CallKind,
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
        let Some(call) = queue.push(kind, name, message)? else {
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
            match self.try_submit(kind, name, input) {
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
        self.submitted = self.caller.try_submit(kind, name, input);
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
        let (kind, parts) = self.parts(name).await?;
        if kind == ReplyKind::NoSuchFunction {
            return Err(CallError::NoSuchFunction(name.into()));
        }
        let account = self.call_queue.lock().account.clone();
        // By whoever has called, and without the lock.
        let joined = parts.join(&account);
        let bytes = joined.map_err(|_| CallError::LimitReached(name.into()))?;
        let is_typed = kind == ReplyKind::Typed;
        if is_typed || kind == ReplyKind::Result {
            return Ok(Answer { bytes, is_typed });
        }
        let mut mismatch = Mismatch::new(name);
        mismatch.guest = (!bytes.is_empty()).then(|| words(&bytes));
        Err(CallError::BadInput(Box::new(mismatch)))
    }

    async fn parts(&self, name: &str) -> Result<(ReplyKind, Parts), CallError> {
        poll_fn(|context| {
            let mut queue = self.call_queue.lock();
            let ended = queue.ended.clone();
            let Some(entry) = queue.pending.get_mut(&self.call) else {
                return Poll::Ready(Err(CallError::Ended(queue.why())));
            };
            if let Pending::Waiting { waker, .. } = &mut entry.pending {
                if let Some(why) = ended {
                    return Poll::Ready(Err(CallError::Ended(why)));
                }
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let owned = || name.into();
            // What is left in its place is not looked at again.
            Poll::Ready(
                match std::mem::replace(&mut entry.pending, Pending::LimitReached) {
                    Pending::Done(kind, parts) => Ok((kind, parts)),
                    Pending::TooLarge => Err(CallError::TooLarge(owned())),
                    Pending::LimitReached | Pending::Waiting { .. } => {
                        Err(CallError::LimitReached(owned()))
                    }
                },
            )
        })
        .await
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let (unseen, pending, taker, caller) = {
            let mut queue = self.call_queue.lock();
            let unseen = queue.calls.remove(&self.call);
            let entry = queue.pending.remove(&self.call);
            let caller = queue.callers.pop();
            match entry.map(|entry| (entry.pending, entry.charge)) {
                Some((pending @ Pending::Waiting { .. }, charge))
                    if unseen.is_none() && queue.ended.is_none() =>
                {
                    queue.cancels.push_back((self.call, charge));
                    (None, Some(pending), queue.takers.pop(), caller)
                }
                ended => (unseen, ended.map(|(pending, _)| pending), None, caller),
            }
        };
        taker.into_iter().chain(caller).for_each(outside::wake);
        // Without the lock, as it may take a moment.
        drop((unseen, pending));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::EACH;
    use futures_util::FutureExt;

    fn call_queue(most: u64) -> (Caller, Account) {
        let account = Account::new(most);
        let call_queue = Arc::new(CallQueue::starting_at(0, account.clone()));
        (Caller::new(call_queue, None), account)
    }

    /// The number and the kind of the next message, if there is one.
    fn taken(caller: &Caller) -> Option<(u64, CallKind)> {
        let message = caller.call_queue.take().now_or_never()??;
        let (header, _) = CallHeader::split(&message).unwrap();
        Some((header.call, header.kind))
    }

    fn answer(caller: &Caller, call: u64, kind: ReplyKind, bytes: &[u8]) -> Result<(), Status> {
        let bytes = caller.call_queue.lock().account.concat(&[bytes])?;
        caller.call_queue.reply(call, kind, bytes)
    }

    #[test]
    fn a_call_that_is_given_up_before_it_is_taken_leaves_nothing() {
        let (caller, account) = call_queue(1 << 20);
        let input = [0; 1_000];
        // Many times as much as may be kept.
        for _ in 0..5_000 {
            let mut call = Box::pin(caller.call_bytes("f", &input));
            assert!((&mut call).now_or_never().is_none());
        }
        assert_eq!(taken(&caller), None);
        assert_eq!(account.kept(), 0);
        assert!(account.peak() < 2_000);
    }

    #[test]
    fn the_guest_is_told_of_a_call_that_is_given_up_after_it_was_taken() {
        let (caller, account) = call_queue(1 << 20);
        let (mut one, mut two) = (
            Box::pin(caller.call_bytes("f", b"one")),
            Box::pin(caller.call_bytes("f", b"two")),
        );
        assert!((&mut one).now_or_never().is_none());
        assert_eq!(taken(&caller), Some((0, CallKind::Call)));
        assert!((&mut two).now_or_never().is_none());
        drop(one);
        assert_eq!(taken(&caller), Some((0, CallKind::Cancel)));
        assert_eq!(taken(&caller), Some((1, CallKind::Call)));
        drop(two);
        assert_eq!(taken(&caller), Some((1, CallKind::Cancel)));
        assert_eq!((taken(&caller), account.kept()), (None, 0));
    }

    #[test]
    fn calls_that_wait_are_charged_and_one_too_many_is_refused() {
        let (caller, account) = call_queue(10_000);
        let input = [0; 1_000];
        let mut calls: Vec<_> = (0..10)
            .map(|_| Box::pin(caller.call_bytes("f", &input)))
            .collect();
        let ends: Vec<_> = calls.iter_mut().map(FutureExt::now_or_never).collect();
        let refused = Some(Err(CallError::LimitReached("f".into())));
        let waiting = ends.iter().take_while(|end| end.is_none()).count();
        assert!((5..9).contains(&waiting), "{waiting}");
        assert!(ends[waiting..].iter().all(|end| *end == refused));
        assert!(account.kept() >= 1_000 * waiting as u64);
        drop(calls);
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn empty_parts_of_a_result_cost_nothing_and_the_others_what_they_hold() {
        let (caller, account) = call_queue(1 << 20);
        let mut call = Box::pin(caller.call_bytes("f", b""));
        assert!((&mut call).now_or_never().is_none());
        assert_eq!(taken(&caller), Some((0, CallKind::Call)));
        let before = account.kept();
        for _ in 0..100_000 {
            answer(&caller, 0, ReplyKind::Part, b"").unwrap();
        }
        assert_eq!(account.kept(), before);
        for _ in 0..1_000 {
            answer(&caller, 0, ReplyKind::Part, b"a").unwrap();
        }
        assert!(account.kept() - before <= (2_000 + EACH) as u64);
        answer(&caller, 0, ReplyKind::Result, b"b").unwrap();
        let result = call.now_or_never().unwrap().unwrap();
        assert_eq!((result.len(), result.last()), (1_001, Some(&b'b')));
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn a_result_in_parts_that_is_too_large_for_the_account_ends_its_call() {
        let (caller, account) = call_queue(10_000);
        let mut call = Box::pin(caller.call_bytes("f", b""));
        assert!((&mut call).now_or_never().is_none());
        assert_eq!(taken(&caller), Some((0, CallKind::Call)));
        let mut parts = 0;
        while answer(&caller, 0, ReplyKind::Part, &[0; 1_000]).is_ok() {
            parts += 1;
        }
        assert!((3..10).contains(&parts), "{parts}");
        let refused = Err(CallError::LimitReached("f".into()));
        assert_eq!(call.now_or_never(), Some(refused));
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn an_answer_is_asked_about_before_it_is_copied() {
        let (caller, _) = call_queue(1 << 20);
        let call_queue = &caller.call_queue;
        assert_eq!(call_queue.expects(0, 1), Ok(false), "nobody has called");
        let mut call = Box::pin(caller.call_bytes("f", b""));
        assert!((&mut call).now_or_never().is_none());
        assert_eq!(call_queue.expects(0, MESSAGE_MAX), Ok(true));
        assert_eq!(call_queue.expects(0, MESSAGE_MAX + 1), Ok(false));
        let refused = Err(CallError::TooLarge("f".into()));
        assert_eq!(call.now_or_never(), Some(refused));
        assert_eq!(call_queue.expects(0, 1), Ok(false), "the caller has gone");
    }

    #[test]
    fn who_waits_has_one_ticket_however_often_it_is_polled() {
        let (caller, _) = call_queue(1 << 30);
        let mut calls: Vec<_> = (0..CALLS_MAX)
            .map(|_| Box::pin(caller.call_bytes("f", b"")))
            .collect();
        assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
        let mut more: Vec<_> = (0..3)
            .map(|_| Box::pin(caller.call_bytes("f", b"")))
            .collect();
        let mut takes: Vec<_> = (0..3).map(|_| caller.call_queue.take()).collect();
        for _ in 0..100 {
            assert!(more.iter_mut().all(|call| call.now_or_never().is_none()));
        }
        assert_eq!(caller.call_queue.lock().callers.wakers.len(), 3);
        // Room goes to them in their order.
        drop(calls.pop());
        assert_eq!(caller.call_queue.lock().callers.wakers.len(), 2);
        assert!((&mut more[0]).now_or_never().is_none());
        assert_eq!(caller.call_queue.lock().pending.len(), CALLS_MAX);
        drop((more, calls));
        assert_eq!(caller.call_queue.lock().callers.wakers.len(), 0);
        for _ in 0..100 {
            assert!(takes.iter_mut().all(|take| take.now_or_never().is_none()));
        }
        assert_eq!(caller.call_queue.lock().takers.wakers.len(), 3);
        drop(takes);
        assert_eq!(caller.call_queue.lock().takers.wakers.len(), 0);
    }
}
