//! What the protocols between threads are made of: `stop.rs`, `driver/ready.rs`, `driver/notify.rs`.
//!
//! Those files name nothing else, so that `tests/park_model.rs` compiles the very same files, and
//! that of [`Kick`], with loom's primitives in place of these and searches every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use futures_util::task::AtomicWaker;
use rustix::time::{ClockId, clock_gettime};
pub(crate) use wakebox_vmm::kick::{Kick, Processor, Reasons};

pub(crate) use crate::outside::wake;

/// How long a guest is parked until it is taken for one that sleeps.
const LONG: Duration = Duration::from_micros(200);

/// Nanoseconds on the clock that counts from the start of the machine; never zero.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether more than 200 us have passed [since](now).
pub(crate) fn is_long_ago(since: u64) -> bool {
    u128::from(now().saturating_sub(since)) >= LONG.as_nanos()
}
