//! The few things that only the machine can do. Unit tests replace this file by
//! `machine/fake.rs`, whose doorbells are answered by a host made of plain memory.

use wakebox_abi::port;

use crate::trace::{self, What};

/// Rings a doorbell.
#[inline(always)]
pub(crate) fn ring(port: u16) {
    trace::write(move |_| What::Doorbell { port });
    // SAFETY: the runtime exists, so this is a guest; whoever rings WAIT has announced
    // it (`crate::idle`).
    unsafe { port::ring(port) }
}

/// Halts until an interrupt, unless the completion ring's tail differs from `seen`.
#[inline(always)]
pub(crate) fn halt(seen: u32) {
    // SAFETY: as above.
    unsafe { port::halt(seen) }
}

/// The time-stamp counter.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and a host that forbids it says so
    // by not offering `TSC_CLOCK`, in which case nobody calls this.
    unsafe { core::arch::x86_64::_rdtsc() }
}
