//! Where the runtime is found.
//!
//! In a guest it is set once, by the entry, and reached from the one virtual processor only, on which
//! nothing preempts but upcalls: what those reach as well is in masked cells. Where there are several
//! processors, each has one, and finds it through a word of its own control page; what is set is that of the
//! first. On a host, where threads exist, it is never set; unit tests have one per thread.

use alloc::boxed::Box;
#[cfg(test)]
use core::cell::Cell;
#[cfg(not(test))]
use core::sync::atomic::Ordering;

#[cfg(all(feature = "processors", not(test)))]
use wakebox_abi::layout;
#[cfg(all(feature = "processors", not(test)))]
use wakebox_abi::memory::{Control, Word};

use super::Runtime;

#[cfg(not(test))]
static RUNTIME: core::sync::atomic::AtomicPtr<Runtime> =
    core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());

#[cfg(test)]
std::thread_local! {
    static RUNTIME: Cell<Option<&'static Runtime>> = const { Cell::new(None) };
}

/// Makes this the runtime.
///
/// # Safety
///
/// From here on, everything that uses the library runs at home.
pub(crate) unsafe fn install(runtime: Runtime) -> &'static Runtime {
    let runtime = Box::leak(Box::new(runtime));
    #[cfg(all(feature = "processors", not(test)))]
    {
        let local = core::ptr::from_mut(runtime).expose_provenance() as u64;
        let words = [(Word::Local, local), (Word::LocalHigh, local >> 32)];
        for (word, half) in words {
            runtime.control.store(word, half as u32, Ordering::Relaxed);
        }
        if runtime.here.number != 0 {
            return runtime;
        }
    }
    #[cfg(not(test))]
    RUNTIME.store(runtime, Ordering::Relaxed);
    #[cfg(test)]
    RUNTIME.set(Some(runtime));
    runtime
}

/// The runtime of the first processor, if this is a guest.
#[cfg(all(feature = "processors", not(test)))]
#[inline(always)]
pub(crate) fn first_runtime() -> Option<&'static Runtime> {
    // SAFETY: null, or what `install` leaked. Shared references only.
    unsafe { RUNTIME.load(Ordering::Relaxed).as_ref() }
}

/// The runtime of this processor, if this is a guest.
#[cfg(all(feature = "processors", not(test)))]
#[inline(always)]
pub(crate) fn try_runtime() -> Option<&'static Runtime> {
    const {
        let local = Word::Local.offset();
        assert!(local.is_multiple_of(8) && Word::LocalHigh.offset() == local + 4);
    };
    first_runtime()?;
    let local = layout::CONTROL as usize + Word::Local.offset();
    // SAFETY: this is a guest, where the control page is mapped for ever, and these eight bytes are used as
    // atomics only.
    let local = unsafe {
        core::sync::atomic::AtomicU64::from_ptr(core::ptr::with_exposed_provenance_mut(local))
    };
    let local =
        core::ptr::with_exposed_provenance::<Runtime>(local.load(Ordering::Relaxed) as usize);
    // SAFETY: zero before this processor's entry has installed it, or what that leaked; as below, and another processor
    // never sees it.
    unsafe { local.as_ref() }
}

/// The runtime, if this is a guest.
#[cfg(all(not(feature = "processors"), not(test)))]
#[inline(always)]
pub(crate) fn try_runtime() -> Option<&'static Runtime> {
    // SAFETY: null, or what `install` leaked. Shared references only: what changes is in cells,
    // and there is one flow of control, but for upcalls, which are masked where they would find
    // a cell half changed.
    unsafe { RUNTIME.load(Ordering::Relaxed).as_ref() }
}

/// The runtime of this test.
#[cfg(test)]
pub(crate) fn try_runtime() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// The runtime.
///
/// # Panics
///
/// If this is no guest.
#[inline(always)]
pub(crate) fn runtime() -> &'static Runtime {
    match try_runtime() {
        Some(runtime) => runtime,
        None => no_runtime(),
    }
}

#[cold]
fn no_runtime() -> ! {
    panic!("this function works inside a guest only, in or below #[wakebox_guest::main]")
}
