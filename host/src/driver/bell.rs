//! Makes a task look, whether it sleeps, is about to, or looks already.

use std::task::Context;

use crate::primitives::{AtomicBool, AtomicWaker, Ordering};

/// A bell that stays rung until it is heard.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self {
            rung: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Rings. What the caller did before is seen by whoever hears it.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was rung since it was heard last; if not, the task is woken when it is.
    pub(crate) fn heard_else_wake(&self, context: &Context<'_>) -> bool {
        // Registered before the flag is read: a ring in between is not lost.
        self.waker.register(context.waker());
        let heard = self
            .rung
            .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed);
        heard.is_ok()
    }
}

impl std::fmt::Display for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bell rung {}", self.rung.load(Ordering::Relaxed))
    }
}
