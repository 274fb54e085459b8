//! One of a guest's several processors, as it is woken and interrupted by those who have something for it.
//!
//! ```text
//! a processor's task                        whoever has something for it
//! T1 register its waker                     W1 publish it (a completion, `Posts`, or `any` of `Ready`)
//! T2 look: sleep if there is nothing        W2 due = true, if it may be interrupted
//!                                           W3 fence
//! E1 inside = true                          W4 wake its waker
//! E2 fence                                  W5 if inside, and it may be interrupted: kick it
//! E3 if due: take that, interrupt
//! E4 enter the guest (`vmm/kick.rs`)
//! ```
//!
//! One that sleeps has registered its waker before it has looked: it sees W1, or W4 finds the waker. One that
//! enters its guest sees W2 at E3, or W5 sees E1, and a kick is not lost. Processors are interrupted in mode `irq`; in
//! the others E1 to E3, W2 and W5 are left out.
//!
//! `tests/park_model.rs` searches every interleaving, with each fence and without it.

use std::task::Waker;

use crate::primitives::{
    Arc, AtomicBool, AtomicWaker, Kick, Ordering, Processor, Reasons, fence, wake,
};

/// What others need of a processor.
#[derive(Debug)]
pub(crate) struct Member<P> {
    kick: Arc<Kick<P>>,
    /// Whether it is interrupted while it computes.
    interrupts: bool,
    runner: AtomicWaker,
    /// Whether its task is about to enter the guest, or has.
    inside: AtomicBool,
    /// Whether it is to be interrupted.
    due: AtomicBool,
}

impl<P: Processor> Member<P> {
    /// A processor that is kicked so.
    pub(crate) fn new(kick: Arc<Kick<P>>, interrupts: bool) -> Self {
        Self {
            kick,
            interrupts,
            runner: AtomicWaker::new(),
            inside: AtomicBool::new(false),
            due: AtomicBool::new(false),
        }
    }

    /// W2 to W5: something that it waits for was published.
    pub(crate) fn has_some(&self) {
        if self.interrupts {
            self.due.store(true, Ordering::Relaxed); // W2
        }
        self.look();
    }

    /// W3 to W5: it is to look, wherever it is.
    pub(crate) fn look(&self) {
        fence(Ordering::SeqCst); // W3, partner: E2
        self.wake(); // W4
        if self.interrupts && self.inside.load(Ordering::Relaxed) {
            self.kick.kick(Reasons::COMPLETION); // W5
        }
    }

    /// Its task is to look, if it sleeps.
    pub(crate) fn wake(&self) {
        self.runner.take().into_iter().for_each(wake);
    }

    /// It is to leave the guest.
    pub(crate) fn stop(&self) {
        self.kick.kick(Reasons::STOP);
    }

    /// T1: its task is to be woken by this.
    pub(crate) fn register(&self, waker: &Waker) {
        self.runner.register(waker);
    }

    /// E1 to E3: it is about to be entered. Returns whether it is to be interrupted.
    pub(crate) fn enters(&self) -> bool {
        if !self.interrupts {
            return false;
        }
        self.inside.store(true, Ordering::Relaxed); // E1
        fence(Ordering::SeqCst); // E2, partner: W3
        self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::Relaxed) // E3
    }

    /// It was left.
    pub(crate) fn left(&self) {
        self.inside.store(false, Ordering::Relaxed);
    }
}
