//! Makes a task look, whether it sleeps, is about to, or looks already.

use std::task::Context;

use crate::primitives::{AtomicBool, AtomicWaker, Ordering};

/// A notification that stays until it is taken.
#[derive(Debug)]
pub(crate) struct Notify {
    is_set: AtomicBool,
    waker: AtomicWaker,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notifies. What the caller did before is seen by whoever takes the notification.
    pub(crate) fn notify(&self) {
        self.is_set.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether there was a notification since the last was taken; if not, the task is woken for it.
    pub(crate) fn taken_else_wake(&self, context: &Context<'_>) -> bool {
        // Registered before the flag is read: a notification in between is not lost.
        self.waker.register(context.waker());
        self.taken()
    }

    /// Whether there was a notification since the last was taken.
    pub(crate) fn taken(&self) -> bool {
        let taken = self
            .is_set
            .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok()
    }
}

impl std::fmt::Display for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "notified {}", self.is_set.load(Ordering::Relaxed))
    }
}
