//! Ending a sandbox from elsewhere: from another thread or task, or from an operation.
//!
//! ```text
//! runner                                    whoever ends it
//! R1 before it enters: look at why          E1 why = reason
//! R2 enter the guest (`vmm/kick.rs`)        E2 wake the runner's waker
//! R3 before it is pending: register its     E3 kick the processor
//!    waker, then look at why
//! ```
//!
//! A runner that enters the guest after E1 without having seen it is kicked: E3 comes later, and a
//! kick is not lost. One that is pending has registered its waker before it looked: if it
//! missed E1, E2 finds the waker.

use std::task::Context;

use crate::primitives::{Arc, AtomicU32, AtomicWaker, Kick, Ordering, Processor, Reasons, wake};

/// Why a sandbox ends before its guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A processor of the guest has ended, another than the first.
    Processor = 1,
    /// It has written more to standard error than it may.
    Log = 2,
    /// Somebody wants it to.
    Killed = 3,
}

/// The shared part of a sandbox that others may end.
#[derive(Debug)]
pub(crate) struct Stop<P> {
    /// A [`Why`], or 0.
    why: AtomicU32,
    waker: AtomicWaker,
    kick: Arc<Kick<P>>,
}

impl<P: Processor> Stop<P> {
    pub(crate) fn new(kick: Arc<Kick<P>>) -> Self {
        Self {
            why: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            kick,
        }
    }

    /// Ends the sandbox. Somebody's wish counts before a limit, after which what the guest has written
    /// is still waited for, and a limit before an end of the guest's own.
    pub(crate) fn end(&self, why: Why) {
        let counts_more = |now: u32| (why as u32 > now).then_some(why as u32);
        let ends = self
            .why
            .fetch_update(Ordering::Release, Ordering::Relaxed, counts_more); // E1
        if ends.is_ok() {
            self.waker.take().into_iter().for_each(wake); // E2
            self.kick.kick(Reasons::STOP); // E3
        }
    }

    /// R1: whether it is to end.
    pub(crate) fn why(&self) -> Option<Why> {
        match self.why.load(Ordering::Acquire) {
            0 => None,
            why if why == Why::Processor as u32 => Some(Why::Processor),
            why if why == Why::Log as u32 => Some(Why::Log),
            _ => Some(Why::Killed),
        }
    }

    /// R1, for whoever works on its behalf: whether it is to end with all that it has under way. What
    /// has written too much has its last output taken yet.
    pub(crate) fn is_killed(&self) -> bool {
        self.why() == Some(Why::Killed)
    }

    /// R3: whether it is to end; if not, the task is woken when it is.
    pub(crate) fn why_else_wake(&self, context: &Context<'_>) -> Option<Why> {
        self.waker.register(context.waker());
        self.why()
    }
}
