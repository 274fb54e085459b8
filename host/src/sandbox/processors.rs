//! The further processors of a guest that has several: each is a task of its own.
//!
//! The first is run by the future of [`Sandbox::run`](super::Sandbox::run), which sees to all that a sandbox has once: its end,
//! its limits by the wall clock, who asks for something. A further one begins when the guest
//! [starts](wakebox_abi::port::START) it, as a task of the same runtime: at once beside the others where that
//! has several threads, else in turns. Whichever ends, by itself or by what it did, ends all: the first end counts.
//!
//! A processor lies in a lock while its task lives, which holds that while it is in the guest. Whoever ends the sandbox says
//! so, kicks all of them, and takes them out: none is entered after that, whether its task still lives or
//! not.

mod one;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};
use wakebox_abi::layout::IMAGE_MIN;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::wake::Mode;
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::vcpu::{End, Vcpu};

use self::one::Processor;
use super::handle::Live;
use crate::driver::Violation;
use crate::driver::herd::Herd;
use crate::driver::placement::Placement;
use crate::embedded::Home;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::observe::Recorder;
use crate::ops::TokioBackend;
use crate::outcome::Limit;
use crate::stop::Why;
use crate::template::Left;

/// Addresses of ring 3 are below this one.
const USER_END: u64 = 1 << 47;

/// What all processors of a guest share, where there are several.
#[derive(Debug)]
pub(super) struct Processors {
    pub(super) herd: Arc<Herd>,
    live: Arc<Live>,
    /// To be shared with the tasks.
    placement: Mutex<Placement<TokioBackend>>,
    memory: Arc<GuestMemory>,
    clocks: Mutex<Clocks>,
    home: Home,
    mode: Mode,
    quantum: Duration,
    limits: Limits,
    recorder: Option<Recorder>,
    /// All but the first.
    places: Box<[Mutex<Place>]>,
    is_over: AtomicBool,
    /// How the first that has ended did.
    end: Mutex<Option<(u32, Ending)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    run: OnceLock<Run>,
    /// Nanoseconds on a processor in the guest, of all together.
    used: AtomicU64,
}

/// One of them, as whoever has locked it has it.
#[derive(Debug, Default)]
struct Place {
    /// None while all sleep and are looked at together, and when they were stopped.
    vcpu: Option<Vcpu>,
    /// How it was left when it went to sleep last, if it has.
    left: Option<Left>,
}

/// Where and since when a sandbox runs.
#[derive(Debug)]
struct Run {
    runtime: runtime::Handle,
    span: Span,
    began: Instant,
}

/// How a processor has ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// It left the guest, and is not to be entered again.
    Left(End),
    Violation(Violation),
    Limit(Limit),
    /// All have waited for each other.
    Deadlock,
    /// The host could not do its part.
    Failed(Error),
}

/// What the processors are made for.
pub(super) struct Setup {
    pub(super) herd: Arc<Herd>,
    pub(super) live: Arc<Live>,
    pub(super) placement: Placement<TokioBackend>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) clocks: Clocks,
    pub(super) home: Home,
    pub(super) mode: Mode,
    pub(super) quantum: Duration,
    pub(super) limits: Limits,
    /// If somebody watches.
    pub(super) recorder: Option<Recorder>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Processors {
    pub(super) fn new(setup: Setup) -> Arc<Self> {
        let Setup {
            herd,
            live,
            placement,
            memory,
            clocks,
            home,
            mode,
            quantum,
            limits,
            recorder,
        } = setup;
        Arc::new(Self {
            places: (1..herd.len()).map(|_| Mutex::default()).collect(),
            herd,
            live,
            placement: Mutex::new(placement),
            memory,
            clocks: Mutex::new(clocks),
            home,
            mode,
            quantum,
            limits,
            recorder,
            is_over: AtomicBool::new(false),
            end: Mutex::new(None),
            tasks: Mutex::default(),
            run: OnceLock::new(),
            used: AtomicU64::new(0),
        })
    }

    /// The sandbox runs from now on, with these processors besides the first.
    pub(super) fn run(&self, runtime: runtime::Handle, span: Span, vcpus: Vec<Vcpu>) {
        let began = Instant::now();
        let run = Run {
            runtime,
            span,
            began,
        };
        // A sandbox runs once.
        let _ = self.run.set(run);
        self.put_in(vcpus);
    }

    /// Their tasks have these from now on.
    pub(super) fn put_in(&self, vcpus: Vec<Vcpu>) {
        for (place, vcpu) in self.places.iter().zip(vcpus) {
            lock(place).vcpu = Some(vcpu);
        }
    }

    /// All of them, unless they were taken: for whoever knows that all sleep, or has stopped them.
    pub(super) fn take_out(&self) -> Vec<Vcpu> {
        let taken = self
            .places
            .iter()
            .filter_map(|place| lock(place).vcpu.take());
        taken.collect()
    }

    /// How each was left that has begun, while all sleep.
    pub(super) fn left(&self) -> Box<[Option<Left>]> {
        self.places.iter().map(|place| lock(place).left).collect()
    }

    fn place(&self, number: u32) -> MutexGuard<'_, Place> {
        lock(&self.places[number as usize - 1])
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// None of them is in the guest any more, nor will be: gives those that were taken.
    pub(super) fn stop(&self) -> Vec<Vcpu> {
        self.is_over.store(true, Ordering::SeqCst);
        self.herd.stop();
        // Who is in the guest has been kicked: it leaves at once, and is not entered again.
        self.take_out()
    }

    /// One of the tasks that have been started; each is given once.
    pub(super) fn next_task(&self) -> Option<JoinHandle<()>> {
        lock(&self.tasks).pop()
    }

    /// How the first has ended that did, given once.
    pub(super) fn end(&self) -> Option<(u32, Ending)> {
        lock(&self.end).take()
    }

    fn ends(&self, number: u32, how: Ending) {
        lock(&self.end).get_or_insert((number, how));
        self.live.stop.end(Why::Processor);
    }

    /// Time that they were on a processor in the guest, in all.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// So much more.
    pub(super) fn has_used(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.used.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// When the sandbox has begun to run.
    fn began(&self) -> Instant {
        self.run.get().map_or_else(Instant::now, |run| run.began)
    }

    /// Keeps the clock page up to date, which all of them read.
    pub(super) fn refresh_clock(&self) {
        // Who finds another at it need not.
        if let Ok(mut clocks) = self.clocks.try_lock()
            && let Some(moment) = clocks.refresh()
        {
            self.memory.write_clock(&moment);
        }
    }

    /// The processor that one rings for.
    fn target(&self, by: u32) -> Result<u32, Violation> {
        let control = self.herd.control(by);
        match control.load(Word::Target, Ordering::Relaxed) {
            processor if processor < self.herd.len() => Ok(processor),
            processor => Err(Violation::NoSuchProcessor {
                processor,
                processors: self.herd.len(),
            }),
        }
    }

    /// One has rung for another that it has something for. Returns whether that is itself: it waits for what
    /// another does, which may want its thread.
    pub(super) fn nudge(&self, by: u32) -> Result<bool, Violation> {
        let target = self.target(by)?;
        if target != by {
            self.herd.completed(target);
        }
        Ok(target == by)
    }

    /// One has rung for another to begin.
    ///
    /// # Errors
    ///
    /// How that ends the sandbox.
    pub(super) fn start(self: &Arc<Self>, by: u32) -> Result<(), Ending> {
        let number = self.target(by).map_err(Ending::Violation)?;
        if !self.herd.begins(number) {
            let runs = Violation::ProcessorRuns { processor: number };
            return Err(Ending::Violation(runs));
        }
        let control = self.herd.control(number);
        let entry = control.load_address(Word::StartEntry, Word::StartEntryHigh, Ordering::Acquire);
        if !(IMAGE_MIN..USER_END).contains(&entry) {
            return Err(Ending::Violation(Violation::StartAddress {
                processor: number,
                address: entry,
            }));
        }
        let stack = self.memory.plan().stack_range_of(number).end() - 64;
        let started = match &mut self.place(number).vcpu {
            Some(vcpu) => vcpu.start(entry, stack),
            // The sandbox has ended.
            None => return Ok(()),
        };
        started.map_err(|error| Ending::Failed(error.into()))?;
        self.spawn(number);
        Ok(())
    }

    fn spawn(self: &Arc<Self>, number: u32) {
        let Some(run) = self.run.get() else {
            return;
        };
        let task = Processor::new(self.clone(), number).run();
        let task = run.runtime.spawn(task.instrument(run.span.clone()));
        lock(&self.tasks).push(task);
    }

    /// Those go on that had begun where a template stands, and were left so there.
    pub(super) fn resume(self: &Arc<Self>, left: &[Option<Left>]) {
        let begun = || {
            let all = (1..self.herd.len()).zip(left);
            all.filter_map(|(number, left)| left.map(|left| (number, left)))
        };
        // Before the first of them may find that all sleep.
        for (number, _) in begun() {
            self.herd.begins(number);
        }
        for (number, left) in begun() {
            let mut place = self.place(number);
            place.left = Some(left);
            if let (Left::Halt, Some(vcpu)) = (left, &mut place.vcpu) {
                vcpu.interrupt();
            }
            drop(place);
            self.spawn(number);
        }
    }

    /// Aborts the tasks: for an end that cannot wait for theirs.
    pub(super) fn abort(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}
