//! Sleeping when no task is ready, in the four ways of [`wakebox_abi::wake`].
//!
//! The argument that no wake-up is lost is written there. What this file adds: the
//! completions counted as seen are exactly those that were read, and between the last
//! read and the announcement nothing is polled.

use core::cell::Cell;
use core::hint::spin_loop;
use core::sync::atomic::Ordering;

use wakebox_abi::boot::{Boot, Features};
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::port;
use wakebox_abi::wake::{self, Mode, Sleep};

use crate::executor::count;
use crate::machine;
use crate::runtime::Runtime;
use crate::trace::{self, Roused, What};

/// Looks at the completion ring between two looks at the clock, which is dearer.
const LOOKS: u32 = 64;

/// Least nanoseconds that a look takes, for a guest that has no clock to bound its watch.
const LOOK_NS: u32 = 10;

/// Most nanoseconds that mode `auto` watches for what other processors leave: about what the way out and back costs,
/// so that watching in vain at most doubles the price of a sleep.
const AUTO_NS: u32 = 20_000;

/// The same while a thread of the host's has come to watch, which measures what that gains and leaves if it is too little:
/// longer than a peer on the same machine takes to be woken and to answer.
const NEAR_NS: u32 = 200_000;

/// How this guest sleeps, and how often it did.
#[derive(Debug)]
pub(crate) struct Idle {
    mode: Mode,
    /// Whether a completion can appear while the guest runs.
    exitless: bool,
    spin_ns: u32,
    patience: Patience,
    counts: Counts,
}

/// Idle periods by what ended them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) by_memory: Cell<u64>,
    pub(crate) by_out: Cell<u64>,
    pub(crate) by_interrupt: Cell<u64>,
}

impl Idle {
    pub(crate) fn new(boot: &Boot) -> Self {
        Self {
            mode: boot.mode(),
            exitless: Features(boot.features).has(Features::EXITLESS),
            spin_ns: boot.spin_ns,
            patience: Patience::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Nanoseconds for which to watch now. `others` says whether other processors may leave something.
    /// `near` says whether the host watches.
    fn window(&self, others: bool, near: bool) -> u32 {
        match self.mode {
            _ if !self.exitless && !others => 0,
            Mode::Poll => self.spin_ns,
            // Else it is left to be waited for anyway, and once will do.
            Mode::Auto if !near && !others => 0,
            Mode::Auto if !self.patience.is_worth_a_try() => 0,
            Mode::Auto if others => self.spin_ns.min(AUTO_NS),
            Mode::Auto => self.spin_ns.min(NEAR_NS),
            _ => 0,
        }
    }
}

impl Runtime {
    /// Sleeps until there is a completion to read or a timer to fire. May return early.
    /// Everything that was to be submitted has been published.
    pub(crate) fn sleep(&self) {
        if self.watch() {
            return;
        }
        self.arm_deadline();
        if self.flush() {
            self.ring_if_unseen();
            return;
        }
        self.publish_counters();
        // Neither way needs SUBMIT before: on both the host looks at the submission ring.
        let taken = self.reactor.taken();
        if self.idle.mode == Mode::Irq {
            self.halt(taken);
        } else {
            self.leave(taken);
        }
    }

    /// `out WAIT`.
    fn leave(&self, taken: u32) {
        if self.here.may_sleep(&self.control, Sleep::Out, taken) {
            trace::write(move |_| What::Sleeps {
                how: trace::Idle::Out,
            });
            machine::ring(port::WAIT);
            wake::guest_is_awake(&self.control);
            trace::write(move |_| What::Awake { by: Roused::Out });
            count(&self.idle.counts.by_out);
        }
    }

    /// `hlt`, in ring 0.
    fn halt(&self, taken: u32) {
        if self.here.may_sleep(&self.control, Sleep::Halt, taken) {
            let interrupts = || self.control.load(Word::Interrupts, Ordering::Relaxed);
            let before = interrupts();
            trace::write(move |_| What::Sleeps {
                how: trace::Idle::Halt,
            });
            machine::halt(taken);
            wake::guest_is_awake(&self.control);
            // The stub looks once more before it halts, and may have seen the completion.
            let by = if interrupts() == before {
                count(&self.idle.counts.by_memory);
                Roused::Memory
            } else {
                count(&self.idle.counts.by_interrupt);
                Roused::Interrupt
            };
            trace::interrupts();
            trace::write(move |_| What::Awake { by });
        }
    }

    /// Watches the completion ring for a bounded time. Returns whether there is something to do.
    fn watch(&self) -> bool {
        let others = self.here.expects_posts();
        let near = wake::driver_is_near(&self.control);
        let window = self.idle.window(others, near);
        // Nobody is in a hurry for the end of a deadline or of console output.
        if window == 0 || !(others || self.reactor.is_awaited()) {
            return false;
        }
        self.ring_if_unseen();
        trace::write(move |_| What::Sleeps {
            how: trace::Idle::Watch,
        });
        let by = self.watch_until(window);
        trace::write(move |_| What::Awake { by });
        by != Roused::Nothing
    }

    /// Watches for at most so many nanoseconds.
    fn watch_until(&self, window: u32) -> Roused {
        let next_timer = self.next_timer().unwrap_or(u64::MAX);
        let end = self.now_ns() + u64::from(window);
        let mut looks_left = window / LOOK_NS;
        while looks_left > 0 {
            for _ in 0..LOOKS {
                if self.reactor.has_news() || self.here.has_posts(&self.control) {
                    count(&self.idle.counts.by_memory);
                    self.idle.patience.paid();
                    return Roused::Memory;
                }
                spin_loop();
            }
            let now = self.now_ns();
            if now >= next_timer {
                return Roused::Timer;
            }
            if now >= end {
                break;
            }
            looks_left = looks_left.saturating_sub(LOOKS);
        }
        self.idle.patience.did_not_pay();
        Roused::Nothing
    }
}

/// Whether watching has paid lately.
///
/// Each success adds trust and each failure takes some. Without trust the next tries
/// are left out, twice as many after each failure, so that a guest that waits for slow
/// things spends next to nothing on watching, and notices when they become quick again.
#[derive(Debug)]
struct Patience {
    trust: Cell<u32>,
    left_out: Cell<u32>,
    to_leave_out: Cell<u32>,
}

impl Patience {
    const MAX_TRUST: u32 = 8;
    const MAX_LEFT_OUT: u32 = 256;

    fn new() -> Self {
        Self {
            trust: Cell::new(Self::MAX_TRUST / 2),
            left_out: Cell::new(0),
            to_leave_out: Cell::new(4),
        }
    }

    fn is_worth_a_try(&self) -> bool {
        if self.trust.get() > 0 {
            return true;
        }
        if self.left_out.get() >= self.to_leave_out.get() {
            self.left_out.set(0);
            return true;
        }
        self.left_out.set(self.left_out.get() + 1);
        false
    }

    fn paid(&self) {
        self.trust.set((self.trust.get() + 2).min(Self::MAX_TRUST));
        self.to_leave_out.set(4);
    }

    fn did_not_pay(&self) {
        if self.trust.get() > 0 {
            self.trust.set(self.trust.get() - 1);
        } else {
            self.to_leave_out
                .set((self.to_leave_out.get() * 2).min(Self::MAX_LEFT_OUT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_runs_out_and_comes_back() {
        let patience = Patience::new();
        let mut tries = 0;
        for _ in 0..10_000 {
            if patience.is_worth_a_try() {
                tries += 1;
                patience.did_not_pay();
            }
        }
        assert!((5..60).contains(&tries), "{tries} tries in vain");
        while !patience.is_worth_a_try() {}
        patience.paid();
        assert!(patience.is_worth_a_try());
        assert!(patience.is_worth_a_try());
    }
}
