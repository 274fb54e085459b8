//! The runtime: what a running guest has one of, and the loop that drives it.
//!
//! ```text
//!   .-> read completions, fire timers      who waited for them is ready now
//!   |   (urgent tasks, if there are any)   here, and whenever an upcall comes: crate::interrupt
//!   |   poll what is ready, once           operations and timers are set, text is printed
//!   |   publish all submissions at once
//!   '-- something still ready?  yes: ring if nobody looks    no: sleep (crate::idle),
//!                                                            then look for a restore (crate::restore)
//! ```

mod addresses;
mod find;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::Cell;
use core::future::Future;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use wakebox_abi::boot::{Boot, Clock, Features, Instance};
use wakebox_abi::entry::{Completion, Submission};
use wakebox_abi::memory::{Control, Counter, MappedControl, MappedSlots, Word};
use wakebox_abi::op::Deadline;
use wakebox_abi::port;
use wakebox_abi::task::State;

use crate::buf::Arena;
use crate::console::Console;
use crate::env::Words;
use crate::executor::{Counts, Executor, Home};
use crate::idle::Idle;
use crate::io::Stdin;
use crate::machine;
use crate::mask::{self, MaskedCell};
use crate::reactor::{Event, Outcome, Owner, Reactor};
use crate::restore::Restores;
#[cfg(any(feature = "getrandom", feature = "getrandom-02"))]
use crate::several::SharedCell;
use crate::several::{self, Here, Latest, Shared, Whereabouts, share};
use crate::time::{Duration, sleep};
use crate::timers::Timers;
use crate::told;
use crate::trace::{self, Reason};
use crate::wait_queue::Key;

pub(crate) use self::addresses::Addresses;
#[cfg(all(feature = "processors", not(test)))]
pub(crate) use self::find::first_runtime;
pub(crate) use self::find::{install, runtime, try_runtime};

/// Whether a future that is run in the middle of a poll was woken.
struct Woken {
    woken: AtomicBool,
    /// Where it is run.
    place: Whereabouts,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Release, with the Acquire in `block_here`: what the waker's caller wrote is visible to the poll.
        self.woken.store(true, Ordering::Release);
        self.place.post();
    }
}

/// Everything that a processor of a running guest has one of.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) here: Here,
    pub(crate) boot: Boot,
    pub(crate) control: MappedControl,
    clock: &'static Clock,
    /// What sets this sandbox apart from others of its template; another after a restore.
    pub(crate) instance: &'static Instance,
    pub(crate) restores: Restores,
    /// Arguments and environment as they were read last.
    pub(crate) words: Cell<Option<Words>>,
    pub(crate) executor: Executor,
    pub(crate) reactor: Reactor,
    pub(crate) arena: Shared<Arena>,
    pub(crate) timers: MaskedCell<Timers>,
    #[cfg(feature = "embassy-time")]
    pub(crate) alarms: MaskedCell<crate::alarms::Alarms>,
    #[cfg(any(feature = "getrandom", feature = "getrandom-02"))]
    pub(crate) generator: Shared<SharedCell<crate::generator::Generator>>,
    pub(crate) console: Console,
    pub(crate) stdin: Stdin,
    pub(crate) idle: Idle,
    /// Latest time told, so that the clock never goes back.
    latest: Shared<Latest>,
    /// The deadline that the host knows of.
    armed: Cell<Option<Armed>>,
    /// Deadline operations in flight, with those that were cancelled.
    deadlines: Cell<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    key: Key,
    at_ns: u64,
}

/// Most Deadline operations in flight: the one that counts, and one that it replaces.
const MAX_DEADLINES: u32 = 2;

/// How long the end of a guest waits for peers that do not take what was written to them, and how long a connection does that was
/// dropped.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

/// How many turns go by between two looks at the clock, if nobody asks for the time: a look takes as long as two polls.
const TURNS_A_LOOK: u64 = 64;

impl Runtime {
    /// A runtime for what the boot page says; `first` is that of the first processor, if it is another.
    ///
    /// # Safety
    ///
    /// The boot page tells the truth: its ranges are mapped, large enough, and used
    /// by nobody else but the host; the control page and the rings are fresh. The stack
    /// it names marks `home` as [`Home::stack`] wants it.
    pub(crate) unsafe fn new(
        boot: Boot,
        addresses: &Addresses,
        home: Home,
        here: Here,
        first: Option<&'static Self>,
    ) -> Self {
        let (arena, console, control);
        let (submissions, completions);
        // SAFETY: the caller's promise.
        unsafe {
            control = addresses.control;
            submissions =
                MappedSlots::<{ Submission::WORDS }>::new(addresses.submissions, boot.submissions);
            completions =
                MappedSlots::<{ Completion::WORDS }>::new(addresses.completions, boot.completions);
            arena = share(first.map(|first| &first.arena), || {
                Arena::new(boot.arena.start as usize, boot.arena.len as usize)
            });
            console = Console::new(several::common(&arena));
        }
        Self {
            here,
            boot,
            control,
            clock: addresses.clock,
            instance: addresses.instance,
            restores: Restores::new(addresses.instance),
            words: Cell::new(None),
            executor: Executor::new(home),
            reactor: Reactor::new(control, submissions, completions),
            arena,
            timers: MaskedCell::new(Timers::new()),
            #[cfg(feature = "embassy-time")]
            alarms: MaskedCell::new(crate::alarms::Alarms::new()),
            #[cfg(any(feature = "getrandom", feature = "getrandom-02"))]
            generator: share(first.map(|first| &first.generator), || {
                SharedCell::new(crate::generator::Generator::new(&addresses.instance.read()))
            }),
            console,
            stdin: Stdin::new(),
            idle: Idle::new(&boot),
            latest: share(first.map(|first| &first.latest), Latest::new),
            armed: Cell::new(None),
            deadlines: Cell::new(0),
        }
    }

    /// Runs a future as the first task, and everything that it spawns, until it is ready.
    /// Tasks that have not ended by then are dropped.
    pub(crate) fn block_on<F: Future + 'static>(&'static self, main: F) -> F::Output {
        self.show_tasks();
        let mut main = self.executor.spawn(Some("main".into()), main);
        self.run_until(|| main.is_finished());
        if self.reactor.posted() > 0 {
            let long_enough = self.executor.spawn(Some("linger".into()), sleep(LINGER));
            self.run_until(|| self.reactor.posted() == 0 || long_enough.is_finished());
        }
        self.here.main_ended();
        self.executor.abort_all();
        let Some(output) = main.take() else {
            unreachable!("nobody but this function has the handle of main");
        };
        output
    }

    /// Tells the host where it finds the tasks.
    pub(crate) fn show_tasks(&self) {
        let mut more = self.here.tasks_of_all();
        for executor in mask::urgent_executors() {
            executor.tasks().is_followed_by(more);
            more = executor.tasks().address();
        }
        let tasks = self.executor.tasks().address();
        for (low, high, address) in [
            (Word::Tasks, Word::TasksHigh, tasks),
            (Word::MoreTasks, Word::MoreTasksHigh, more),
            #[cfg(all(feature = "trace", not(test)))]
            (Word::Large, Word::LargeHigh, crate::large::address()),
        ] {
            let address = address as u64;
            self.control
                .store_address(low, high, address, Ordering::Relaxed);
        }
    }

    /// Runs tasks until `done` says so, which is asked after each turn.
    #[inline(always)]
    pub(crate) fn run_until(&'static self, done: impl Fn() -> bool) {
        let mut masked = mask::mask();
        loop {
            self.process_completions();
            // Urgent tasks that are ready now have their turn.
            drop(masked);
            if self
                .executor
                .counts()
                .turns
                .get()
                .is_multiple_of(TURNS_A_LOOK)
            {
                self.now_ns();
            }
            self.executor.turn();
            self.turn_of_shared();
            // From the last look for what is ready to the sleep nothing may come.
            masked = mask::mask();
            if done() {
                break;
            }
            self.end_if_others_do();
            let stuck = self.submit();
            if trace::is_crowded() {
                machine::ring(port::SUBMIT);
            }
            if stuck || self.has_ready() || self.is_called() {
                self.ring_if_unseen();
            } else {
                self.sleep();
                // How late it is for the tasks that are polled now.
                self.now_ns();
                self.is_back();
                // Before `process_completions`: who is restored knows it before anything else.
                self.restores.look(self.instance);
            }
        }
        mask::end();
        drop(masked);
    }

    /// The executor of the priority at which this is called.
    #[inline(always)]
    pub(crate) fn executor(&'static self) -> &'static Executor {
        #[cfg(all(feature = "interrupt", not(test)))]
        return crate::interrupt::current(&self.executor);
        #[cfg(any(not(feature = "interrupt"), test))]
        &self.executor
    }

    /// Whether there is something to poll. Upcalls are masked.
    pub(crate) fn has_ready(&self) -> bool {
        #[cfg(all(feature = "interrupt", not(test)))]
        if crate::interrupt::is_ready() {
            return true;
        }
        self.executor.has_ready() || self.has_shared()
    }

    /// Calls `f` with the name of the task that is being polled, if one is.
    pub(crate) fn with_current_name<R>(&'static self, f: impl FnOnce(Option<&str>) -> R) -> R {
        match self.here.polled() {
            Some((_, name)) => f(Some(name)),
            None => self.executor().with_current_name(f),
        }
    }

    /// Notes what the task that is being polled will wait for.
    #[inline(always)]
    pub(crate) fn waits_for(&'static self, what: State, detail: u64) {
        match self.here.polled() {
            Some((told, _)) => told.wait(what, detail),
            None => self.executor().waits_for(what, detail),
        }
    }

    /// The number of the task that is being polled; zero if none is.
    pub(crate) fn current_number(&'static self) -> u32 {
        match self.here.polled() {
            Some((told, _)) => told.number(),
            None => self.executor().current_number(),
        }
    }

    /// Tells of all tasks whoever watches from now on.
    pub(crate) fn tell_of_tasks(&self) {
        self.executor.tell_of_tasks();
        for executor in mask::urgent_executors() {
            executor.tell_of_tasks();
        }
        self.here.tell_of_tasks();
    }

    /// Reads all completions and fires all timers that are due. Upcalls are masked.
    pub(crate) fn process_completions(&self) {
        while let Some(event) = self.reactor.next_event() {
            match event {
                Event::Wake(waker, why) => trace::because(why, || waker.wake()),
                Event::Drop(orphan, why, waker) => trace::because(why, || {
                    drop(orphan);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }),
                Event::Console(buf) => self.console.recycle(buf),
                Event::Deadline(key, outcome) => self.deadline_ended(key, outcome),
                Event::Stale => {}
            }
        }
        let next = self.next_timer();
        if next.is_some_and(|next| next <= self.now_ns()) {
            let now = self.latest.get();
            while let Some((waker, timer)) = self.fire(now) {
                trace::because(Reason::Timer(timer), || waker.wake());
            }
        }
    }

    /// When the nearest timer is due.
    #[inline]
    pub(crate) fn next_timer(&self) -> Option<u64> {
        let next = self.timers.borrow().next();
        #[cfg(feature = "embassy-time")]
        let next = next.into_iter().chain(self.alarms.borrow().next()).min();
        next
    }

    /// Fires one timer that is due, and returns whom to wake, and the number of the timer.
    fn fire(&self, now: u64) -> Option<(Waker, u64)> {
        let due = self.timers.borrow_mut().fire(now);
        #[cfg(feature = "embassy-time")]
        let due = due.or_else(|| self.alarms.borrow_mut().fire(now));
        due
    }

    /// Shows the host everything that there is to show. Returns whether something stays
    /// behind for want of a slot of the ring.
    pub(crate) fn submit(&self) -> bool {
        self.console.submit(&self.reactor);
        self.flush()
    }

    /// The same, but for what is printed.
    pub(crate) fn flush(&self) -> bool {
        self.reactor.flush(several::common(&self.arena).is_wanted())
    }

    /// Rings the doorbell if the host would not see the submissions otherwise.
    pub(crate) fn ring_if_unseen(&self) {
        if self.reactor.must_ring() {
            self.publish_counters();
            machine::ring(port::SUBMIT);
        }
    }

    /// Waits, without polling any task, until `done` says so. `done` depends on completions.
    ///
    /// It does not look for a restore, whose hooks have no business in the middle of a task: no template
    /// is taken while console output, the one thing waited for here, is under way.
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
        loop {
            self.reactor.want();
            if self.wait_for_more(&done, || ()) {
                return;
            }
        }
    }

    /// Submits, takes what is completed, and sleeps until there is more, unless `done` says that this was it.
    /// Returns whether it did. `slept` is done after a sleep.
    fn wait_for_more(&self, done: impl Fn() -> bool, slept: impl FnOnce()) -> bool {
        let _masked = mask::mask();
        self.here.note_posts(&self.control);
        let stuck = self.submit();
        self.process_completions();
        if done() {
            return true;
        }
        if stuck {
            self.ring_if_unseen();
        } else {
            self.sleep();
            slept();
        }
        false
    }

    /// Runs a future to its end, without polling any task: whoever calls this is one that is being polled.
    pub(crate) fn block_here<F: Future>(&self, future: F) -> F::Output {
        let mut future = core::pin::pin!(future);
        let woken = Arc::new(Woken {
            woken: AtomicBool::new(true),
            place: self.here.whereabouts(),
        });
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            if woken.woken.swap(false, Ordering::Acquire)
                && let Poll::Ready(output) = future.as_mut().poll(&mut context)
            {
                return output;
            }
            self.wait_for_more(
                || woken.woken.load(Ordering::Relaxed),
                || self.restores.look(self.instance),
            );
        }
    }

    /// Waits until everything printed has been taken by the host.
    pub(crate) fn flush_console(&self) {
        self.wait_until(|| self.console.is_empty());
    }

    /// Waits until everything written to connections has been taken, for [`LINGER`] at most.
    fn send_posted(&self) {
        if self.reactor.posted() == 0 {
            return;
        }
        let end = self.now_ns().saturating_add(LINGER.as_nanos() as u64);
        // So that there is an end if nothing else comes.
        self.timers.borrow_mut().insert(end, Waker::noop().clone());
        self.wait_until(|| self.reactor.posted() == 0 || self.now_ns() >= end);
    }

    /// Ends the guest.
    pub(crate) fn exit(&'static self, code: i32) -> ! {
        core::mem::forget(mask::mask());
        self.flush_console();
        self.send_posted();
        self.end_others();
        self.publish_counters();
        self.control
            .store(Word::ExitCode, code.cast_unsigned(), Ordering::Relaxed);
        loop {
            machine::ring(port::EXIT);
        }
    }

    // Time ------------------------------------------------------------------------------

    /// Whether the time-stamp counter tells the time between two looks at the clock page.
    pub(crate) fn has_tsc(&self) -> bool {
        Features(self.boot.features).has(Features::TSC_CLOCK)
    }

    /// Monotonic nanoseconds since the sandbox was made.
    pub(crate) fn now_ns(&self) -> u64 {
        let moment = self.clock.read();
        self.advance_to(moment.monotonic_ns + self.since(&moment));
        let now = self.latest.get();
        told::clock_shows(now);
        now
    }

    /// Nanoseconds since 1970 on the host's wall clock.
    pub(crate) fn wall_ns(&self) -> u64 {
        let moment = self.clock.read();
        moment.wall_ns + self.since(&moment)
    }

    fn since(&self, moment: &wakebox_abi::boot::Moment) -> u64 {
        if self.has_tsc() {
            moment.elapsed_ns(machine::ticks())
        } else {
            0
        }
    }

    /// Takes note that it is at least this late.
    pub(crate) fn advance_to(&self, ns: u64) {
        let _masked = mask::mask();
        self.latest.advance_to(ns);
    }

    /// Makes the host's deadline that of the nearest timer. Upcalls are masked.
    ///
    /// A deadline that is too early is left alone: it costs one wake-up at most, and a
    /// server that sets and drops a timeout for each request does not touch it at all.
    pub(crate) fn arm_deadline(&self) {
        let next = self.next_timer();
        match (self.armed.get(), next) {
            (None, None) => {}
            (Some(armed), Some(next)) if armed.at_ns <= next => {}
            (armed, next) => {
                if let Some(armed) = armed {
                    self.reactor.cancel(armed.key);
                    self.armed.set(None);
                }
                // At the limit the end of a cancelled one brings us back here.
                if let Some(at_ns) = next
                    && self.deadlines.get() < MAX_DEADLINES
                {
                    self.deadlines.set(self.deadlines.get() + 1);
                    let request = Deadline { at_ns }.into();
                    let key = self.reactor.submit_urgent(request, Owner::Deadline);
                    self.armed.set(Some(Armed { key, at_ns }));
                }
            }
        }
    }

    fn deadline_ended(&self, key: Key, outcome: Outcome) {
        self.deadlines.set(self.deadlines.get() - 1);
        if let Some(armed) = self.armed.get()
            && armed.key == key
        {
            self.armed.set(None);
            // The host's clock has reached it, so ours has, even if it lags a little.
            if outcome.is_ok() {
                self.advance_to(armed.at_ns);
            }
        }
    }

    // Counters ----------------------------------------------------------------------------

    /// Writes the counters to the control page, for whoever asks.
    pub(crate) fn publish_counters(&self) {
        for (counter, value) in self.counters() {
            self.control
                .counter(counter)
                .store(value, Ordering::Relaxed);
        }
    }

    /// All counters.
    pub(crate) fn counters(&self) -> [(Counter, u64); Counter::ALL.len()] {
        let executors = || core::iter::once(&self.executor).chain(mask::urgent_executors());
        let sum = |count: fn(&Counts) -> &Cell<u64>| {
            executors()
                .map(|executor| count(executor.counts()).get())
                .sum()
        };
        let operations = self.reactor.counts();
        let idle = self.idle.counts();
        Counter::ALL.map(|counter| {
            let value = match counter {
                Counter::Turns => sum(|counts| &counts.turns),
                Counter::Polls => sum(|counts| &counts.polls),
                Counter::Spawned => sum(|counts| &counts.spawned),
                Counter::Completed => sum(|counts| &counts.completed),
                Counter::Wakes => sum(|counts| &counts.wakes),
                Counter::Operations => operations.operations,
                Counter::Completions => operations.completions,
                Counter::Cancels => operations.cancels,
                Counter::WokenByMemory => idle.by_memory.get(),
                Counter::WokenByOut => idle.by_out.get(),
                Counter::WokenByInterrupt => idle.by_interrupt.get(),
                Counter::Upcalls => mask::upcalls(),
            };
            (counter, value)
        })
    }

    /// Whether no part is at work, so that a panic handler may use it.
    pub(crate) fn is_calm(&self) -> bool {
        let calm = !self.reactor.is_busy() && !self.console.is_busy() && !self.timers.is_borrowed();
        #[cfg(feature = "embassy-time")]
        let calm = calm && !self.alarms.is_borrowed();
        calm
    }
}
