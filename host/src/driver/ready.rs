//! The queue of operations that can go on, and who is woken for it.
//!
//! Operations are woken from any thread. Whoever polls the driver (the *driver's task*) is woken for
//! them, unless another thread takes turns by itself for a moment (a *helper*); or the task that runs the
//! guest (the *runner*), if the guest has been parked for a while and the runner has said that it takes the
//! turns then: a poller need not be woken to wake the runner, and would go on polling. A guest that was
//! parked just now is likely to be so again soon, and the poller to save it that.
//!
//! ```text
//! an operation's waker                      helper, or runner, when it leaves
//! P1 queue the slot                         H1 helpers -= 1, or parked = false
//! P2 any = true                             H2 fence
//! P3 fence                                  H3 if any, and no helpers: wake the runner if parked,
//! P4 if no helpers: wake the runner if         for long, else the driver's task
//!    parked for long, else the driver's task
//! ```
//!
//! Either P4 sees H1 and wakes the driver's task, or H3 sees P2 and does; or who leaves took the
//! slot from the queue before. A runner that is parked registers its waker and then looks; where P4 finds
//! no waker of it, it was woken already, and will look.

use std::sync::PoisonError;
use std::task::Waker;

use crate::primitives::{
    Arc, AtomicBool, AtomicU32, AtomicU64, AtomicWaker, Kick, Mutex, Ordering, Processor, Reasons,
    fence, is_long_ago, now, wake,
};

/// Those whose operations are in the slots, where they are several and see to them themselves.
pub(crate) trait Owners: std::fmt::Debug + Send + Sync {
    /// The operation in a slot can go on, and is in the queue.
    fn ready(&self, slot: u32);
}

/// The queue of slots whose operations can go on, and who wants to know.
#[derive(Debug)]
pub(crate) struct Ready<P> {
    queue: Mutex<Vec<u32>>,
    any: AtomicBool,
    driver: AtomicWaker,
    runner: AtomicWaker,
    /// Since when the runner may be woken in place of the driver's task; zero if it may not.
    parked: AtomicU64,
    /// Threads that take turns by themselves for a moment, so that nobody need be woken.
    helpers: AtomicU32,
    /// In mode `irq`: the vCPU to pull out of its guest.
    kick: Option<Arc<Kick<P>>>,
    /// Who else is told.
    owners: Option<std::sync::Arc<dyn Owners>>,
}

impl<P: Processor> Ready<P> {
    /// With `kick`, a wake also kicks a vCPU that is in its guest: the host's waker reaches across
    /// the boundary.
    pub(crate) fn new(kick: Option<Arc<Kick<P>>>) -> Self {
        Self {
            queue: Mutex::new(Vec::new()),
            any: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            runner: AtomicWaker::new(),
            parked: AtomicU64::new(0),
            helpers: AtomicU32::new(0),
            kick,
            owners: None,
        }
    }

    /// The same, but owners of slots are told of them.
    pub(crate) fn told(mut self, owners: std::sync::Arc<dyn Owners>) -> Self {
        self.owners = Some(owners);
        self
    }

    /// Whoever polls the driver is to be woken by this from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Nobody is to be woken until somebody registers again.
    pub(crate) fn unregister(&self) {
        drop(self.driver.take());
    }

    /// The runner is to be woken by this: by [`Self::wake_runner`], and for what is ready while it is
    /// [parked](Self::set_parked).
    pub(crate) fn register_runner(&self, waker: &Waker) {
        self.runner.register(waker);
    }

    /// Wakes the runner.
    pub(crate) fn wake_runner(&self) {
        self.runner.take().into_iter().for_each(wake);
    }

    /// The runner takes turns from now on, and is woken for them when it has slept for a while; or no
    /// longer does. It registers, and then looks, whenever it is woken meanwhile.
    pub(crate) fn set_parked(&self, parked: bool) {
        if parked {
            self.parked.store(now(), Ordering::Relaxed);
        } else if self.parked.load(Ordering::Relaxed) > 0 {
            self.parked.store(0, Ordering::Relaxed); // H1
            self.left();
        }
    }

    /// Whether any slot is queued. A hint.
    pub(crate) fn is_some(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The calling thread takes turns as long as it has the value: nobody else is woken for them.
    pub(crate) fn hold(&self) -> Helper<'_, P> {
        self.helpers.fetch_add(1, Ordering::Relaxed);
        Helper(self)
    }

    /// Queues a slot and wakes who is to see to it.
    pub(crate) fn push(&self, slot: u32) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot); // P1
        self.any.store(true, Ordering::Relaxed); // P2
        fence(Ordering::SeqCst); // P3, partner: H2
        self.wake_unless_helped(); // P4
        if let Some(owners) = &self.owners {
            owners.ready(slot);
        }
        if let Some(kick) = &self.kick
            && kick.is_in_guest()
        {
            kick.kick(Reasons::COMPLETION);
        }
    }

    fn wake_unless_helped(&self) {
        if self.helpers.load(Ordering::Relaxed) > 0 {
            return;
        }
        match self.parked.load(Ordering::Relaxed) {
            since if since > 0 && is_long_ago(since) => self.wake_runner(),
            _ => self.driver.wake(),
        }
    }

    /// Somebody who took turns leaves, and has said so.
    fn left(&self) {
        fence(Ordering::SeqCst); // H2, partner: P3
        if self.any.load(Ordering::Relaxed) {
            // H3: what became ready since its last turn is somebody else's now.
            self.wake_unless_helped();
        }
    }

    /// Swaps the queue for an empty one.
    pub(crate) fn take(&self, into: &mut Vec<u32>) {
        // Before the queue is taken, so that a push after it raises the flag again.
        self.any.store(false, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *queue, into);
    }
}

/// A thread that takes turns by itself.
#[derive(Debug)]
pub(crate) struct Helper<'a, P: Processor>(&'a Ready<P>);

impl<P: Processor> Drop for Helper<'_, P> {
    fn drop(&mut self) {
        self.0.helpers.fetch_sub(1, Ordering::Relaxed); // H1
        self.0.left();
    }
}
