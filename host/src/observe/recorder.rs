//! Where both sides' accounts meet: the host writes down what it does, takes the guest's records
//! out of their ring whenever the guest has been left, and a thread hands the whole to the sinks.
//!
//! ```text
//!   vCPU, driver, reactor -- log() --.
//!                                    v
//!   guest --> trace ring -- drain() --> batch --> thread "wakebox-trace": merge --> sinks
//! ```
//!
//! # Why the order is right
//!
//! Host events get their time while the batch is locked, so they lie in it in order. Those of a turn of the driver are kept
//! until it has ended and come together, in order among themselves ([`TurnLog`]); while they are kept, nothing later is given
//! out. A
//! processor's records are taken when it is not in the guest, under the same lock: what it will
//! write later is later. While it is outside there is nothing to wait for; once it is in the guest, nothing
//! that is still to come of it is earlier than its entry. The earliest such moment, of all processors and the turn, is
//! the *horizon*. The thread gives out what lies before the horizon, and keeps the rest.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;
use wakebox_abi::entry::Token;
use wakebox_abi::memory::Word;
use wakebox_abi::status::Status;
use wakebox_abi::trace::Record;
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::memory::GuestMemory;

use super::assembler::Assembler;
use super::clock::TraceClock;
use super::drain::Drain;
use crate::error::{Error, Result};
use crate::outside;
use crate::signals;
use crate::trace::{BACKLOG, Event, EventKind, ExitReason, RECORDS, Side, Sink};

/// Those of one sandbox.
#[derive(Default)]
pub(crate) struct Sinks(pub(crate) Vec<Box<dyn Sink>>);

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sinks({})", self.0.len())
    }
}

/// How long an event may lie before the thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// As many make the thread look at once.
const LOOK_AT: usize = 1 << 14;

/// Most entries for which memory is kept from one batch to the next.
pub(super) const KEPT: usize = RECORDS as usize;

/// What the host did.
#[derive(Clone, Copy, Debug)]
pub(super) enum HostEvent {
    /// Of a processor, as what follows that has a number.
    Entered(u32),
    Exited(u32, ExitReason),
    Begins {
        token: Token,
        opcode: u16,
        bytes: u32,
    },
    Ready {
        slot: u32,
    },
    Ends {
        token: Token,
        status: Status,
        value: u32,
    },
    Written {
        token: Token,
    },
    Injected(u32),
    Parked(u32),
    Resumed(u32),
    Detached,
    Attached,
}

/// What has been written down and not been given out.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of their times.
    pub(super) host: Vec<(u64, HostEvent)>,
    /// Those of the driver's turns, likewise.
    pub(super) turns: Vec<(u64, HostEvent)>,
    /// Of each processor.
    pub(super) guest: Box<[Told]>,
    /// Nothing that is still to come is earlier.
    pub(super) horizon: u64,
    /// Host events for which there was no room.
    pub(super) lost: u64,
    /// How the sandbox ended, and with which status; what the guest says that it lost in all.
    pub(super) end: Option<(String, u8, u32)>,
}

/// What a processor has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// In the order in which it wrote them, with times in that order.
    pub(super) records: Vec<Record>,
    /// How it broke the ring.
    pub(super) broken: Option<String>,
}

impl Batch {
    /// An empty one of so many processors.
    pub(super) fn new(processors: u32) -> Self {
        Self {
            host: Vec::new(),
            turns: Vec::new(),
            guest: (0..processors).map(|_| Told::default()).collect(),
            horizon: 0,
            lost: 0,
            end: None,
        }
    }

    fn len(&self) -> usize {
        let told = self.guest.iter().map(|told| told.records.len());
        self.host.len() + self.turns.len() + told.sum::<usize>()
    }

    /// An empty one, in the memory of this one as far as that is not excessive.
    pub(super) fn recycled(mut self) -> Self {
        self.host.clear();
        self.host.shrink_to(KEPT);
        self.turns.clear();
        self.turns.shrink_to(KEPT);
        for told in &mut self.guest {
            told.records.clear();
            told.records.shrink_to(KEPT);
            told.broken = None;
        }
        Self {
            horizon: 0,
            lost: 0,
            end: None,
            ..self
        }
    }
}

/// What is written down, and how far.
#[derive(Debug)]
struct Book {
    batch: Batch,
    /// Of each processor, since when it is in the guest, if it is.
    inside: Box<[Option<u64>]>,
    /// Since when a turn of the driver is under way that has something to tell, if one is.
    turn: Option<u64>,
    /// What the thread keeps, because it lies behind the horizon.
    held: usize,
}

impl Book {
    /// Nothing that is still to come is earlier.
    fn horizon(&self, now: u64) -> u64 {
        let entries = self.inside.iter().copied().flatten();
        entries.chain(self.turn).min().unwrap_or(now)
    }

    fn len(&self) -> usize {
        self.batch.len() + self.held
    }
}

#[derive(Debug)]
struct Buffer {
    book: Mutex<Book>,
    /// There is much in the batch, or the end.
    much: Condvar,
    /// Of each processor, who runs the guest there, if that waits until the thread has taken the batch.
    runners: Box<[AtomicWaker]>,
    clock: TraceClock,
}

impl Buffer {
    /// Those who wait for room look again.
    fn wake_runners(&self) {
        let waiting = self.runners.iter().filter_map(AtomicWaker::take);
        waiting.for_each(outside::wake);
    }
}

/// Writes down what the host does. Clones write to the same trace.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Buffer>);

impl Recorder {
    /// A trace with nothing in it, of a guest with so many processors.
    pub(super) fn new(clock: TraceClock, processors: u32) -> Self {
        let book = Book {
            batch: Batch::new(processors),
            inside: (0..processors).map(|_| None).collect(),
            turn: None,
            held: 0,
        };
        Self(Arc::new(Buffer {
            book: Mutex::new(book),
            much: Condvar::new(),
            runners: (0..processors).map(|_| AtomicWaker::new()).collect(),
            clock,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> u64 {
        self.0.clock.now()
    }

    pub(super) fn log(&self, event: HostEvent) {
        let mut book = self.lock();
        self.put(&mut book.batch, event);
    }

    fn put(&self, batch: &mut Batch, event: HostEvent) {
        // Far above what makes the guest wait: only what goes on without it comes here, such as an
        // operation that is woken again and again while the sandbox is parked.
        if batch.host.len() >= 4 * BACKLOG as usize {
            batch.lost += 1;
            return;
        }
        batch.host.push((self.0.clock.now(), event));
        if batch.len() == LOOK_AT {
            self.0.much.notify_one();
        }
    }

    /// The guest is about to be entered on a processor.
    pub(super) fn entered(&self, processor: u32) {
        let mut book = self.lock();
        book.inside[processor as usize] = Some(self.0.clock.now());
        self.put(&mut book.batch, HostEvent::Entered(processor));
    }

    /// It was left, for a reason. `take` puts what it has told to the rest, so much at most and until now, and says
    /// how it has broken its ring, if it has.
    pub(super) fn left(
        &self,
        processor: u32,
        reason: ExitReason,
        take: impl FnOnce(usize, u64, &mut Vec<Record>) -> Option<String>,
    ) {
        let mut book = self.lock();
        let room = (4 * BACKLOG as usize).saturating_sub(book.len());
        let told = &mut book.batch.guest[processor as usize];
        let broken = take(room, self.0.clock.now(), &mut told.records);
        told.broken = broken.or(told.broken.take());
        self.put(&mut book.batch, HostEvent::Exited(processor, reason));
        book.inside[processor as usize] = None;
        if book.batch.len() >= LOOK_AT {
            self.0.much.notify_one();
        }
    }

    /// Ready unless the sinks are so far behind that a processor should wait.
    pub(super) fn poll_room(&self, processor: u32, context: &Context<'_>) -> Poll<()> {
        let has_room = || self.lock().len() < BACKLOG as usize;
        if has_room() {
            return Poll::Ready(());
        }
        // Registered before the second look: what the thread takes in between is seen.
        self.0.runners[processor as usize].register(context.waker());
        if has_room() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The operation in a slot can go on.
    pub(crate) fn ready(&self, slot: u32) {
        self.log(HostEvent::Ready { slot });
    }

    /// The sandbox has given its machine away.
    pub(crate) fn detached(&self) {
        self.log(HostEvent::Detached);
    }

    /// The sandbox has a machine again.
    pub(crate) fn attached(&self) {
        self.log(HostEvent::Attached);
    }
}

/// Writes down what the driver does in a turn: for itself, until the turn has ended, so that an operation costs no lock.
#[derive(Debug)]
pub(super) struct TurnLog {
    recorder: Recorder,
    /// In the order of their times.
    events: Vec<(u64, HostEvent)>,
    /// Completions that the guest does not see yet.
    unseen: Vec<Token>,
}

impl TurnLog {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            events: Vec::new(),
            unseen: Vec::new(),
        }
    }

    /// Who writes the trace.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    #[inline]
    fn log(&mut self, event: HostEvent) {
        if self.events.is_empty() {
            let mut book = self.recorder.lock();
            // Nothing that comes of it is earlier.
            book.turn = Some(self.recorder.now());
        }
        self.events.push((self.recorder.now(), event));
    }

    /// An operation was taken.
    #[inline]
    pub(super) fn begins(&mut self, token: Token, opcode: u16, bytes: u32) {
        self.log(HostEvent::Begins {
            token,
            opcode,
            bytes,
        });
    }

    /// An operation is done.
    #[inline]
    pub(super) fn ends(&mut self, token: Token, status: Status, value: u32) {
        self.log(HostEvent::Ends {
            token,
            status,
            value,
        });
        self.unseen.push(token);
    }

    /// The turn has ended, and completions are about to be shown to the guest.
    pub(super) fn written(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let now = self.recorder.now();
        let written = self.unseen.drain(..);
        let written = written.map(|token| (now, HostEvent::Written { token }));
        self.events.extend(written);
        let mut book = self.recorder.lock();
        book.turn = None;
        let batch = &mut book.batch;
        let room = (4 * BACKLOG as usize).saturating_sub(batch.host.len() + batch.turns.len());
        batch.lost += self.events.len().saturating_sub(room) as u64;
        let before = batch.len();
        batch.turns.extend(self.events.drain(..).take(room));
        if (before..batch.len()).contains(&(LOOK_AT - 1)) {
            self.recorder.0.much.notify_one();
        }
    }
}

/// The trace of one sandbox: the part that its runner owns.
#[derive(Debug)]
pub(crate) struct Tracing {
    recorder: Recorder,
    memory: Arc<GuestMemory>,
    /// The first processor's.
    pub(crate) drain: Drain,
    ended: bool,
    done: Option<oneshot::Receiver<Option<io::Error>>>,
    /// What the first sink that failed said.
    pub(crate) error: Option<io::Error>,
}

impl Tracing {
    /// Begins a trace, of a guest that goes on where another stood, or of one that begins at its entry.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        clocks: &Clocks,
        mode: String,
        guest: Option<String>,
        sinks: Sinks,
        is_restored: bool,
    ) -> Result<Self> {
        let (clock, plan) = (TraceClock::new(clocks), memory.plan());
        let processors = plan.processors();
        let recorder = Recorder::new(clock, processors);
        let (tell, done) = oneshot::channel();
        let mut sinks = LiveSinks::new(sinks);
        let buffer = recorder.clone();
        let mut assembler = Assembler::new(clock, processors, plan.completion_entries);
        let body = move || {
            let mut first = |kind| sinks.tell(Event::new(0, Side::Host, kind));
            first(EventKind::Started {
                mode,
                guest,
                processors,
            });
            if is_restored {
                first(EventKind::Restored { clock: clock.guest });
            }
            give_out(&buffer.0, &mut assembler, &mut sinks);
            let _ = tell.send(sinks.error);
        };
        const NAME: &str = "wakebox-trace";
        signals::spawn(NAME, None, body).map_err(|source| Error::Thread { name: NAME, source })?;
        Ok(Self {
            drain: Drain::new(&recorder, memory, 0),
            recorder,
            memory: memory.clone(),
            ended: false,
            done: Some(done),
            error: None,
        })
    }

    /// What others write down by.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Ends the trace. Only the first end counts.
    pub(crate) fn end(&mut self, outcome: String, status: u8) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let each = (0..self.memory.plan().processors()).map(|processor| {
            let page = self.memory.control_page_of(processor);
            page.word(Word::TraceLost)
        });
        let lost = each.fold(0, u32::wrapping_add);
        let mut book = self.recorder.lock();
        book.batch.end = Some((outcome, status, lost));
        self.recorder.0.much.notify_one();
    }

    /// Waits until the sinks have had everything.
    pub(crate) async fn ended(&mut self) {
        if let Some(done) = self.done.take() {
            // Gone without a word: a sink has panicked, on its own thread.
            self.error = done
                .await
                .unwrap_or_else(|_| Some(io::Error::other("a sink of the trace panicked")));
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.end("the run was dropped".into(), 1);
    }
}

/// The sinks, and what went wrong.
struct LiveSinks {
    sinks: Vec<Box<dyn Sink>>,
    error: Option<io::Error>,
    /// What they are told next, together.
    untold: Vec<Event>,
}

/// Events that sinks are told of at once. A sink is guarded, looked for and found once for all of them.
const TOLD_AT_ONCE: usize = 256;

impl LiveSinks {
    fn new(sinks: Sinks) -> Self {
        Self {
            sinks: sinks.0,
            error: None,
            untold: Vec::with_capacity(TOLD_AT_ONCE),
        }
    }

    fn tell(&mut self, event: Event) {
        self.untold.push(event);
        if self.untold.len() == TOLD_AT_ONCE {
            self.tell_all();
        }
    }

    /// Tells what is untold yet.
    fn tell_all(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        self.each(|sink| untold.iter().try_for_each(|event| sink.event(event)));
        self.untold = untold;
        self.untold.clear();
    }

    /// Does something with each sink; those that fail, or panic, get nothing more.
    fn each(&mut self, mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>) {
        let error = &mut self.error;
        self.sinks.retain_mut(|sink| match guarded(|| act(sink)) {
            Ok(()) => true,
            Err(failure) => {
                tracing::warn!(%failure, "a sink of the trace failed; it gets no more events");
                error.get_or_insert(failure);
                false
            }
        });
    }
}

/// Runs a sink's code: a panic in it is an error of that sink. The thread goes on, for which the
/// guest waits.
fn guarded(act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let result = catch_unwind(AssertUnwindSafe(act));
    result.unwrap_or_else(|_| Err(io::Error::other("a sink of the trace panicked")))
}

/// The thread: takes batches, merges, and gives out, until the end.
fn give_out(buffer: &Buffer, assembler: &mut Assembler, sinks: &mut LiveSinks) {
    let lock = || buffer.book.lock().unwrap_or_else(PoisonError::into_inner);
    let mut quiet = false;
    // Two batches take turns, so that the memory of both is warm.
    let mut spare = Batch::new(buffer.runners.len() as u32);
    loop {
        let mut batch = {
            let mut book = lock();
            if book.batch.len() < LOOK_AT && book.batch.end.is_none() {
                (book, _) = buffer
                    .much
                    .wait_timeout(book, LOOK_EVERY)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            book.batch.horizon = book.horizon(buffer.clock.now());
            std::mem::replace(&mut book.batch, spare)
        };
        buffer.wake_runners();
        let is_quiet = batch.len() == 0;
        let end = batch.end.take();
        if end.is_some() {
            batch.horizon = u64::MAX;
        }
        spare = assembler.assemble(batch, &mut |event| sinks.tell(event));
        sinks.tell_all();
        let held = assembler.held();
        let before = std::mem::replace(&mut lock().held, held);
        if held < before {
            buffer.wake_runners();
        }
        if let Some((outcome, status, lost)) = end {
            assembler.finish(outcome, status, lost, buffer.clock.now(), &mut |event| {
                sinks.tell(event);
            });
            sinks.tell_all();
            sinks.each(|sink| sink.end());
            return;
        }
        if is_quiet && !quiet {
            sinks.each(|sink| sink.caught_up());
        }
        quiet = is_quiet;
    }
}
