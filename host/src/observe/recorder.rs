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
//! Host events get their time while the batch is locked, so they lie in it in order. The
//! guest's records are taken when the guest does not run, under the same lock: what it will
//! write later is later. That moment is the *horizon* of a batch: nothing that is still to come
//! is earlier. The thread gives out what lies before the horizon, and keeps the rest. While
//! the guest is outside, there is nothing to wait for, and the horizon is now.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;
use wakebox_abi::entry::Token;
use wakebox_abi::memory::{MappedControl, MappedSlots, Word};
use wakebox_abi::ring::{self, TraceConsumer};
use wakebox_abi::status::Status;
use wakebox_abi::trace::{Record, ticks};
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::memory::{GuestMemory, Shared};

use super::assembler::Assembler;
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
    Entered,
    Exited(ExitReason),
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
    Injected,
    Parked,
    Resumed,
    Detached,
    Attached,
}

/// What has been written down and not been given out.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order of their times.
    pub(super) host: Vec<(u64, HostEvent)>,
    /// In the order in which the guest wrote them, with times in that order.
    pub(super) guest: Vec<Record>,
    /// Nothing that is still to come is earlier.
    pub(super) horizon: u64,
    /// Host events for which there was no room.
    pub(super) lost: u64,
    /// How the guest broke the ring.
    pub(super) broken: Option<String>,
    /// Whether the guest does not run.
    outside: bool,
    /// How the sandbox ended, and with which status; what the guest says that it lost in all.
    pub(super) end: Option<(String, u8, u32)>,
}

impl Batch {
    fn len(&self) -> usize {
        self.host.len() + self.guest.len()
    }

    /// An empty one, in the memory of this one as far as that is not excessive.
    pub(super) fn recycled(mut self) -> Self {
        self.host.clear();
        self.host.shrink_to(KEPT);
        self.guest.clear();
        self.guest.shrink_to(KEPT);
        Self {
            host: self.host,
            guest: self.guest,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
struct Buffer {
    batch: Mutex<Batch>,
    /// There is much in the batch, or the end.
    much: Condvar,
    /// Who runs the guest, if that waits until the thread has taken the batch.
    runner: AtomicWaker,
    clock: TraceClock,
}

/// The clock of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceClock {
    /// Ticks when the sandbox was made.
    zero: u64,
    /// Nanoseconds in a tick, times 2³².
    multiplier: u64,
    /// Set if there is no steady counter: the time is that since then.
    start: Option<Instant>,
    /// Nanoseconds that the guest's monotonic clock showed at zero.
    guest: u64,
}

impl TraceClock {
    /// A clock that shows zero now.
    fn new(clocks: &Clocks) -> Self {
        let guest = nanos_since(clocks.start());
        if clocks.has_counter() {
            Self {
                zero: ticks(),
                multiplier: clocks.multiplier(),
                start: None,
                guest,
            }
        } else {
            Self {
                zero: guest,
                multiplier: 1 << 32,
                start: Some(clocks.start()),
                guest,
            }
        }
    }

    fn now(&self) -> u64 {
        match self.start {
            None => ticks(),
            Some(start) => nanos_since(start),
        }
    }

    /// Nanoseconds since the sandbox was made.
    pub(super) fn nanos(&self, ticks: u64) -> u64 {
        let ticks = ticks.saturating_sub(self.zero);
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// The same of a moment on the guest's monotonic clock.
    pub(super) fn of_guest(&self, nanos: u64) -> u64 {
        nanos.saturating_sub(self.guest)
    }
}

fn nanos_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Writes down what the host does. Clones write to the same trace.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Buffer>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.0.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, event: HostEvent) {
        let mut batch = self.lock();
        self.put(&mut batch, event);
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

    /// The guest is about to be entered.
    pub(crate) fn entered(&self) {
        let mut batch = self.lock();
        batch.horizon = self.0.clock.now();
        batch.outside = false;
        self.put(&mut batch, HostEvent::Entered);
    }

    /// An interrupt was injected.
    pub(crate) fn injected(&self) {
        self.log(HostEvent::Injected);
    }

    /// An operation was taken.
    pub(crate) fn begins(&self, token: Token, opcode: u16, bytes: u32) {
        self.log(HostEvent::Begins {
            token,
            opcode,
            bytes,
        });
    }

    /// The operation in a slot can go on.
    pub(crate) fn ready(&self, slot: u32) {
        self.log(HostEvent::Ready { slot });
    }

    /// An operation is done.
    pub(crate) fn ends(&self, token: Token, status: Status, value: u32) {
        self.log(HostEvent::Ends {
            token,
            status,
            value,
        });
    }

    /// Completions are about to be shown to the guest.
    pub(crate) fn written(&self, tokens: &mut Vec<Token>) {
        if tokens.is_empty() {
            return;
        }
        let mut batch = self.lock();
        for token in tokens.drain(..) {
            self.put(&mut batch, HostEvent::Written { token });
        }
    }

    /// The sandbox gives its thread away.
    pub(crate) fn parked(&self) {
        self.log(HostEvent::Parked);
    }

    /// It has one again.
    pub(crate) fn resumed(&self) {
        self.log(HostEvent::Resumed);
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

/// The host's end of the trace ring.
type Ring = TraceConsumer<Shared<MappedControl>, Shared<MappedSlots<{ Record::WORDS }>>>;

/// The trace of one sandbox: the part that its runner owns.
#[derive(Debug)]
pub(crate) struct Tracing {
    recorder: Recorder,
    memory: Arc<GuestMemory>,
    /// Gone as soon as the guest has broken it.
    ring: Option<Ring>,
    /// Time of the last record, or of the last entry.
    last: u64,
    ended: bool,
    done: Option<oneshot::Receiver<Option<io::Error>>>,
    /// What the first sink that failed said.
    pub(crate) error: Option<io::Error>,
}

impl Tracing {
    /// Begins a trace. `restored` is of a guest that goes on where another stood: how many of its records
    /// had been taken.
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
        restored: Option<u32>,
    ) -> Result<Self> {
        let clock = TraceClock::new(clocks);
        let recorder = Recorder(Arc::new(Buffer {
            batch: Mutex::new(Batch {
                outside: true,
                ..Batch::default()
            }),
            much: Condvar::new(),
            runner: AtomicWaker::new(),
            clock,
        }));
        let (tell, done) = oneshot::channel();
        let mut sinks = LiveSinks {
            sinks: sinks.0,
            error: None,
        };
        let buffer = recorder.clone();
        let body = move || {
            let mut first = |kind| {
                sinks.tell(&Event {
                    time: 0,
                    side: Side::Host,
                    kind,
                });
            };
            first(EventKind::Started { mode, guest });
            if restored.is_some() {
                first(EventKind::Restored { clock: clock.guest });
            }
            give_out(&buffer.0, &mut sinks);
            let _ = tell.send(sinks.error);
        };
        const NAME: &str = "wakebox-trace";
        signals::spawn(NAME, None, body).map_err(|source| Error::Thread { name: NAME, source })?;
        Ok(Self {
            recorder,
            memory: memory.clone(),
            // Of a guest that was not watched when it began, the host's side is seen.
            ring: (memory.plan().trace_records > 0).then(|| {
                let taken = restored.unwrap_or(0);
                TraceConsumer::starting_at(memory.control(), memory.trace(), ring::TRACE, taken)
            }),
            last: clock.now(),
            ended: false,
            done: Some(done),
            error: None,
        })
    }

    /// What others write down by.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The guest was left: takes what it wrote.
    pub(crate) fn exited(&mut self, reason: ExitReason) {
        let buffer = &self.recorder.0;
        let mut batch = self.recorder.lock();
        let now = buffer.clock.now();
        let room = (4 * BACKLOG as usize).saturating_sub(batch.guest.len());
        if let Some(ring) = &mut self.ring {
            // Once for all of them; what is wrong with the ring is found below.
            let waiting = ring.look().unwrap_or(0);
            batch.guest.reserve(room.min(waiting as usize));
            for _ in 0..room {
                match ring.pop() {
                    Ok(Some(Record([at, head, first, second]))) => {
                        // The guest's claim, as far as it can be.
                        self.last = at.clamp(self.last, now.max(self.last));
                        batch.guest.push(Record([self.last, head, first, second]));
                    }
                    Ok(None) => break,
                    Err(corrupt) => {
                        batch.broken = Some(corrupt.to_string());
                        self.ring = None;
                        break;
                    }
                }
            }
            if let Some(ring) = &mut self.ring {
                ring.release();
            }
        }
        self.recorder.put(&mut batch, HostEvent::Exited(reason));
        batch.horizon = buffer.clock.now();
        batch.outside = true;
        if batch.len() >= LOOK_AT {
            buffer.much.notify_one();
        }
    }

    /// Ready unless the sinks are so far behind that the guest should wait.
    pub(crate) fn poll_room(&mut self, context: &Context<'_>) -> Poll<()> {
        let has_room = || self.recorder.lock().len() < BACKLOG as usize;
        if has_room() {
            return Poll::Ready(());
        }
        // Registered before the second look: what the thread takes in between is seen.
        self.recorder.0.runner.register(context.waker());
        if has_room() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ends the trace. Only the first end counts.
    pub(crate) fn end(&mut self, outcome: String, status: u8) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let lost = self.memory.control_page().word(Word::TraceLost);
        let mut batch = self.recorder.lock();
        batch.outside = true;
        batch.end = Some((outcome, status, lost));
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
}

impl LiveSinks {
    fn tell(&mut self, event: &Event) {
        self.each(|sink| sink.event(event));
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
fn give_out(buffer: &Buffer, sinks: &mut LiveSinks) {
    let mut assembler = Assembler::new(buffer.clock);
    let mut quiet = false;
    // Two batches take turns, so that the memory of both is warm.
    let mut spare = Batch::default();
    loop {
        let mut batch = {
            let mut batch = buffer.batch.lock().unwrap_or_else(PoisonError::into_inner);
            if batch.len() < LOOK_AT && batch.end.is_none() {
                (batch, _) = buffer
                    .much
                    .wait_timeout(batch, LOOK_EVERY)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if batch.outside {
                batch.horizon = buffer.clock.now();
            }
            let outside = batch.outside;
            let horizon = batch.horizon;
            std::mem::replace(
                &mut *batch,
                Batch {
                    outside,
                    horizon,
                    ..std::mem::take(&mut spare)
                },
            )
        };
        buffer.runner.take().into_iter().for_each(outside::wake);
        let is_quiet = batch.len() == 0;
        let end = batch.end.take();
        if end.is_some() {
            batch.horizon = u64::MAX;
        }
        spare = assembler.assemble(batch, &mut |event| sinks.tell(event));
        if let Some((outcome, status, lost)) = end {
            assembler.finish(outcome, status, lost, buffer.clock.now(), &mut |event| {
                sinks.tell(event);
            });
            sinks.each(|sink| sink.end());
            return;
        }
        if is_quiet && !quiet {
            sinks.each(|sink| sink.caught_up());
        }
        quiet = is_quiet;
    }
}
