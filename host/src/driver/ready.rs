//! The queue of operations that can go on, and who is woken for it.
//!
//! Operations are woken from any thread. Whoever polls the driver (the *driver's task*) is woken for
//! them, unless another thread takes turns by itself for a moment (a *helper*).
//!
//! ```text
//! an operation's waker                      helper, when it leaves
//! P1 queue the slot                         H1 helpers -= 1
//! P2 any = true                             H2 fence
//! P3 fence                                  H3 if any: wake the driver's task
//! P4 if no helpers: wake the driver's task
//! ```
//!
//! Either P4 sees H1 and wakes the driver's task, or H3 sees P2 and does; or the helper took the
//! slot from the queue before it left.

use std::sync::PoisonError;
use std::task::Waker;

use crate::primitives::{
    Arc, AtomicBool, AtomicU32, AtomicWaker, Kick, Mutex, Ordering, Processor, Reasons, fence,
};

/// The queue of slots whose operations can go on, and who wants to know.
#[derive(Debug)]
pub(crate) struct Ready<P> {
    queue: Mutex<Vec<u32>>,
    any: AtomicBool,
    driver: AtomicWaker,
    /// Threads that take turns by themselves for a moment, so that nobody need be woken.
    helpers: AtomicU32,
    /// In mode `irq`: the vCPU to pull out of its guest.
    kick: Option<Arc<Kick<P>>>,
}

impl<P: Processor> Ready<P> {
    /// With `kick`, a wake also kicks a vCPU that is in its guest: the host's waker reaches across
    /// the boundary.
    pub(crate) fn new(kick: Option<Arc<Kick<P>>>) -> Self {
        Self {
            queue: Mutex::new(Vec::new()),
            any: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            helpers: AtomicU32::new(0),
            kick,
        }
    }

    /// Whoever polls the driver is to be woken by this from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Nobody is to be woken until somebody registers again.
    pub(crate) fn unregister(&self) {
        drop(self.driver.take());
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
        if self.helpers.load(Ordering::Relaxed) == 0 {
            self.driver.wake(); // P4
        }
        if let Some(kick) = &self.kick
            && kick.is_in_guest()
        {
            kick.kick(Reasons::COMPLETION);
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
        fence(Ordering::SeqCst); // H2, partner: P3
        if self.0.any.load(Ordering::Relaxed) {
            // H3: what became ready since its last turn is somebody else's now.
            self.0.driver.wake();
        }
    }
}
