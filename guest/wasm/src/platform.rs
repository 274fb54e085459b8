//! What Wasmtime wants of a platform that it does not know.

use core::cell::UnsafeCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// What would be thread-local.
struct Slots(UnsafeCell<[*mut u8; 2]>);

// SAFETY: a guest has one thread.
unsafe impl Sync for Slots {}

static SLOTS: Slots = Slots(UnsafeCell::new([core::ptr::null_mut(); 2]));

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_get(slot: usize) -> *mut u8 {
    // SAFETY: one thread, and no reference outlives the access.
    unsafe { (*SLOTS.0.get())[slot] }
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_set(slot: usize, value: *mut u8) {
    // SAFETY: as above.
    unsafe { (*SLOTS.0.get())[slot] = value };
}

/// A future that Wasmtime may take for one that can change threads: there is one.
pub(crate) struct OneThread<F>(pub(crate) F);

// SAFETY: a guest has one thread.
unsafe impl<F> Send for OneThread<F> {}
// SAFETY: as above.
unsafe impl<F> Sync for OneThread<F> {}

impl<F: Future> Future for OneThread<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the field is pinned as its owner is.
        unsafe { self.map_unchecked_mut(|this| &mut this.0) }.poll(cx)
    }
}

/// Whether the processor has a feature: the compiler is told of these and no others.
pub(crate) fn has_feature(name: &str) -> Option<bool> {
    let bit = match name {
        "sse3" => 0,
        "ssse3" => 9,
        "cmpxchg16b" => 13,
        "sse4.1" => 19,
        "sse4.2" => 20,
        "popcnt" => 23,
        _ => return Some(false),
    };
    let leaf = core::arch::x86_64::__cpuid(1);
    Some(leaf.ecx >> bit & 1 == 1)
}
