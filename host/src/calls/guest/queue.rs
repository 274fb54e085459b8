//! The queue of the calls to one guest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use wakebox_abi::op::{CallHeader, CallKind, ReplyKind};
use wakebox_abi::status::Status;

use super::error::{CallError, GuestEnd};
use super::items::Items;
use crate::account::{Account, Charge, Kept, Parts};
use crate::allowance::PIECE;
use crate::calls::MESSAGE_MAX;
use crate::later::let_go;
use crate::outside;

/// Most calls that wait or are being worked on; a further one awaits its turn.
pub(super) const CALLS_MAX: usize = 4096;

/// What is waited for by the caller of one call.
#[derive(Debug)]
pub(super) enum Pending {
    /// Nothing yet but these parts of the result.
    Waiting {
        parts: Parts,
        waker: Option<Waker>,
    },
    /// The end: what kind of reply it was, and what came with it.
    Done(ReplyKind, Parts),
    /// Items have come, of a function that was to give one result.
    Many,
    TooLarge,
    LimitReached,
}

/// What a caller takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wants {
    Result,
    Stream,
}

/// A call that has a caller.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pending: Pending,
    /// What has come of a stream, if its caller takes one.
    pub(super) items: Option<Box<Items>>,
    /// For the entry; and for the cancellation that may come of it, which thus never finds the
    /// account full.
    pub(super) charge: Charge,
}

impl Entry {
    /// Ends it, unless it has ended. Returns who waits for that.
    pub(super) fn end(&mut self, how: Pending) -> Option<Waker> {
        let Pending::Waiting { waker, .. } = &mut self.pending else {
            return None;
        };
        let waker = waker.take();
        self.pending = how;
        waker
    }

    /// What came of the last of its parts is an item. Returns who waits for it.
    ///
    /// # Errors
    ///
    /// Nobody takes items of this call, which ends it; or it has ended.
    fn item(&mut self, item: Parts) -> (Result<(), Status>, Option<Waker>) {
        let Pending::Waiting { waker, .. } = &mut self.pending else {
            return (Err(Status::InvalidInput), None);
        };
        let Some(items) = &mut self.items else {
            return (Err(Status::InvalidInput), self.end(Pending::Many));
        };
        items.push(item);
        (Ok(()), waker.take())
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// Messages of calls that the guest has yet to take, by the number of the call.
    pub(super) calls: BTreeMap<u64, Kept>,
    /// Calls that the guest has taken and that nobody waits for any more, which it has yet to be
    /// told. They go before calls, so that there are never more of them than there were calls at
    /// once.
    pub(super) cancels: VecDeque<(u64, Charge)>,
    pub(super) pending: HashMap<u64, Entry>,
    pub(super) next_call: u64,
    /// Operations of the guest that wait for a call.
    pub(super) takers: Waiting,
    /// Callers that wait for room.
    pub(super) callers: Waiting,
    pub(super) closed: bool,
    pub(super) ended: Option<GuestEnd>,
    pub(super) account: Account,
}

impl State {
    /// The next message for the guest.
    pub(super) fn pop(&mut self) -> Option<Kept> {
        if let Some((call, charge)) = self.cancels.pop_front() {
            let message = header(call, CallKind::Cancel, "").to_vec();
            return Some(charge.on(message));
        }
        self.calls.pop_first().map(|(_, message)| message)
    }

    /// Why no call is taken.
    pub(super) fn why(&self) -> GuestEnd {
        self.ended.clone().unwrap_or(GuestEnd::Closed)
    }

    /// Whether there is room for a call.
    pub(super) fn has_room(&self) -> Result<bool, CallError> {
        if self.closed {
            return Err(CallError::Ended(self.why()));
        }
        Ok(self.pending.len() < CALLS_MAX)
    }

    /// Enqueues a call, if there is room. The message is complete but for the number in its header.
    pub(super) fn push(
        &mut self,
        kind: CallKind,
        wants: Wants,
        name: &str,
        mut message: Kept,
    ) -> Result<Option<u64>, CallError> {
        if !self.has_room()? {
            return Ok(None);
        }
        let call = self.next_call;
        let header = header(call, kind, name);
        message.as_mut()[..header.len()].copy_from_slice(&header);
        let items = match wants {
            Wants::Result => None,
            Wants::Stream => Some(Box::<Items>::default()),
        };
        let size = size_of::<Entry>() + items.as_ref().map_or(0, |_| Items::SIZE);
        let Ok(charge) = self.account.charge(size) else {
            return Err(CallError::LimitReached(name.into()));
        };
        self.next_call += 1;
        let pending = Pending::Waiting {
            parts: Parts::default(),
            waker: None,
        };
        let entry = Entry {
            pending,
            items,
            charge,
        };
        self.pending.insert(call, entry);
        self.calls.insert(call, message);
        Ok(Some(call))
    }
}

pub(super) fn header(call: u64, kind: CallKind, name: &str) -> [u8; CallHeader::SIZE] {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next call, and how many are not answered.
    pub(crate) fn stand(&self) -> (u64, usize) {
        let state = self.lock();
        let entries = state.pending.values();
        // One that is answered stays until its caller has come for it.
        let waiting = entries.filter(|entry| matches!(entry.pending, Pending::Waiting { .. }));
        (state.next_call, waiting.count())
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
        if matches!((&added, kind), (Ok(()), ReplyKind::Item)) {
            let (taken, waker) = entry.item(parts);
            drop(queue);
            waker.into_iter().for_each(outside::wake);
            return taken;
        }
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
pub(super) struct Waiting {
    pub(super) next: u64,
    pub(super) wakers: BTreeMap<u64, Waker>,
}

impl Waiting {
    /// Keeps a future's ticket, or gives it one.
    pub(super) fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
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
    pub(super) fn leave(&mut self, ticket: &mut Option<u64>) -> bool {
        ticket
            .take()
            .is_some_and(|ticket| self.wakers.remove(&ticket).is_none())
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Waker> {
        self.wakers.pop_first().map(|(_, waker)| waker)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waker> + use<> {
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
