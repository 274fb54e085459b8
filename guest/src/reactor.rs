//! The reactor: carries operations to the host and their ends back.
//!
//! ```text
//!        submit (1)
//!            |
//!            v      a slot and an entry free (2)          completion (3)
//!         QUEUED  ---------------------------------> IN FLIGHT ------------> DONE
//!            |                                           |                     |
//!            | dropped (5)                   dropped (6) | Cancel goes         | polled (4)
//!            v                                           v                     v
//!          gone                                     IN FLIGHT, an orphan    gone
//!                                                        |
//!                                                        | completion (7)
//!                                                        v
//!                                         buffer freed, handle closed, gone
//! ```
//!
//! An operation is a record here from its first poll until its future has the result.
//! While it is in flight it also has a slot, whose number and generation are its
//! token; the slot is free again the moment the completion is read, so a result
//! that nobody takes holds nobody up. Queued records are submitted by the
//! reactor itself, in order, without waking their tasks.
//!
//! Nobody hurries for the end of an operation that no future waits for: its submission says so, and the host
//! may publish the completion with another one ([`Submission::deferrable`]). Who comes to wait for one then,
//! or for its slot or its buffer, has a no-op go after it (`Inner::catch_up`).
//!
//! Two queues lead to the ring. Futures stand in the ordinary one. What the runtime itself
//! needs to go on (console output, the deadline of the nearest timer, closing handles)
//! takes the urgent one, for which [`RESERVED`] slots are kept free: a guest whose every slot
//! waits for input can still sleep and speak.
//!
//! Everything lies in one cell. No waker is called and no future or buffer is dropped
//! while it is borrowed: they come out as [`Event`]s, because they may come back in.

mod record;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::task::Waker;

use slab::Slab;
use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{MappedControl, MappedSlots, Slots};
use wakebox_abi::op::{Cancel, Close, Nop, Opcode, Operation};
use wakebox_abi::ring::{self, CompletionConsumer, Corrupt, SubmissionProducer};
use wakebox_abi::status::Status;
use wakebox_abi::{port, wake};

use crate::buf::IoBuf;
use crate::machine;
use crate::mask::MaskedCell;
use crate::several::DEFERS;
use crate::trace::{self, Reason, What};
use crate::wait_queue::{Key, Links, Queue};

pub(crate) use self::record::{Counts, Event, Orphan, Outcome, Owner, Request};
use self::record::{Record, Slot, Stage};

/// Slots that only the runtime's own operations may take.
pub(crate) const RESERVED: u32 = 8;

/// The entry of a token that names nothing: a Cancel has no completion.
const NO_TOKEN: Token = Token {
    slot: 0,
    generation: 0,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Reactor(MaskedCell<Inner>);

#[derive(Debug)]
struct Inner {
    control: MappedControl,
    submissions: SubmissionProducer<MappedControl, MappedSlots<{ Submission::WORDS }>>,
    completions: CompletionConsumer<MappedControl, MappedSlots<{ Completion::WORDS }>>,
    records: Slab<Record>,
    urgent: Queue,
    ordinary: Queue,
    /// Operations in flight that are to be cancelled when there is room to say so.
    cancels: VecDeque<Token>,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    in_flight: u32,
    /// Those of them that a future waits for.
    awaited: u32,
    max_in_flight: u32,
    max_ordinary: u32,
    /// Writes that are posted and have not ended.
    posted: u32,
    /// Operations in flight whose completions may be deferred, submitted since it was last asked for those.
    deferrable: u32,
    /// How often it was asked for them.
    asked: u64,
    /// Whether somebody has come to wait for one.
    is_wanted: bool,
    counts: Counts,
}

impl Reactor {
    /// A reactor on two empty rings.
    pub(crate) fn new(
        control: MappedControl,
        submissions: MappedSlots<{ Submission::WORDS }>,
        completions: MappedSlots<{ Completion::WORDS }>,
    ) -> Self {
        let max_in_flight = completions.len();
        let reserved = RESERVED.min(max_in_flight / 2);
        Self(MaskedCell::new(Inner {
            control,
            submissions: SubmissionProducer::new(control, submissions, ring::SUBMISSION),
            completions: CompletionConsumer::new(control, completions, ring::COMPLETION),
            records: Slab::new(),
            urgent: Queue::new(),
            ordinary: Queue::new(),
            cancels: VecDeque::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            in_flight: 0,
            awaited: 0,
            max_in_flight,
            max_ordinary: max_in_flight - reserved,
            posted: 0,
            deferrable: 0,
            asked: 0,
            is_wanted: false,
            counts: Counts::default(),
        }))
    }

    /// (1) for a future.
    pub(crate) fn submit(&self, request: Request, waker: &Waker) -> Key {
        let owner = Owner::Future(waker.clone());
        self.0.borrow_mut().submit(request, owner, false)
    }

    /// (1) for the runtime.
    pub(crate) fn submit_urgent(&self, request: Request, owner: Owner) -> Key {
        self.0.borrow_mut().submit(request, owner, true)
    }

    /// (1) for nobody.
    pub(crate) fn submit_for_nobody(&self, request: Request, buf: IoBuf) {
        let owner = Owner::Nobody(Orphan::of(buf));
        self.0.borrow_mut().submit(request, owner, false);
    }

    /// (1) for a write for which nobody waits yet.
    pub(crate) fn post(&self, request: Request, buf: IoBuf) -> Key {
        let mut inner = self.0.borrow_mut();
        let key = inner.submit(request, Owner::Posted(buf, None), false);
        inner.records[key].is_posted = true;
        inner.posted += 1;
        key
    }

    /// (4) if the operation is done.
    pub(crate) fn take(&self, key: Key) -> Option<Outcome> {
        // The owner is dropped after the borrow.
        let mut inner = self.0.borrow_mut();
        let Stage::Done(outcome) = inner.records[key].stage else {
            return None;
        };
        let _owner = inner.records.remove(key);
        drop(inner);
        Some(outcome)
    }

    /// How many writes are posted and have not ended.
    pub(crate) fn posted(&self) -> u32 {
        self.0.borrow().posted
    }

    /// Somebody waits for what is in flight and what is submitted next, without a future.
    pub(crate) fn want(&self) {
        self.0.borrow_mut().is_wanted = true;
    }

    /// (4) if the operation is done; else its completion will wake `waker`.
    pub(crate) fn poll(&self, key: Key, waker: &Waker) -> Option<Outcome> {
        // The old owner is dropped after the borrow.
        let (_old, outcome) = {
            let mut inner = self.0.borrow_mut();
            let record = &mut inner.records[key];
            if let Stage::Done(outcome) = record.stage {
                (Some(inner.records.remove(key).owner), Some(outcome))
            } else {
                match &mut record.owner {
                    Owner::Future(own) if own.will_wake(waker) => (None, None),
                    Owner::Posted(_, own) => {
                        let old = own.replace(waker.clone());
                        if old.is_none() {
                            inner.is_awaited_now(key);
                        }
                        (old.map(Owner::Future), None)
                    }
                    owner => {
                        let new = Owner::Future(waker.clone());
                        (Some(core::mem::replace(owner, new)), None)
                    }
                }
            }
        };
        outcome
    }

    /// What whoever waits for an operation waits for.
    pub(crate) fn reason(&self, key: Key) -> Reason {
        let record = &self.0.borrow().records[key];
        match record.stage {
            Stage::InFlight(token) => reason(token, record.request.opcode),
            Stage::Queued { .. } | Stage::Done(_) => Reason::Slot,
        }
    }

    /// (5) or (6), or the end of an operation whose result nobody took. With
    /// `cancel`, the host is asked to end it early.
    pub(crate) fn abandon(&self, key: Key, orphan: Orphan, cancel: bool) {
        // Both are dropped after the borrow.
        let (_owner, _residue) = self.0.borrow_mut().abandon(key, orphan, cancel);
    }

    /// Asks the host to end an operation early, if it is in flight.
    pub(crate) fn cancel(&self, key: Key) {
        self.0.borrow_mut().cancel(key);
    }

    /// Reads one completion: (3) or (7).
    #[inline]
    pub(crate) fn next_event(&self) -> Option<Event> {
        let mut inner = self.0.borrow_mut();
        let completion = sound(inner.completions.pop());
        if completion.is_none() {
            inner.completions.release();
        }
        completion.map(|completion| inner.complete(&completion))
    }

    /// (2) for all that there is room for, and shows the host everything. Returns
    /// whether something stays behind for which there will be room as soon as the host has
    /// read its ring, so that this is no time to sleep. `space` says whether somebody waits for that of a buffer.
    pub(crate) fn flush(&self, space: bool) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.advance();
        inner.catch_up(space);
        let stuck = !inner.advance();
        inner.submissions.publish();
        stuck
    }

    /// Whether there is something in the ring that the host will read only if told to.
    pub(crate) fn must_ring(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        sound(inner.submissions.look()) > 0 && wake::guest_must_ring(&inner.control)
    }

    /// Whether there is a completion that was not read: one load.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.0.borrow().completions.has_news()
    }

    /// Free-running count of completions read.
    pub(crate) fn taken(&self) -> u32 {
        self.0.borrow().completions.taken()
    }

    /// Whether a future waits for an operation in flight.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.borrow().awaited > 0
    }

    /// The counters.
    pub(crate) fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// Whether the reactor is at work now, so that its functions would panic.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.is_borrowed()
    }
}

/// Why somebody is woken by a completion.
fn reason(token: Token, opcode: u16) -> Reason {
    if opcode == Opcode::NextCall as u16 {
        Reason::HostCall(token)
    } else {
        Reason::Operation(token)
    }
}

/// What a ring says, if it can be.
fn sound<T>(result: Result<T, Corrupt>) -> T {
    match result {
        Ok(value) => value,
        Err(corrupt) => panic!("the host broke the {corrupt}"),
    }
}

impl Inner {
    fn submit(&mut self, request: Request, owner: Owner, urgent: bool) -> Key {
        let key = self.records.insert(Record {
            request,
            stage: Stage::Queued { urgent },
            owner,
            is_posted: false,
            deferrable_since: None,
            links: Links::LONE,
        });
        let queue = if urgent {
            &mut self.urgent
        } else {
            &mut self.ordinary
        };
        let is_first = queue.is_empty();
        queue.join(&mut self.records, key);
        if is_first {
            self.advance();
        }
        key
    }

    /// Moves cancels and both queues into the ring. Returns `false` if the ring is full.
    fn advance(&mut self) -> bool {
        while let Some(&token) = self.cancels.front() {
            let is_in_flight = self
                .slots
                .get(token.slot as usize)
                .is_some_and(|slot| slot.generation == token.generation && slot.record.is_some());
            if is_in_flight {
                if !self.make_room() {
                    return false;
                }
                sound(
                    self.submissions
                        .push(Cancel { target: token }.submission(NO_TOKEN)),
                );
                self.counts.cancels += 1;
            }
            self.cancels.pop_front();
        }
        loop {
            let (queue, max) = if self.urgent.is_empty() {
                (&mut self.ordinary, self.max_ordinary)
            } else {
                (&mut self.urgent, self.max_in_flight)
            };
            let Some(key) = queue.first() else {
                return true;
            };
            if self.in_flight >= max {
                return true;
            }
            if !self.make_room() {
                return false;
            }
            self.dispatch(key);
        }
    }

    /// Whether there is an entry free in the submission ring. If it is full, shows the host
    /// what is in it, so that a batch may be larger than the ring.
    #[inline]
    fn make_room(&mut self) -> bool {
        if sound(self.submissions.free()) > 0 {
            return true;
        }
        self.submissions.publish();
        if wake::guest_must_ring(&self.control) {
            machine::ring(port::SUBMIT);
        }
        sound(self.submissions.free()) > 0
    }

    /// (2): there is a free slot, and a free entry in the ring.
    fn dispatch(&mut self, key: Key) {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                record: None,
            });
            self.slots.len() as u32 - 1
        });
        let free = &mut self.slots[slot as usize];
        free.record = Some(key as u32);
        let token = Token {
            slot,
            generation: free.generation,
        };
        let stage = core::mem::replace(&mut self.records[key].stage, Stage::InFlight(token));
        match stage {
            Stage::Queued { urgent: true } => self.urgent.leave(&mut self.records, key),
            _ => self.ordinary.leave(&mut self.records, key),
        }
        let record = &mut self.records[key];
        self.awaited += u32::from(record.owner.is_future());
        // Not in a slot that is kept free: it would not be free again until something else ends.
        let deferrable = DEFERS
            && self.in_flight < self.max_ordinary
            && !self.is_wanted
            && record.owner.can_wait();
        if deferrable {
            record.deferrable_since = Some(self.asked);
            self.deferrable += 1;
        }
        let Request { opcode, params } = record.request;
        trace::write(move |by| What::Submitted {
            token,
            opcode,
            bytes: Opcode::from_code(opcode).map_or(0, |opcode| opcode.arena_bytes(&params)),
            by,
        });
        let pushed = sound(self.submissions.push(Submission {
            opcode,
            deferrable,
            token,
            params,
        }));
        debug_assert!(pushed, "the caller has made room");
        self.in_flight += 1;
        self.counts.operations += 1;
    }

    /// (3) or (7).
    #[inline]
    fn complete(&mut self, completion: &Completion) -> Event {
        self.counts.completions += 1;
        let Token { slot, generation } = completion.token;
        let Some(key) = self
            .slots
            .get_mut(slot as usize)
            .filter(|slot| slot.generation == generation)
            .and_then(|slot| {
                let key = slot.record.take()?;
                // A late completion or a late cancel will not find this number again.
                slot.generation = generation.wrapping_add(1);
                Some(key as Key)
            })
        else {
            return Event::Stale;
        };
        self.free_slots.push(slot);
        self.in_flight -= 1;
        let outcome = match completion.status {
            Status::Ok => Ok(completion.value),
            status => Err(status),
        };
        let record = &mut self.records[key];
        self.awaited -= u32::from(record.owner.is_future());
        self.deferrable -= u32::from(record.deferrable_since == Some(self.asked));
        self.posted -= u32::from(record.is_posted);
        let nobody = || Owner::Nobody(Orphan::default());
        if matches!(record.owner, Owner::Future(_)) {
            record.stage = Stage::Done(outcome);
            let Owner::Future(waker) = core::mem::replace(&mut record.owner, nobody()) else {
                unreachable!("it was a future");
            };
            return Event::Wake(waker, reason(completion.token, record.request.opcode));
        }
        let why = Reason::Operation(completion.token);
        if matches!(record.owner, Owner::Posted(..)) {
            record.stage = Stage::Done(outcome);
            record.is_posted = false;
            let Owner::Posted(buf, waker) = core::mem::replace(&mut record.owner, nobody()) else {
                unreachable!("it was posted");
            };
            return Event::Drop(Orphan::of(buf), why, waker);
        }
        match self.records.remove(key).owner {
            Owner::Console(buf) => Event::Console(buf),
            Owner::Deadline => Event::Deadline(key, outcome),
            Owner::Nobody(orphan) => {
                self.close_value(outcome, &orphan);
                Event::Drop(orphan, why, None)
            }
            Owner::Waiters => Event::Stale,
            Owner::Future(_) | Owner::Posted(..) => unreachable!("handled above"),
        }
    }

    /// Closes the handle that an operation gave and nobody took.
    fn close_value(&mut self, outcome: Outcome, orphan: &Orphan) {
        if let Some(handle) = orphan.handle(outcome) {
            let close = Close { handle };
            self.submit(close.into(), Owner::Nobody(Orphan::default()), true);
        }
    }

    /// Returns what the caller drops.
    fn abandon(&mut self, key: Key, mut orphan: Orphan, cancel: bool) -> (Owner, Option<Orphan>) {
        match self.records[key].stage {
            Stage::InFlight(_) => {
                if cancel {
                    self.cancel(key);
                }
                let own = &mut self.records[key].owner;
                self.awaited -= u32::from(own.is_future());
                let nobody = || Owner::Nobody(Orphan::default());
                let mut owner = core::mem::replace(own, nobody());
                if let Owner::Posted(buf, waker) = owner {
                    // The host has it until the end.
                    orphan.buf = Some(buf);
                    owner = waker.map_or_else(nobody, Owner::Future);
                }
                *own = Owner::Nobody(orphan);
                (owner, None)
            }
            Stage::Queued { urgent } => {
                let queue = if urgent {
                    &mut self.urgent
                } else {
                    &mut self.ordinary
                };
                queue.leave(&mut self.records, key);
                let record = self.records.remove(key);
                self.posted -= u32::from(record.is_posted);
                (record.owner, Some(orphan))
            }
            Stage::Done(outcome) => {
                self.close_value(outcome, &orphan);
                (self.records.remove(key).owner, Some(orphan))
            }
        }
    }

    /// Has the host publish what it has deferred, if somebody waits for that.
    fn catch_up(&mut self, space: bool) {
        let stands_in_line = !self.urgent.is_empty() || !self.ordinary.is_empty();
        if self.deferrable > 0 && (space || self.is_wanted || stands_in_line) {
            self.deferrable = 0;
            self.asked += 1;
            self.submit(Nop {}.into(), Owner::Waiters, true);
        }
        self.is_wanted = false;
    }

    /// A future has begun to wait for an operation.
    fn is_awaited_now(&mut self, key: Key) {
        let record = &self.records[key];
        self.awaited += u32::from(matches!(record.stage, Stage::InFlight(_)));
        self.is_wanted = true;
    }

    fn cancel(&mut self, key: Key) {
        if let Stage::InFlight(token) = self.records[key].stage {
            trace::write(move |by| What::CancelAsked { token, by });
            self.cancels.push_back(token);
        }
    }
}
