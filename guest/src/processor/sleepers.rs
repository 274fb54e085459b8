//! Who sleeps and may be called when there is a task for anybody.
//!
//! ```text
//! sleeper                                  who has a task
//! A1  set the own bit                      B1  put it into a queue
//! A2  full fence                           B2  full fence
//! A3  look at all queues                   B3  look for a bit, and take it out
//! A4  nothing: sleep until it is called    B4  call the one whose bit it was
//! ```
//!
//! A task stays behind only if A3 misses B1 *and* B3 misses A1, which the two fences rule out as in
//! [`wakebox_abi::wake`]. Who is called is called once: the bit is out, and its owner sets it again before
//! the next sleep. A call that comes before the sleep ends it: it is a post, which the sleeper looks for last of all.
//! `guest/tests/pool_model.rs` searches for a counter-example.

use super::primitives::{AtomicU64, Ordering, fence};

/// A bit for each processor that sleeps, or is about to, and that nobody has called.
#[derive(Debug)]
pub(crate) struct Sleepers(AtomicU64);

impl Sleepers {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A1 and A2: this processor has found nothing, and is about to look once more.
    pub(crate) fn enter(&self, processor: u32) {
        self.0.fetch_or(1 << processor, Ordering::Relaxed);
        // A2. Partner: `call`.
        fence(Ordering::SeqCst);
    }

    /// This processor has something to do again, or wants to look.
    pub(crate) fn leave(&self, processor: u32) {
        let bit = 1 << processor;
        if self.0.load(Ordering::Relaxed) & bit != 0 {
            self.0.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// B2 and B3: whom to call, if somebody sleeps.
    pub(crate) fn call(&self) -> Option<u32> {
        // B2. Partner: `enter`.
        fence(Ordering::SeqCst);
        let mut sleepers = self.0.load(Ordering::Relaxed);
        while sleepers != 0 {
            let first = sleepers.trailing_zeros();
            let before = self.0.fetch_and(!(1 << first), Ordering::Relaxed);
            if before & 1 << first != 0 {
                return Some(first);
            }
            sleepers = before;
        }
        None
    }
}
