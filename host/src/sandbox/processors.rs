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

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};
use wakebox_abi::layout::IMAGE_MIN;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::wake::Mode;
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::vcpu::{End, Exit, Vcpu};

use super::cpu_time::CpuTime;
use super::handle::Live;
use super::{DRIVER_QUANTUM, QUANTUM};
use crate::driver::herd::Herd;
use crate::driver::placement::Placement;
use crate::driver::{Ended, Violation};
use crate::embedded::Home;
use crate::error::{Error, Result};
use crate::limits::{LimitKind, Limits};
use crate::observe::{Drain, Recorder, exit_reason};
use crate::ops::TokioBackend;
use crate::outcome::Limit;
use crate::stop::Why;
use crate::telemetry::{ExitTelemetry, Telemetry};
use crate::trace::ExitReason;

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
    /// All but the first, while the sandbox runs.
    vcpus: Box<[Mutex<Option<Vcpu>>]>,
    is_over: AtomicBool,
    /// How the first that has ended did.
    end: Mutex<Option<(u32, Ending)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    run: OnceLock<Run>,
    /// Nanoseconds on a processor in the guest, of all together.
    used: AtomicU64,
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
            vcpus: (1..herd.len()).map(|_| Mutex::new(None)).collect(),
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
        for (place, vcpu) in self.vcpus.iter().zip(vcpus) {
            *lock(place) = Some(vcpu);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// None of them is in the guest any more, nor will be: gives those that were taken.
    pub(super) fn stop(&self) -> Vec<Vcpu> {
        self.is_over.store(true, Ordering::SeqCst);
        self.herd.stop();
        // Who is in the guest has been kicked: it leaves at once, and is not entered again.
        let taken = self.vcpus.iter().filter_map(|vcpu| lock(vcpu).take());
        taken.collect()
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
        let half = |word| u64::from(control.load(word, Ordering::Acquire));
        let entry = half(Word::StartEntryHigh) << 32 | half(Word::StartEntry);
        if !(IMAGE_MIN..USER_END).contains(&entry) {
            return Err(Ending::Violation(Violation::StartAddress {
                processor: number,
                address: entry,
            }));
        }
        let stack = self.memory.plan().stack_range_of(number).end() - 64;
        let started = match &*lock(&self.vcpus[number as usize - 1]) {
            Some(vcpu) => vcpu.start(entry, stack),
            // The sandbox has ended.
            None => return Ok(()),
        };
        started.map_err(|error| Ending::Failed(error.into()))?;
        let Some(run) = self.run.get() else {
            return Ok(());
        };
        let task = Processor::new(self.clone(), number).run();
        let task = run.runtime.spawn(task.instrument(run.span.clone()));
        lock(&self.tasks).push(task);
        Ok(())
    }

    /// Aborts the tasks: for an end that cannot wait for theirs.
    pub(super) fn abort(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

/// One of the further processors, as its task has it.
struct Processor {
    all: Arc<Processors>,
    number: u32,
    placement: Placement<TokioBackend>,
    computed: Option<CpuTime>,
    exits: ExitTelemetry,
    /// If somebody watches.
    drain: Option<Drain>,
    /// When others on this thread had a turn last.
    turn_began: Instant,
    /// When the guest was left last.
    left_at: Option<Instant>,
    /// Whether its task has come to an end of its own.
    has_ended: bool,
}

impl Drop for Processor {
    fn drop(&mut self) {
        if !self.has_ended && !self.all.is_over() {
            // It has panicked, or its runtime shuts down: nobody is to wait for it.
            let ending = Ending::Violation(Violation::HostPanicked);
            self.all.ends(self.number, ending);
        }
    }
}

impl Processor {
    fn new(all: Arc<Processors>, number: u32) -> Self {
        let limited = all.limits.time(LimitKind::CpuTime).is_some();
        let placement = lock(&all.placement).share();
        Self {
            placement: placement.expect("several processors share theirs"),
            computed: limited.then(CpuTime::default),
            exits: Telemetry::exits(number),
            drain: all
                .recorder
                .as_ref()
                .map(|recorder| Drain::new(recorder, &all.memory, number, 0)),
            all,
            number,
            turn_began: Instant::now(),
            left_at: None,
            has_ended: false,
        }
    }

    async fn run(mut self) {
        let ending = self.drive().await;
        self.has_ended = true;
        if let Err(ending) = ending {
            self.all.ends(self.number, ending);
        }
    }

    /// Runs it until all of them are stopped.
    ///
    /// # Errors
    ///
    /// How it has ended before.
    async fn drive(&mut self) -> Result<(), Ending> {
        loop {
            // For a limit or by a wish, the first one ends it.
            if self.all.live.stop.why().is_some() {
                return Ok(());
            }
            self.let_sinks_catch_up().await;
            self.let_others_run(QUANTUM).await;
            let most = self.turn_length().map_err(Ending::Limit)?;
            let Some(exit) = self.enter(most) else {
                return Ok(());
            };
            if !self.see_to(exit.map_err(Ending::Failed)?).await? {
                return Ok(());
            }
            self.let_tasks_begin().await.map_err(Ending::Violation)?;
        }
    }

    /// How long the guest may stay in its next turn.
    fn turn_length(&self) -> Result<Duration, Limit> {
        let mut most = self.all.quantum;
        let began = self.all.run.get().map_or(self.turn_began, |run| run.began);
        let limits = [
            (
                LimitKind::CpuTime,
                self.all.used(),
                Limit::CpuTime as fn(Duration) -> Limit,
            ),
            (LimitKind::WallClock, began.elapsed(), Limit::WallClock),
        ];
        for (kind, used, reached) in limits {
            let Some(limit) = self.all.limits.time(kind) else {
                continue;
            };
            match limit.checked_sub(used) {
                None | Some(Duration::ZERO) => return Err(reached(limit)),
                Some(left) => most = most.min(left),
            }
        }
        Ok(most)
    }

    /// Enters the guest, unless all are stopped.
    fn enter(&mut self, most: Duration) -> Option<Result<Exit>> {
        self.all.refresh_clock();
        let all = self.all.clone();
        let mut place = lock(&all.vcpus[self.number as usize - 1]);
        if all.is_over() {
            return None;
        }
        let vcpu = place.as_mut()?;
        let counts = all.live.of_other(self.number);
        let entered = Instant::now();
        if let Some(left) = self.left_at {
            counts.in_host.add(entered - left);
        }
        if let Some(computed) = &mut self.computed {
            computed.enter(entered);
        }
        if all.herd.enters(self.number) {
            vcpu.interrupt();
        }
        let exit = vcpu.inject().and_then(|is_interrupted| {
            if is_interrupted {
                counts.interrupts.add(1);
            }
            if let Some(drain) = &self.drain {
                drain.enters(is_interrupted);
            }
            vcpu.enter(most)
        });
        all.herd.left(self.number);
        let left = Instant::now();
        if let Some(computed) = &mut self.computed {
            let before = computed.used();
            computed.leave(entered, left);
            all.has_used(computed.used() - before);
        }
        counts.in_guest.add(left - entered);
        self.left_at = Some(left);
        let reason = exit.as_ref().ok().map(exit_reason);
        if let Some(reason) = reason {
            counts.exited(reason);
        }
        if let Some(drain) = &mut self.drain {
            drain.exited(reason.unwrap_or(ExitReason::Violation));
        }
        // Whoever stops it finds it counted.
        drop(place);
        if let Some(reason) = reason {
            self.exits.exited(reason);
        }
        Some(exit.map_err(Error::from))
    }

    /// Has the guest interrupted when it is entered next.
    fn interrupt(&self) {
        let mut place = lock(&self.all.vcpus[self.number as usize - 1]);
        if let Some(vcpu) = &mut *place {
            vcpu.interrupt();
        }
    }

    /// Sees to what the guest was left for. Returns whether it can be entered again.
    async fn see_to(&mut self, exit: Exit) -> Result<bool, Ending> {
        match exit {
            Exit::Submit => self.serve(true).await.map_err(Ending::Violation)?,
            Exit::Wait => return self.park().await,
            Exit::Halt => {
                let goes_on = self.park().await?;
                self.interrupt();
                return Ok(goes_on);
            }
            Exit::Start => self.all.start(self.number)?,
            Exit::Nudge => {
                if self.all.nudge(self.number).map_err(Ending::Violation)? {
                    self.give_way().await;
                }
            }
            Exit::Interrupted(reasons) => {
                if reasons.has(Reasons::QUANTUM) {
                    self.give_way().await;
                }
                self.serve(false).await.map_err(Ending::Violation)?;
            }
            Exit::End(End::Violation(what)) => return Err(Ending::Violation(what.into())),
            Exit::End(end) => return Err(Ending::Left(end)),
        }
        Ok(true)
    }

    /// As many turns of the driver as there is work for. Who is asleep and has something in its ring is
    /// woken by the turn.
    async fn serve(&mut self, goes_on: bool) -> Result<(), Violation> {
        if let Some(turn) = self.placement.turn_beside_poller(self.all.mode, goes_on) {
            return turn.map(drop);
        }
        while self.placement.turn()?.ended == Ended::Spent {
            self.let_others_run(DRIVER_QUANTUM).await;
        }
        Ok(())
    }

    /// As with the first processor.
    async fn let_tasks_begin(&mut self) -> Result<(), Violation> {
        if !self.all.home.let_begin().await {
            return Ok(());
        }
        self.turn_began = Instant::now();
        self.serve(false).await
    }

    /// Waits until there is something that the guest has not seen. Returns whether there is; if not,
    /// all are stopped.
    async fn park(&mut self) -> Result<bool, Ending> {
        let asleep_since = self.left_at;
        let mut pended = false;
        let goes_on = loop {
            match poll_fn(|context| self.poll_sleep(context, &mut pended)).await? {
                Some(goes_on) => break goes_on,
                // The turn has ended early.
                None => self.let_others_run(DRIVER_QUANTUM).await,
            }
        };
        if let (true, Some(drain)) = (pended, &self.drain) {
            drain.resumed();
        }
        let now = Instant::now();
        if let Some(since) = asleep_since {
            let counts = self.all.live.of_other(self.number);
            counts.parked.add(now - since);
        }
        self.left_at = Some(now);
        self.turn_began = now;
        Ok(goes_on)
    }

    fn poll_sleep(
        &mut self,
        context: &Context<'_>,
        pended: &mut bool,
    ) -> Poll<Result<Option<bool>, Ending>> {
        let poll = self.poll_parked(context);
        if let (true, false, Some(drain)) = (poll.is_pending(), *pended, &self.drain) {
            drain.parked();
        }
        *pended |= poll.is_pending();
        poll
    }

    fn poll_parked(&mut self, context: &Context<'_>) -> Poll<Result<Option<bool>, Ending>> {
        let (herd, number) = (&self.all.herd, self.number);
        let standing = self.placement.turn_parked_of(herd, number, context);
        // Registered, then looked.
        if self.all.is_over() {
            return Poll::Ready(Ok(Some(false)));
        }
        match standing {
            Err(violation) => Poll::Ready(Err(Ending::Violation(violation))),
            Ok(standing) => match standing.ended {
                Ended::Stopped => Poll::Ready(Ok(Some(false))),
                Ended::Spent => Poll::Ready(Ok(None)),
                Ended::Done if standing.has_news => Poll::Ready(Ok(Some(true))),
                Ended::Done if standing.is_stuck => Poll::Ready(Err(Ending::Deadlock)),
                Ended::Done => Poll::Pending,
            },
        }
    }

    /// As with the first processor.
    async fn let_sinks_catch_up(&mut self) {
        let Some(drain) = &self.drain else {
            return;
        };
        poll_fn(|context| {
            self.all.herd.register(self.number, context.waker());
            // Registered, then looked.
            match self.all.is_over() {
                true => Poll::Ready(()),
                false => drain.poll_room(context),
            }
        })
        .await;
    }

    async fn let_others_run(&mut self, after: Duration) {
        if self.turn_began.elapsed() >= self.all.quantum.min(after) {
            self.give_way().await;
        }
    }

    async fn give_way(&mut self) {
        tokio::task::yield_now().await;
        self.turn_began = Instant::now();
    }
}
