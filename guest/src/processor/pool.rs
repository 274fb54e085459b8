//! Who runs what any processor may run: each its own first, then what nobody has, then half of what another has.
//!
//! What is pushed is pushed to the own queue, or to the common one if that is full, and somebody who sleeps is
//! called ([`Common::call_one`]), who then takes half of it.

use core::future::Future;
use core::panic::Location;
use core::ptr::NonNull;

use super::task::{self, Header, Register};
use crate::executor::count;
use crate::joint::JoinHandle;
use crate::runtime::{Runtime, runtime};
use crate::several::Common;
use crate::trace;

/// Tasks that are polled before the runtime looks at the rings and at its own tasks again.
const BATCH: u32 = 64;

/// Tasks that are polled together, whatever else is ready meanwhile: who awaits them one after the other is polled for
/// so many, and not for each.
const TOGETHER: u32 = 2;

/// Once in so many tasks the common queue comes first, so that nothing in it waits for ever. A prime, so that it
/// is no multiple of what a program does in turns.
const COMMON_FIRST: u32 = 61;

/// Makes a task that any processor may run.
#[track_caller]
pub(super) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let runtime = runtime();
    let spawned = &runtime.executor.counts().spawned;
    count(spawned);
    let number = runtime.here.whereabouts().number(spawned.get() as u32);
    let location = Location::caller();
    let register = (runtime.here.number, &runtime.here.seat().register);
    let (task, handle) = task::allocate(number, location, register, future);
    if trace::is_on() {
        let name = core::any::type_name::<F>();
        trace::spawned(number, trace::current(), None, name, location);
    }
    runtime.push_shared(task);
    runtime.here.common.call_one(runtime);
    handle
}

/// Puts a task that was woken into a queue.
pub(super) fn push(task: NonNull<Header>) {
    let runtime = runtime();
    count(&runtime.executor.counts().wakes);
    runtime.push_shared(task);
    runtime.here.common.call_one(runtime);
}

/// The same of a task that was woken while it was polled here. This processor polls it next, unless there are others.
pub(super) fn push_again(task: NonNull<Header>) {
    let runtime = runtime();
    count(&runtime.executor.counts().wakes);
    runtime.push_shared(task);
    if runtime.here.seat().queue.len() > 1 {
        runtime.here.common.call_one(runtime);
    }
}

/// Whether main has ended: tasks are dropped then instead of being polled.
pub(super) fn is_over() -> bool {
    runtime().here.common.has_main_ended()
}

/// The register of a processor.
pub(super) fn register(processor: u32) -> &'static Register {
    &runtime().here.common.seats[processor as usize].register
}

impl Runtime {
    fn push_shared(&self, task: NonNull<Header>) {
        if let Err(task) = self.here.seat().queue.push(task.as_ptr()) {
            self.here.common.global.push(task);
        }
    }

    /// Begins the tasks that others have given to this processor, and polls tasks that any may run, as many as there are
    /// until something else wants to be looked at.
    pub(crate) fn turn_of_shared(&'static self) {
        self.here.seat().bear(&self.executor);
        for polled in 1..=BATCH {
            let Some(task) = self.next_shared() else {
                return;
            };
            count(&self.executor.counts().polls);
            self.run_shared(task);
            if polled.is_multiple_of(TOGETHER)
                && (self.executor.has_ready() || self.reactor.has_news())
            {
                return;
            }
        }
    }

    fn run_shared(&self, task: NonNull<Header>) {
        let outer = self.here.polled.replace(Some(task));
        task::run(task);
        self.here.polled.set(outer);
    }

    /// Drops what there is of tasks that any may run or that nobody has begun, when main has ended and the others have
    /// stood aside. One that has not, and polls such a task, has that one.
    pub(crate) fn drop_shared(&'static self) {
        loop {
            let mut has_any = false;
            for seat in &self.here.common.seats {
                has_any |= seat.drop_unborn();
                while let Some(task) = task::take_first(&seat.register) {
                    has_any = true;
                    task::end(task);
                }
            }
            // What a destructor has made is dropped, too.
            while let Some(task) = self.next_shared() {
                has_any = true;
                self.run_shared(task);
            }
            if !has_any {
                return;
            }
        }
    }

    /// A task to poll: with its reference, and in no queue.
    fn next_shared(&self) -> Option<NonNull<Header>> {
        let (here, common) = (&self.here, self.here.common);
        let own = &here.seat().queue;
        let tick = here.ticks.get().wrapping_add(1);
        here.ticks.set(tick);
        let from_common = || common.global.take_share(common.count, own);
        let mut task = tick
            .is_multiple_of(COMMON_FIRST)
            .then(from_common)
            .flatten();
        task = task.or_else(|| own.pop()).or_else(from_common);
        if task.is_none() && common.count > 1 {
            // Each begins with another victim at each time.
            task = (0..common.count)
                .map(|offset| (tick.wrapping_add(offset)) % common.count)
                .filter(|&victim| victim != here.number)
                .find_map(|victim| common.seats[victim as usize].queue.steal_half(own));
            if task.is_some() && own.len() > 0 {
                common.call_one(self);
            }
        }
        task.and_then(NonNull::new)
    }
}

impl Common {
    /// Whether any queue has something.
    pub(crate) fn has_tasks(&self) -> bool {
        self.global.len() > 0 || self.seats.iter().any(|seat| seat.queue.len() > 0)
    }
}
