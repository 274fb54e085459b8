//! The few things that only the machine can do. Unit tests replace this file by
//! `machine/fake.rs`, whose doorbells are answered by a host made of plain memory.

#[cfg(feature = "processors")]
use core::sync::atomic::Ordering;

#[cfg(feature = "processors")]
use wakebox_abi::layout;
#[cfg(feature = "processors")]
use wakebox_abi::memory::{Control, MappedControl, Word};
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

/// The number of this processor.
#[inline(always)]
pub(crate) fn processor() -> u32 {
    #[cfg(not(feature = "processors"))]
    return 0;
    #[cfg(feature = "processors")]
    control().load(Word::Processor, Ordering::Relaxed)
}

/// Where the other processors begin.
#[cfg(feature = "processors")]
pub(crate) fn entry_of_others() -> usize {
    crate::entry::other as *const () as usize
}

/// Lets the host run other processors: this one waits for one of them.
#[cfg(feature = "processors")]
#[cold]
pub(crate) fn give_way() {
    // To nudge oneself wakes nobody.
    control().store(Word::Target, processor(), Ordering::Relaxed);
    // SAFETY: only a guest's processors wait for each other.
    unsafe { port::ring(port::NUDGE) }
}

/// The control page of this processor.
#[cfg(feature = "processors")]
fn control() -> MappedControl {
    let page = core::ptr::with_exposed_provenance_mut(layout::CONTROL as usize);
    // SAFETY: the address is not zero, and in a guest, which alone comes here, the control page is there for ever.
    unsafe { MappedControl::new(core::ptr::NonNull::new_unchecked(page)) }
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
