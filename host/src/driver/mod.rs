//! Takes submissions out of the ring, has them done, puts completions in.
//!
//! The driver does not care who polls it. In modes `out` and `irq` it is the task that runs the
//! guest, between two entries (*inline*). In mode `poll` a thread polls the ring while the guest runs
//! ([`poller`], *exitless*), and in mode `auto` one or the other, whichever pays ([`worth`]). Either calls
//! [`Driver::turn`].
//!
//! # What bounds it
//!
//! Memory: the rule of [`wakebox_abi::queue`]. Work: what a guest has submitted when the driver looks,
//! at most a ring's length, and some rounds over what is ready. One turn does as much of that as its
//! [`Allowance`] lets it, looks between two operations at whether the sandbox is to end, and says how
//! it ended ([`Ended`]).
//!
//! # Who goes on
//!
//! A turn that ends early leaves submissions in the ring and slots in the table's batch. Nobody will
//! be woken for them once more: the doorbell was rung, the wakers have been called. So whoever took
//! the turn sees to the next, and until then neither lets the guest sleep on nor sleeps itself:
//!
//! - the task that runs the guest *inline* takes turns until one is done, before it enters the guest
//!   or decides that this is parked or stuck (`sandbox/serve.rs`), and lets others of its thread have theirs
//!   after a quantum;
//! - the *poller* takes the next one when the other sandboxes on it have had
//!   theirs, before it arms the doorbell;
//! - who takes a turn beside it (the runner after an exit, a caller that helps) notifies it,
//!   or goes on itself as the inline task does.
//!
//! The work of the turns together is bounded as that of one was: [`Queue::begin`] and
//! [`InFlight::begin_turn`] come again only when all of it is done. So they end, also if the guest
//! submits while they last.

pub(crate) mod backend;
mod closing;
mod detached;
pub(crate) mod herd;
pub(crate) mod inflight;
mod member;
pub(crate) mod notify;
mod patience;
pub(crate) mod placement;
pub(crate) mod poller;
pub(crate) mod pollers;
pub(crate) mod ready;
mod rings;
pub(crate) mod worth;

use std::sync::Arc;
use std::task::Context;

use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Slots};
use wakebox_abi::op::{Opcode, Request};
use wakebox_abi::queue::Queue;
use wakebox_abi::status::Status;
use wakebox_vmm::memory::{GuestMemory, Shared};

use self::backend::{Backend, Started};
use self::closing::Remains;
use self::herd::Herd;
use self::inflight::{InFlight, Ready};
pub(crate) use self::rings::Stood;
use crate::allowance::{self, Allowance, Quota};
use crate::observe::Observer;
pub(crate) use crate::outcome::Violation;
use crate::outside::guarded;

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing was left that it knew of.
    Done,
    /// Its allowance is spent. Whoever took it sees to the next.
    Spent,
    /// The sandbox is to end: nothing more is begun.
    Stopped,
}

/// What a turn did.
#[derive(Clone, Copy, Debug)]
#[must_use = "it may have ended before all was done"]
pub(crate) struct Turn {
    /// Submissions taken.
    pub(crate) submitted: u32,
    /// Completions published.
    pub(crate) completed: u32,
    /// Completions that are put off.
    pub(crate) deferred: u32,
    pub(crate) ended: Ended,
}

impl Turn {
    /// Whether anything happened, or will.
    pub(crate) fn is_active(self) -> bool {
        self.submitted + self.completed > 0 || self.ended == Ended::Spent
    }
}

/// A close under way: as many operations as there may be can be in flight on one resource.
struct Closing<O> {
    /// The operation that closes.
    close: Token,
    request: Request,
    /// Those that are to be cancelled yet.
    operations: Vec<Token>,
    /// What it goes on with then.
    then: Option<O>,
}

impl<O> std::fmt::Debug for Closing<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closing")
            .field("close", &self.close)
            .field("request", &self.request)
            .field("operations", &self.operations)
            .finish_non_exhaustive()
    }
}

/// The host's side of one sandbox's rings, and its operations in flight. Whose memory the rings
/// lie in is a parameter, so that they can be tried on one that says anything.
#[derive(Debug)]
pub(crate) struct Driver<
    B: Backend,
    C = Shared<MappedControl>,
    S = Shared<MappedSlots<{ Submission::WORDS }>>,
    R = Shared<MappedSlots<{ Completion::WORDS }>>,
> {
    /// The rings of the first processor.
    queue: Queue<C, S, R>,
    /// Those of the others.
    others: Vec<Queue<C, S, R>>,
    /// Who is told that something was completed in a ring, if there are several.
    herd: Option<Arc<Herd>>,
    pub(crate) inflight: InFlight<B::Operation>,
    pub(crate) backend: B,
    /// Is told of each operation.
    observer: Observer,
    /// What one turn may do.
    pub(crate) quota: Quota,
    /// Whether the last turn has left something of what it knew.
    unfinished: bool,
    /// A resource that was closed and on which operations were in flight.
    closing: Option<Closing<B::Operation>>,
    /// Bytes that the last turn has spent.
    #[cfg(test)]
    pub(crate) spent: u64,
    /// Whether nothing is to happen for a moment, because the guest's memory is copied.
    paused: bool,
    /// Whether the guest has no machine: there is no memory that a turn could reach into.
    detached: bool,
    /// What the end of the sandbox has not dropped yet, from its end on.
    remains: Option<Remains<B>>,
    /// Said again in every later turn: of two who take turns, the one that did not see the guest
    /// break the ring must not take what it left for a healthy one.
    broken: Option<Violation>,
}

impl<B: Backend> Driver<B> {
    /// A driver for the rings in `memory`, which stand where those of others stood, or at their beginning.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        stood: &[Stood],
        backend: B,
        ready: Arc<Ready>,
        observer: Observer,
    ) -> Self {
        let queue = |processor| {
            let stood = stood.get(processor as usize).copied();
            let Stood { taken, published } = stood.unwrap_or_default();
            let submissions = memory.submissions_of(processor);
            let completions = memory.completions_of(processor);
            let control = memory.control_of(processor);
            Queue::resuming(control, submissions, completions, taken, published)
        };
        let others = (1..memory.plan().processors()).map(queue);
        Self::over(queue(0), others.collect(), backend, ready, observer)
    }
}

impl<B, C, S, R> Driver<B, C, S, R>
where
    B: Backend,
    C: Control + Clone,
    S: Slots<{ Submission::WORDS }>,
    R: Slots<{ Completion::WORDS }>,
{
    /// A driver for these rings, the first of which are those of the first processor.
    pub(crate) fn over(
        queue: Queue<C, S, R>,
        others: Vec<Queue<C, S, R>>,
        backend: B,
        ready: Arc<Ready>,
        observer: Observer,
    ) -> Self {
        let (most, recorder) = (queue.capacity(), observer.recorder().cloned());
        let rings = others.len() as u32 + 1;
        Self {
            inflight: InFlight::new(most, rings, ready, recorder),
            queue,
            others,
            herd: None,
            backend,
            observer,
            quota: Quota::TURN,
            unfinished: false,
            closing: None,
            #[cfg(test)]
            spent: 0,
            paused: false,
            detached: false,
            remains: None,
            broken: None,
        }
    }

    /// Takes what was submitted, goes on with what is ready, publishes what is done; stops when its
    /// allowance is spent or the sandbox is to end.
    ///
    /// Whoever calls this with `register` set is woken when an operation in flight can go on, if the
    /// turn has ended with [`Ended::Done`]; else it is not, and takes another. It is never woken by the
    /// turn itself: operations that give way wake themselves, and a task that is woken while it runs
    /// comes before all others again, and before its runtime has looked at its sockets.
    ///
    /// # Errors
    ///
    /// The guest broke the ring, now or before.
    pub(crate) fn turn(&mut self, register: Option<&Context<'_>>) -> Result<Turn, Violation> {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        if self.paused {
            // Whoever ends the pause sees to what is put off.
            return Ok(Turn {
                submitted: 0,
                completed: 0,
                deferred: 0,
                ended: Ended::Done,
            });
        }
        if self.remains.is_some() {
            // Nothing is begun that nobody would end.
            return Ok(Turn {
                submitted: 0,
                completed: 0,
                deferred: 0,
                ended: Ended::Stopped,
            });
        }
        if self.detached {
            // Who runs the guest sees to a machine and then to what is ready.
            if let Some(context) = register {
                self.inflight.ready().register(context.waker());
            }
            return Ok(Turn {
                submitted: 0,
                completed: 0,
                deferred: 0,
                ended: Ended::Done,
            });
        }
        // Subscribers and recorders of the embedder's are called in a turn, perhaps on a thread that
        // would be missed. What a panic has left half done is not gone on with.
        let mut turn = guarded(|| self.unbroken_turn()).unwrap_or(Err(Violation::HostPanicked));
        self.broken = turn.as_ref().err().copied();
        if self.broken.is_some() {
            // What it has told by then is told.
            let _ = guarded(|| self.observer.written());
        }
        if let (Some(_), Some(herd)) = (self.broken, &self.herd) {
            herd.wake_all();
        }
        if let (Some(context), Ok(turn)) = (register, &mut turn)
            && turn.ended == Ended::Done
        {
            self.inflight.ready().register(context.waker());
            // Registered, then looked: what became ready before has woken nobody, and nobody rings for
            // what the guest has submitted since this turn, or the first of those that it goes on with,
            // has begun.
            if self.wants_turn() {
                self.inflight.ready().unregister();
                turn.ended = Ended::Spent;
            }
        }
        turn
    }

    fn unbroken_turn(&mut self) -> Result<Turn, Violation> {
        let before = self.published_in_all();
        // What happens in an operation belongs to its sandbox.
        let span = self.observer.span();
        let span = span.filter(|_| self.wants_turn());
        let span = span.cloned();
        let _in_span = span.as_ref().map(tracing::Span::enter);
        let allowance = Allowance::new(self.quota);
        if !self.unfinished {
            self.begin_in_all()?;
            self.inflight.begin_turn();
        }
        let (submitted, mut ended) = self.take_submissions()?;
        if ended == Ended::Done {
            ended = self.poll_ready()?;
        }
        self.unfinished = ended != Ended::Done;
        #[cfg(test)]
        {
            self.spent = allowance.spent();
        }
        self.backend.flush();
        drop(allowance);
        self.observer.written();
        self.finish_in_all();
        let completed = self.published_in_all().wrapping_sub(before);
        Ok(Turn {
            submitted,
            completed,
            deferred: self.deferred(),
            ended,
        })
    }

    /// Whether the turn is to end before the next operation.
    #[inline]
    fn ends_early(&self) -> Option<Ended> {
        if self.backend.is_killed() {
            return Some(Ended::Stopped);
        }
        allowance::is_spent().then_some(Ended::Spent)
    }

    fn take_submissions(&mut self) -> Result<(u32, Ended), Violation> {
        let mut taken = 0;
        loop {
            if let Some(early) = self.ends_early() {
                return Ok((taken, early));
            }
            if let Some(closing) = self.closing.take() {
                self.go_on_closing(closing)?;
                continue;
            }
            let Some((ring, mut submission)) = self.take_from_any()? else {
                return Ok((taken, Ended::Done));
            };
            taken += 1;
            allowance::spend(B::price(submission.opcode));
            self.observer.taken(submission.opcode);
            // For all operations alike, those that would be done before they needed a slot too:
            // what a guest can rely on does not depend on how quick the host is.
            if submission.opcode != Opcode::Cancel as u16 {
                self.inflight.check_slot(submission.token)?;
                submission.token = self.inflight.of_ring(ring, submission.token);
            }
            self.start(ring, &submission)?;
        }
    }

    /// Starts an operation. All but a cancellation take a slot of the completion ring.
    fn start(&mut self, ring: u32, submission: &Submission) -> Result<(), Violation> {
        let token = submission.token;
        if submission.opcode != Opcode::Cancel as u16 {
            self.observer.begins(submission);
        }
        let request = match Request::decode(submission) {
            Ok(Request::Cancel(cancel)) => return self.cancel_in(ring, cancel.target),
            Ok(request) => request,
            Err(status) => return self.complete(token, status.into()),
        };
        match self.backend.start(request) {
            Started::Done(end) => self.end(token, end, submission.deferrable),
            Started::Pending(operation) => self.put_in(token, request, operation),
            Started::Closed { operations, then } => {
                self.closing = Some(Closing {
                    close: token,
                    request,
                    operations,
                    then,
                });
                Ok(())
            }
        }
    }

    /// Begins again what was in flight where others stood.
    ///
    /// # Errors
    ///
    /// They cannot have been in flight together.
    pub(crate) fn begin_again(&mut self, in_flight: &[(Token, Request)]) -> Result<(), Violation> {
        self.keep_slots(in_flight)?;
        for (token, request) in in_flight {
            self.observer.begins(&request.submission(*token));
            match self.backend.start_again(*request) {
                Started::Done(end) => self.complete(*token, end)?,
                Started::Pending(operation) => self.put_in(*token, *request, operation)?,
                // Nothing is open that could be closed.
                Started::Closed { .. } => self.complete(*token, Status::BadHandle.into())?,
            }
        }
        self.observer.written();
        self.finish_in_all();
        Ok(())
    }

    /// Has turns do nothing until this [ends](Self::go_on), if the guest sleeps, which it then does until then. Returns
    /// whether it does. If it does not, the task of its first processor is woken when it does.
    pub(crate) fn pause(&mut self) -> bool {
        self.publish_in_all();
        self.paused = self.guest_sleeps_else_wake();
        self.paused
    }

    /// Turns do something again, and the caller sees to one.
    pub(crate) fn go_on(&mut self) {
        self.paused = false;
    }

    /// Whether turns do nothing, for which somebody sees to one later.
    pub(crate) fn is_silent(&self) -> bool {
        self.paused || self.detached
    }

    /// Cancels an operation of a ring, if it is in flight yet and may be dropped.
    fn cancel_in(&mut self, ring: u32, target: Token) -> Result<(), Violation> {
        match self.inflight.check_slot(target) {
            Ok(()) => self.cancel(self.inflight.of_ring(ring, target)),
            // There is none of this name.
            Err(_) => Ok(()),
        }
    }

    /// Cancels an operation, if it is in flight yet and may be dropped.
    fn cancel(&mut self, target: Token) -> Result<(), Violation> {
        match self.inflight.cancel(target) {
            Some(operation) => {
                self.backend.ended(target, operation);
                self.complete(target, Status::Cancelled.into())
            }
            None => Ok(()),
        }
    }

    /// Puts an operation into its slot, unless it is done at its first poll.
    fn put_in(
        &mut self,
        token: Token,
        request: Request,
        operation: B::Operation,
    ) -> Result<(), Violation> {
        if let Some(end) = self.inflight.insert(token, request, operation)? {
            return self.complete(token, end);
        }
        if let Some(operation) = self.inflight.get(token.slot) {
            self.backend.goes_on(token, operation);
        }
        Ok(())
    }

    /// Cancels one of the operations on something that was closed; the close is done when all are, and
    /// what was closed is gone.
    fn go_on_closing(&mut self, mut closing: Closing<B::Operation>) -> Result<(), Violation> {
        allowance::spend(allowance::LIGHT);
        if let Some(target) = closing.operations.pop() {
            self.closing = Some(closing);
            return self.cancel(target);
        }
        match closing.then {
            Some(operation) => self.put_in(closing.close, closing.request, operation),
            None => self.complete(closing.close, Status::Ok.into()),
        }
    }

    fn poll_ready(&mut self) -> Result<Ended, Violation> {
        loop {
            if let Some(early) = self.ends_early() {
                return Ok(early);
            }
            let Some(slot) = self.inflight.next_ready() else {
                return Ok(Ended::Done);
            };
            allowance::spend(allowance::POLL);
            if let Some((token, operation, end)) = self.inflight.poll(slot) {
                self.backend.ended(token, operation);
                self.complete(token, end)?;
            }
        }
    }

    fn complete(&mut self, token: Token, end: B::End) -> Result<(), Violation> {
        self.end(token, end, false)
    }

    /// Completes an operation. If nobody waits for that, and it has succeeded, the completion is deferred.
    fn end(&mut self, token: Token, end: B::End, deferrable: bool) -> Result<(), Violation> {
        let (status, value) = self.backend.settle(end);
        self.observer.ends(token, status, value);
        let (ring, token) = self.inflight.in_ring(token);
        let completion = Completion {
            token,
            status,
            value,
        };
        let queue = self.queue_of(ring);
        match deferrable && status == Status::Ok {
            true => queue.defer(completion)?,
            false => queue.complete(completion)?,
        }
        Ok(())
    }

    /// Whether the guest has submitted something that was not taken yet. A hint, one load.
    pub(crate) fn has_submissions(&self) -> bool {
        !self.detached && self.has_news_in_any()
    }

    /// Whether an operation in flight can go on, or a turn has left something. A hint.
    pub(crate) fn has_ready(&self) -> bool {
        self.unfinished || self.inflight.ready().is_some()
    }

    /// Whether there is something for a turn to do now. A hint.
    pub(crate) fn wants_turn(&self) -> bool {
        self.has_submissions() || self.has_ready()
    }

    /// Whether the last turn has left something of what it knew: it wants another.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The queue of operations that can go on.
    pub(crate) fn ready(&self) -> &Arc<Ready> {
        self.inflight.ready()
    }

    /// Operations in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.inflight.len()
    }

    /// Free-running count of submissions taken, of the first processor.
    pub(crate) fn taken(&self) -> u32 {
        self.queue.taken()
    }

    /// Free-running count of completions published, for the first processor.
    pub(crate) fn published(&self) -> u32 {
        self.queue.published()
    }

    /// Drops operations in flight and open resources, all of them or as many as the allowance of a
    /// turn lets it. Returns whether all are gone.
    pub(crate) fn close_some(&mut self) -> bool {
        self.closing = None;
        let (inflight, backend) = (&mut self.inflight, &mut self.backend);
        let remains = self
            .remains
            .get_or_insert_with(|| Remains::of(inflight, backend));
        remains.drop_some(self.quota)
    }

    /// As [`Self::close_some`]; a thread for blocking calls drops what is left.
    pub(crate) fn close(&mut self) {
        if !self.close_some()
            && let Some(remains) = &mut self.remains
        {
            remains.let_go();
        }
    }
}
