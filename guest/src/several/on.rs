//! A guest that may have several processors.
//!
//! Each has a [`Runtime`] of its own, which it finds through its own control page. What all have in common is in
//! [`Common`], where each has a [`Seat`]: what others reach of it.
//!
//! A processor that finds nothing to do says so ([`Sleepers`]), looks once more, and sleeps. The sleep itself and what
//! ends it are argued in [`wakebox_abi::wake`].

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::Waker;

use wakebox_abi::memory::{Control, Counter, MappedControl, Word};
use wakebox_abi::port;
use wakebox_abi::wake::{self, Sleep};

use crate::executor::Executor;
use crate::lock::Locked;
use crate::machine;
use crate::processor;
use crate::processor::{GlobalQueue, Header, LocalQueue, Register, Sleepers};
use crate::runtime::{Runtime, try_runtime};
use crate::told::{Tasks, Told};
use crate::word;

/// How long, in nanoseconds, the end of a guest waits for what others have printed: a processor that computes may not
/// listen at all.
const LAST_WORDS_NS: u64 = 100_000_000;

/// What all processors have in common.
pub(crate) type Shared<T> = &'static T;

/// Makes what all have in common, or takes it from the first.
pub(crate) fn share<T>(first: Option<&&'static T>, make: impl FnOnce() -> T) -> &'static T {
    match first {
        Some(first) => first,
        None => Box::leak(Box::new(make())),
    }
}

/// What all have in common, by itself.
pub(crate) const fn common<T>(shared: &&'static T) -> &'static T {
    shared
}

/// The latest time that was told, on any processor.
#[derive(Debug)]
pub(crate) struct Latest(AtomicU64);

impl Latest {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn advance_to(&self, ns: u64) {
        if ns > self.get() {
            self.0.fetch_max(ns, Ordering::Relaxed);
        }
    }
}

/// Makes a task at the home of an executor.
pub(crate) type Birth = Box<dyn FnOnce(&'static Executor) + Send>;

/// What others reach of a processor.
pub(crate) struct Seat {
    pub(crate) control: MappedControl,
    pub(crate) queue: LocalQueue<Header>,
    /// Tasks that others have made for it, and that have not begun.
    unborn: Locked<VecDeque<Birth>>,
    has_unborn: AtomicBool,
    /// Tasks that any may run and that this one has made.
    pub(crate) register: Register,
}

impl Seat {
    /// Drops what others have made. Returns whether there was anything.
    pub(crate) fn drop_unborn(&self) -> bool {
        let unborn = {
            let mut unborn = self.unborn.borrow_mut();
            self.has_unborn.store(false, Ordering::Relaxed);
            core::mem::take(&mut *unborn)
        };
        !unborn.is_empty()
    }

    /// Begins what others have made.
    pub(crate) fn bear(&self, executor: &'static Executor) {
        while self.has_unborn.load(Ordering::Relaxed) {
            let birth = {
                let mut unborn = self.unborn.borrow_mut();
                let birth = unborn.pop_front();
                self.has_unborn.store(!unborn.is_empty(), Ordering::Relaxed);
                birth
            };
            if let Some(birth) = birth {
                birth(executor);
            }
        }
    }
}

/// See the module.
pub(crate) struct Common {
    pub(crate) count: u32,
    pub(crate) seats: Box<[Seat]>,
    pub(crate) global: GlobalQueue<Header>,
    /// A bit for each that was started.
    started: AtomicU64,
    sleepers: Sleepers,
    /// One more than the number of the processor that ends the guest, or zero.
    ending: AtomicU32,
    main_ended: AtomicBool,
    /// A bit for each that has no more to say.
    aside: AtomicU64,
}

// SAFETY: tasks in queues are `Send`, and each pointer to one is in one queue.
unsafe impl Sync for Common {}
// SAFETY: as above.
unsafe impl Send for Common {}

impl Common {
    /// That of a guest whose processors have these control pages, of which the first runs.
    pub(crate) fn new(controls: impl ExactSizeIterator<Item = MappedControl>) -> Self {
        Self {
            count: controls.len() as u32,
            seats: controls
                .map(|control| Seat {
                    control,
                    queue: LocalQueue::new(),
                    unborn: Locked::new(VecDeque::new()),
                    has_unborn: AtomicBool::new(false),
                    register: Register::new(Tasks::new()),
                })
                .collect(),
            global: GlobalQueue::new(),
            started: AtomicU64::new(1),
            sleepers: Sleepers::new(),
            ending: AtomicU32::new(0),
            main_ended: AtomicBool::new(false),
            aside: AtomicU64::new(0),
        }
    }

    /// Whether main has ended.
    pub(crate) fn has_main_ended(&self) -> bool {
        self.main_ended.load(Ordering::Relaxed)
    }

    /// Has a processor look whether others have left something for it.
    fn post(&self, processor: u32) {
        if wake::post(&self.seats[processor as usize].control)
            && let Some(runtime) = try_runtime()
        {
            runtime.ring_for(processor, port::NUDGE);
        }
    }

    /// Has one that sleeps look for tasks, or starts another if none does. For who has put a task into a queue.
    pub(crate) fn call_one(&self, runtime: &Runtime) {
        if self.count == 1 {
            return;
        }
        if let Some(processor) = self.sleepers.call() {
            return self.post(processor);
        }
        let next = self.started.load(Ordering::Relaxed).trailing_ones();
        if next < self.count {
            self.start(runtime, next);
        }
    }

    /// Starts a processor, unless somebody has.
    fn start(&self, runtime: &Runtime, processor: u32) {
        let bit = 1 << processor;
        if self.started.load(Ordering::Relaxed) & bit != 0
            || self.started.fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            return;
        }
        word::others_begin();
        let control = &self.seats[processor as usize].control;
        let entry = machine::entry_of_others() as u64;
        control.store_address(
            Word::StartEntry,
            Word::StartEntryHigh,
            entry,
            Ordering::Relaxed,
        );
        runtime.ring_for(processor, port::START);
    }

    /// Has a task made at the home of a processor.
    pub(crate) fn give(&self, runtime: &Runtime, processor: u32, birth: Birth) {
        let seat = &self.seats[processor as usize];
        {
            let mut unborn = seat.unborn.borrow_mut();
            unborn.push_back(birth);
            seat.has_unborn.store(true, Ordering::Relaxed);
        }
        self.start(runtime, processor);
        if processor != runtime.here.number {
            self.post(processor);
        }
    }
}

/// Where a task or a waker is at home.
#[derive(Clone, Copy)]
pub(crate) struct Whereabouts(Option<(&'static Common, u32)>);

impl core::fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map(|(_, number)| number).fmt(f)
    }
}

impl Whereabouts {
    /// The one processor that there is.
    #[cfg(any(feature = "interrupt", test))]
    pub(crate) const ONLY: Self = Self(None);

    /// The number of a task that no other has, of which this is the so-manyth of its processor.
    #[inline]
    pub(crate) const fn number(self, spawned: u32) -> u32 {
        match self.0 {
            Some((common, processor)) => {
                let before = spawned.wrapping_sub(1);
                before
                    .wrapping_mul(common.count)
                    .wrapping_add(processor + 1)
            }
            None => spawned,
        }
    }

    /// Something was left there. It may be here.
    #[inline]
    pub(crate) fn post(self) {
        if let Some((common, processor)) = self.0 {
            common.post(processor);
        }
    }
}

/// This processor among the others.
pub(crate) struct Here {
    pub(crate) common: &'static Common,
    pub(crate) number: u32,
    /// How often others had posted before the last look at what they leave.
    posts: Cell<u32>,
    /// Tasks of all that were looked for.
    pub(crate) ticks: Cell<u32>,
    /// The task of all that is being polled.
    pub(crate) polled: Cell<Option<NonNull<Header>>>,
}

impl core::fmt::Debug for Here {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Here")
            .field("number", &self.number)
            .field("count", &self.common.count)
            .finish_non_exhaustive()
    }
}

impl Here {
    pub(crate) fn new(common: &'static Common, number: u32) -> Self {
        Self {
            common,
            number,
            posts: Cell::new(0),
            ticks: Cell::new(number),
            polled: Cell::new(None),
        }
    }

    pub(crate) fn seat(&self) -> &'static Seat {
        &self.common.seats[self.number as usize]
    }

    const fn bit(&self) -> u64 {
        1 << self.number
    }

    pub(crate) const fn whereabouts(&self) -> Whereabouts {
        Whereabouts(Some((self.common, self.number)))
    }

    /// Before the last look at what others leave.
    #[inline]
    pub(crate) fn note_posts(&self, control: &MappedControl) {
        self.posts.set(wake::posts(control));
    }

    /// Whether others have posted since.
    #[inline]
    pub(crate) fn has_posts(&self, control: &MappedControl) -> bool {
        wake::posts(control) != self.posts.get()
    }

    /// Whether there are others that may post.
    pub(crate) fn expects_posts(&self) -> bool {
        self.common.started.load(Ordering::Relaxed) & !self.bit() != 0
    }

    pub(crate) fn may_sleep(&self, control: &MappedControl, how: Sleep, seen: u32) -> bool {
        wake::guest_may_sleep_after(control, how, seen, self.posts.get())
    }

    /// What the other processors had counted when they rang or slept last.
    pub(crate) fn counted_by_others(&self, counter: Counter) -> u64 {
        let others = (0..).zip(&self.common.seats);
        let others = others.filter(|(number, _)| *number != self.number);
        let counted =
            |(_, seat): (u32, &Seat)| seat.control.counter(counter).load(Ordering::Relaxed);
        others.map(counted).sum()
    }

    /// What the task of all that is being polled tells, and its name.
    pub(crate) fn polled(&self) -> Option<(&Told, &'static str)> {
        let task = self.polled.get()?;
        // SAFETY: it is set while the task is being polled, by who has a reference of it.
        let header = unsafe { task.as_ref() };
        Some((header.told(), header.name()))
    }

    /// Where the host finds the tasks of all that this processor has made.
    pub(crate) fn tasks_of_all(&self) -> usize {
        self.seat().register.borrow().address()
    }

    /// Tells of them whoever watches from now on.
    pub(crate) fn tell_of_tasks(&self) {
        processor::tell_of_tasks(&self.seat().register);
    }

    pub(crate) fn main_ended(&self) {
        self.common.main_ended.store(true, Ordering::Relaxed);
    }

    /// Whether another processor ends the guest.
    pub(crate) fn is_ending(&self) -> bool {
        let ending = self.common.ending.load(Ordering::Relaxed);
        ending != 0 && ending != self.number + 1
    }

    /// Where something is of which there is one, and which its processor's runtime has.
    ///
    /// # Panics
    ///
    /// If this is not the first processor.
    #[track_caller]
    pub(crate) fn assert_first(&self, what: &str) {
        assert!(
            self.number == 0,
            "{what} belongs to processor 0, and this is processor {}: use it in a task of that one",
            self.number
        );
    }
}

impl Runtime {
    /// Rings for another processor.
    fn ring_for(&self, processor: u32, port: u16) {
        self.control
            .store(Word::Target, processor, Ordering::Relaxed);
        machine::ring(port);
    }

    /// Whether there is something that others have left, or that any may run, and that is found without looking far.
    #[inline]
    pub(crate) fn has_shared(&self) -> bool {
        let seat = self.here.seat();
        seat.queue.len() > 0
            || seat.has_unborn.load(Ordering::Relaxed)
            || self.here.common.global.len() > 0
            || self.here.is_ending()
    }

    /// Says that this processor has nothing to do, and looks once more, everywhere. Returns whether it has.
    pub(crate) fn is_called(&self) -> bool {
        let common = self.here.common;
        if common.count > 1 {
            common.sleepers.enter(self.here.number);
        }
        self.here.note_posts(&self.control);
        let is_called = self.has_ready() || common.count > 1 && common.has_tasks();
        if is_called {
            self.is_back();
        }
        is_called
    }

    /// This processor has something to do again.
    pub(crate) fn is_back(&self) {
        self.here.common.sleepers.leave(self.here.number);
    }

    /// Runs what the others give to this processor, until one of them ends the guest.
    pub(crate) fn serve_others(&'static self) {
        self.show_tasks();
        self.run_until(|| self.here.is_ending());
        self.stand_aside();
    }

    /// If another processor ends the guest, this goes no further.
    pub(crate) fn end_if_others_do(&'static self) {
        if self.here.is_ending() {
            self.stand_aside();
            self.park();
        }
    }

    /// Has the others say their last words, and drops what nobody runs any more. If another ends the guest, this goes no
    /// further.
    pub(crate) fn end_others(&'static self) {
        let common = self.here.common;
        if common.count > 1 {
            self.have_others_stand_aside();
        }
        if common.has_main_ended() {
            self.drop_shared();
            self.flush_console();
        }
    }

    fn have_others_stand_aside(&'static self) {
        let (here, common) = (&self.here, self.here.common);
        let own = here.number + 1;
        let claimed = common
            .ending
            .compare_exchange(0, own, Ordering::AcqRel, Ordering::Relaxed);
        if claimed.is_err_and(|by| by != own) {
            self.stand_aside();
            self.park();
        }
        let others = common.started.load(Ordering::Relaxed) & !here.bit();
        let each = (0..common.count).filter(|processor| others & 1 << processor != 0);
        each.for_each(|processor| common.post(processor));
        let end = self.now_ns() + LAST_WORDS_NS;
        let timer = self.timers.borrow_mut().insert(end, Waker::noop().clone());
        self.wait_until(|| {
            common.aside.load(Ordering::Acquire) & others == others || self.now_ns() >= end
        });
        drop(self.timers.borrow_mut().remove(timer));
    }

    /// Says what there is to say and lets another end the guest.
    fn stand_aside(&'static self) {
        let common = self.here.common;
        if common.has_main_ended() {
            self.executor.abort_all();
        }
        self.flush_console();
        common.aside.fetch_or(self.here.bit(), Ordering::Release);
        common.post(common.ending.load(Ordering::Relaxed) - 1);
    }

    /// Sleeps to the end.
    pub(crate) fn park(&self) -> ! {
        loop {
            self.here.note_posts(&self.control);
            self.process_completions();
            self.sleep();
        }
    }
}
