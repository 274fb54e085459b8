//! Making a vCPU leave the guest from another thread.
//!
//! `KVM_RUN` returns with `EINTR` when its thread has a signal, or at once when
//! `immediate_exit` is set in the shared `kvm_run` page (KVM API, 5). A kick does both:
//! the flag covers the moment before the thread is in the guest, the signal the time in it.
//!
//! ```text
//! runner                                    kicker
//! R1 in_guest = true                        K1 reasons |= why
//! R2 fence                                  K2 immediate_exit = 1
//! R3 KVM_RUN (looks at immediate_exit)      K3 fence
//! R4 in_guest = false                       K4 if in_guest: signal the runner's thread
//! R5 immediate_exit = 0
//! R6 take reasons
//! ```
//!
//! If K4 does not see R1, then R3 sees K2 by the two fences. A kick between R5 and R6 is
//! taken at R6 and leaves `immediate_exit` set, which costs one needless exit.
//!
//! A signal that cannot be sent is sent again by the ticker: the stay is over at once.
//!
//! # Who watches it
//!
//! The ticker looks at the vCPUs that were in their guests lately, and at no other.
//!
//! ```text
//! runner                                    ticker, when it was not in its guest for a while
//! R1 in_guest = true                        T1 watched = false
//! R2 fence                                  T2 fence
//! W3 if not watched: watched = true,        T3 if in_guest, and not watched: watched = true,
//!    and add it to the ticker's list           and keep it in the list
//! ```
//!
//! Either W3 sees T1, or T3 sees R1. Where both do, one of them sets `watched`, and that one's entry counts.
//!
//! `tests/park_model.rs` searches every interleaving, with each fence and without it.

use std::sync::PoisonError;

use crate::primitives::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, fence,
};

/// Why a vCPU was kicked, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u32);

impl Reasons {
    /// It has had its quantum.
    pub const QUANTUM: Self = Self(1 << 0);
    /// There are completions for it.
    pub const COMPLETION: Self = Self(1 << 1);
    /// The sandbox is to end.
    pub const STOP: Self = Self(1 << 2);

    /// Whether the other's bits are all in this.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a kick does to a processor.
pub trait Processor {
    /// Sets `kvm_run.immediate_exit`.
    fn set_immediate_exit(&self, on: bool);
    /// Sends the kick signal to a thread. It may have left the guest, or ended, meanwhile: then
    /// the signal finds an empty handler or nobody. Returns whether it was sent.
    fn signal(&self, thread: i32) -> bool;
}

/// The shared part of a vCPU that others may kick.
#[derive(Debug)]
pub struct Kick<P> {
    /// As long as the vCPU exists.
    processor: Mutex<Option<P>>,
    reasons: AtomicU32,
    in_guest: AtomicBool,
    thread: AtomicI32,
    /// The ticker's tick after which the guest is to be left.
    until: AtomicU64,
    /// Whether the ticker has it in its list, or is about to.
    watched: AtomicBool,
}

impl<P: Processor> Kick<P> {
    /// Of a processor that exists.
    pub fn new(processor: P) -> Self {
        let kick = Self::idle();
        kick.arm(processor);
        kick
    }

    /// Of none yet.
    pub fn idle() -> Self {
        Self {
            processor: Mutex::new(None),
            reasons: AtomicU32::new(0),
            in_guest: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            until: AtomicU64::new(0),
            watched: AtomicBool::new(false),
        }
    }

    /// Acts on the processor, if it still exists. It exists until this returns.
    fn processor(&self, act: impl FnOnce(&P)) {
        if let Some(processor) = &*self.lock() {
            act(processor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<P>> {
        self.processor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a kick reaches this processor. What was kicked for while there was none, it is kicked
    /// for.
    pub fn arm(&self, processor: P) {
        let mut armed = self.lock();
        // Under the lock: whoever comes to K2 after this finds the processor.
        processor.set_immediate_exit(self.reasons.load(Ordering::Relaxed) != 0);
        *armed = Some(processor);
    }

    /// Forgets the vCPU: a later kick reaches nobody, until another is [armed](Self::arm).
    pub fn disarm(&self) {
        *self.lock() = None;
    }

    /// Makes the vCPU leave the guest, now or as soon as it enters.
    pub fn kick(&self, why: Reasons) {
        self.reasons.fetch_or(why.0, Ordering::Relaxed); // K1
        self.processor(|processor| {
            processor.set_immediate_exit(true); // K2
            fence(Ordering::SeqCst); // K3, partner: R2
            if self.in_guest.load(Ordering::Relaxed)
                && !processor.signal(self.thread.load(Ordering::Relaxed))
            // K4
            {
                self.until.store(0, Ordering::Relaxed);
            }
        });
    }

    /// Has `run` call `KVM_RUN` so that it returns at once: it completes what the vCPU was about to do
    /// when it left the guest, and executes nothing of that. Who kicks meanwhile is seen to as ever.
    pub fn without_guest<T>(&self, run: impl FnOnce() -> T) -> T {
        self.processor(|processor| processor.set_immediate_exit(true));
        let result = run();
        self.processor(|processor| {
            // Whoever comes to K2 after this sets it again.
            processor.set_immediate_exit(self.reasons.load(Ordering::Relaxed) != 0);
        });
        result
    }

    /// Whether the vCPU runs now. A hint: it may change at any time.
    pub fn is_in_guest(&self) -> bool {
        self.in_guest.load(Ordering::Relaxed)
    }

    /// The tick after which the guest is to be left.
    pub fn until(&self) -> u64 {
        self.until.load(Ordering::Relaxed)
    }

    /// R1 and R2: `thread`, the calling one, is about to call `KVM_RUN`, and to stay in the guest
    /// until a tick.
    pub fn enter(&self, thread: i32, until: u64) {
        self.until.store(until, Ordering::Relaxed);
        self.thread.store(thread, Ordering::Relaxed);
        self.in_guest.store(true, Ordering::Relaxed); // R1
        fence(Ordering::SeqCst); // R2, partner: K3
    }

    /// W3, after [`Self::enter`]: whether the caller has to add it to the ticker's list.
    pub fn watch(&self) -> bool {
        !self.watched.load(Ordering::Relaxed) && !self.watched.swap(true, Ordering::Relaxed)
    }

    /// T1 to T3: whether the ticker drops it from its list.
    pub fn unwatch(&self) -> bool {
        self.watched.store(false, Ordering::Relaxed); // T1
        fence(Ordering::SeqCst); // T2, partner: R2
        !self.is_in_guest() || self.watched.swap(true, Ordering::Relaxed) // T3
    }

    /// R4 to R6: `KVM_RUN` has returned, perhaps because it was interrupted. Returns why the
    /// vCPU was kicked, if it was.
    pub fn leave(&self, interrupted: bool) -> Reasons {
        self.in_guest.store(false, Ordering::Relaxed); // R4
        if !interrupted && self.reasons.load(Ordering::Relaxed) == 0 {
            // A kick that is under way right now shows at the next exit, which its K2 causes.
            return Reasons::default();
        }
        self.processor(|processor| processor.set_immediate_exit(false)); // R5
        Reasons(self.reasons.swap(0, Ordering::Relaxed)) // R6
    }
}
