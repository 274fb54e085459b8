//! The executor: polls what is ready, first in, first out.
//!
//! Each virtual processor has one, which is the *home* of its tasks. Home alone
//! polls, and home alone drops futures and outputs, so neither has to be `Send`.
//! Wakers may go anywhere. A waker used at home puts its task straight into the run
//! queue; one used elsewhere leaves it in an inbox that home empties once a turn.
//! Which of the two it is, the stack pointer tells ([`Home`]).
//!
//! ```text
//!   at home:    wake --> run queue --.
//!   elsewhere:  wake --> inbox --.   |
//!                                v   v
//!   turn():                  empty the inbox, then poll what was ready
//!                            at the start of the turn, in order
//! ```
//!
//! A turn is bounded: what wakes itself while it is polled is polled again in the next
//! turn, after the reactor has looked at the rings.

mod join;
mod queue;
mod task;
#[cfg(test)]
mod tests;
mod waker;

use alloc::borrow::Cow;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::panic::Location;

use wakebox_abi::task::State;

pub use self::join::{JoinError, JoinHandle};
use self::queue::{Inbox, RunQueue};
use self::task::{Flags, TaskRef};
use crate::mask;
use crate::several::Whereabouts;
use crate::told::Tasks;
use crate::trace::{self, Reason, What};

/// The stack that marks home: code whose stack pointer lies in it runs at home.
#[derive(Debug)]
pub(crate) struct Home {
    start: usize,
    len: usize,
    /// Of those priorities that use the same stack.
    level: u8,
    /// Of which processor.
    place: Whereabouts,
}

impl Home {
    /// A home where nobody ever is: every wake takes the way through the inbox.
    #[cfg(test)]
    pub(crate) const NOWHERE: Self = Self {
        start: 0,
        len: 0,
        level: 0,
        place: Whereabouts::ONLY,
    };

    /// A home marked by a stack.
    ///
    /// # Safety
    ///
    /// The range is used as a stack only by the flow of control that polls the
    /// executor and drops it and its handles, for as long as wakers of it exist.
    pub(crate) const unsafe fn stack(start: usize, len: usize, place: Whereabouts) -> Self {
        Self {
            start,
            len,
            level: 0,
            place,
        }
    }

    /// The same, of a processor.
    #[cfg(test)]
    pub(crate) const fn at(mut self, place: Whereabouts) -> Self {
        self.place = place;
        self
    }

    /// The home of urgent tasks: where code runs at this level, as upcalls and the runtime know it.
    #[cfg(all(feature = "interrupt", not(test)))]
    pub(crate) const fn level(level: u8) -> Self {
        Self {
            start: 0,
            len: 0,
            level,
            place: Whereabouts::ONLY,
        }
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        if let Some(is_here) = mask::is_home(self.level) {
            return is_here;
        }
        let on_the_stack = 0_u8;
        let address = (&raw const on_the_stack).addr();
        address.wrapping_sub(self.start) < self.len
    }
}

/// What an executor has done so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) turns: Cell<u64>,
    pub(crate) polls: Cell<u64>,
    pub(crate) spawned: Cell<u64>,
    pub(crate) completed: Cell<u64>,
    pub(crate) wakes: Cell<u64>,
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// An executor. It lives for ever, because wakers may reach for it at any time.
pub(crate) struct Executor {
    /// Read from everywhere.
    home: Home,
    /// Written from everywhere.
    inbox: Inbox,
    // All that follows is touched at home only.
    ready: RunQueue,
    tasks: Tasks,
    current: Cell<Option<TaskRef>>,
    counts: Counts,
}

// SAFETY: wakers elsewhere reach `home`, which never changes, and `inbox`, which is made
// of atomics. Everything else is private to home: tasks and handles are not `Send`, and
// a waker looks for home before it takes the direct way.
unsafe impl Sync for Executor {}

impl Executor {
    /// An executor without tasks.
    pub(crate) const fn new(home: Home) -> Self {
        Self {
            home,
            inbox: Inbox::new(),
            ready: RunQueue::new(),
            tasks: Tasks::new(),
            current: Cell::new(None),
            counts: Counts {
                turns: Cell::new(0),
                polls: Cell::new(0),
                spawned: Cell::new(0),
                completed: Cell::new(0),
                wakes: Cell::new(0),
            },
        }
    }

    /// Makes a task of a future and puts it at the end of the run queue.
    ///
    /// Call it at home.
    #[inline]
    #[track_caller]
    pub(crate) fn spawn<F: Future + 'static>(
        &'static self,
        name: Option<Cow<'static, str>>,
        future: F,
    ) -> JoinHandle<F::Output> {
        let location = Location::caller();
        // What no task has made is the runtime's, and its location says nothing.
        let place = self.current.get().map(|_| location);
        let names = (name, core::any::type_name::<F>());
        self.spawn_by(trace::current(), place, location, names, future)
    }

    /// The same of a task that was made elsewhere, of something of that type: on another processor, or of another
    /// priority.
    #[cfg(any(feature = "processors", feature = "interrupt", test))]
    pub(crate) fn spawn_from_afar<F: Future + 'static>(
        &'static self,
        (by, location): (u32, &'static Location<'static>),
        names: (Option<Cow<'static, str>>, &'static str),
        future: F,
    ) -> JoinHandle<F::Output> {
        self.spawn_by(by, Some(location), location, names, future)
    }

    #[inline(always)]
    fn spawn_by<F: Future + 'static>(
        &'static self,
        by: u32,
        place: Option<&'static Location<'static>>,
        location: &'static Location<'static>,
        names: (Option<Cow<'static, str>>, &'static str),
        future: F,
    ) -> JoinHandle<F::Output> {
        count(&self.counts.spawned);
        let number = self
            .home
            .place
            .number(mask::number(self.counts.spawned.get()));
        let task = task::allocate(self, number, names, place, future);
        if trace::is_on() {
            trace::spawned(number, by, task.given_name(), task.name(), location);
        }
        // SAFETY: it is new, and not freed before `end` has removed it.
        unsafe { self.tasks.add(task.listed()) };
        self.ready.push(task);
        JoinHandle::new(task)
    }

    /// Those that have not ended.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn each_task(&self) -> impl Iterator<Item = TaskRef> + use<> {
        // SAFETY: `spawn` has put it there, and `end`, which takes it out, comes before it is freed.
        let task = |told| unsafe { TaskRef::from_listed(told) };
        self.tasks.iter().map(task)
    }

    /// The number of the task that is being polled; zero if none is.
    pub(crate) fn current_number(&self) -> u32 {
        self.current.get().map_or(0, TaskRef::number)
    }

    /// Notes what the task that is being polled will wait for.
    #[inline(always)]
    pub(crate) fn waits_for(&self, what: State, detail: u64) {
        if let Some(task) = self.current.get() {
            task.told().wait(what, detail);
        }
    }

    /// Tells of all tasks whoever watches from now on.
    #[cold]
    pub(crate) fn tell_of_tasks(&self) {
        for task in self.each_task() {
            trace::lives(task.number(), task.given_name(), task.name());
        }
    }

    /// Whether there is something to poll.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.inbox.is_empty()
    }

    /// Polls each task that is ready now, once.
    pub(crate) fn turn(&self) {
        self.open_inbox();
        // A queued task is not freed, so its address stays its own until it is popped.
        let Some(last) = self.ready.last() else {
            return;
        };
        count(&self.counts.turns);
        while let Some(task) = self.ready.pop() {
            self.run(task);
            if task == last {
                break;
            }
        }
    }

    /// Drops the future of every task that has not ended, as if it had been aborted.
    ///
    /// Call it outside of a turn.
    pub(crate) fn abort_all(&self) {
        while let Some(task) = self.each_task().next() {
            self.abort(task);
        }
        self.open_inbox();
        while let Some(task) = self.ready.pop() {
            task.leave_queue();
            task.release_if_over();
        }
    }

    /// Calls `f` with the name of the task that is being polled, if one is.
    pub(crate) fn with_current_name<R>(&self, f: impl FnOnce(Option<&str>) -> R) -> R {
        match self.current.get() {
            Some(task) => f(Some(task.name())),
            None => f(None),
        }
    }

    /// The counters.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Queues the tasks that were woken from elsewhere, in the order of their wakes.
    fn open_inbox(&self) {
        for task in self.inbox.empty() {
            let told = trace::is_on() && !mask::KNOWS_REASON_OF_POST;
            trace::because(Reason::Elsewhere, || task.wake(false, told));
            // The inbox held a reference.
            task.release();
        }
    }

    /// Polls a task that was popped from the run queue: (2), and then (3), (5) or (6).
    #[inline]
    fn run(&self, task: TaskRef) {
        task.leave_queue();
        if task.has(Flags::COMPLETED) {
            task.release_if_over();
        } else if task.has(Flags::ABORTED) {
            self.abort(task);
        } else {
            count(&self.counts.polls);
            let outer = self.current.replace(Some(task));
            let ready = match trace::is_on() {
                false => task.poll(false),
                true => poll_told(task),
            };
            self.current.set(outer);
            if ready {
                self.end(task, false);
            }
        }
    }

    /// (6): drops a task's future instead of polling it.
    fn abort(&self, task: TaskRef) {
        let outer = self.current.replace(Some(task));
        task.drop_future();
        self.current.set(outer);
        self.end(task, true);
    }

    /// The task has no future any more.
    #[inline]
    fn end(&self, task: TaskRef, aborted: bool) {
        count(&self.counts.completed);
        // SAFETY: it is there, and in no other list.
        unsafe { self.tasks.remove(task.listed()) };
        let task_number = task.number();
        trace::write(move |_| What::Ended {
            task: task_number,
            aborted,
        });
        trace::because(Reason::Task(task_number), || task.complete());
    }
}

/// Polls a task and tells of it.
#[cold]
#[inline(never)]
fn poll_told(task: TaskRef) -> bool {
    trace::poll_begin(task.number());
    let ready = task.poll(true);
    trace::poll_end(task.number(), ready);
    ready
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
