//! What Wasmtime wants of a platform that it does not know.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wakebox_guest::window;
use wasmtime::{Engine, ResourceLimiter, Result, Store};

use crate::memory;

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
    if slot == 0 {
        // While WebAssembly is on the stack, a fault may be one of its.
        window::catch(!value.is_null());
    }
}

/// A store whose memories and tables do not grow where there is no room: `table.grow` says so, where it would be an
/// error of the whole program, and one that is wanted at the start is beyond a limit.
pub(crate) fn store<T: 'static>(engine: &Engine, data: T) -> Store<T> {
    let mut store = Store::new(engine, data);
    // It has no size: nothing is allocated, and nothing stays.
    store.limiter(|_| Box::leak(Box::new(Room)));
    store
}

struct Room;

impl ResourceLimiter for Room {
    fn memory_growing(&mut self, has: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        // In a window it stays where it is; else it is copied.
        let more = desired - if window::count() > 0 { has } else { 0 };
        let has_room = || Vec::<u8>::new().try_reserve_exact(more).is_ok();
        Ok(has_room() || memory::release() && has_room())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        // An element is a pointer.
        let has_room = || Vec::<usize>::new().try_reserve_exact(desired).is_ok();
        Ok(has_room() || memory::release() && has_room())
    }
}

/// What to do about an error that [`store`] makes of a memory or a table.
pub(crate) fn advice(error: &str) -> Option<&'static str> {
    let is_room = ["exceeds memory limits", "exceeds table limits"];
    let is_room = is_room.iter().any(|limit| error.contains(limit));
    is_room.then_some("the sandbox has less memory left: `--mem` gives it more")
}

/// A future that Wasmtime may take for one that can change threads: there is one.
pub(crate) struct OneThread<F>(pub(crate) F);

// SAFETY: a guest has one thread.
unsafe impl<F> Send for OneThread<F> {}
// SAFETY: as above.
unsafe impl<F> Sync for OneThread<F> {}

impl<F> OneThread<F> {
    /// What it is, for a closure that is to have it whole.
    pub(crate) fn get(&self) -> &F {
        &self.0
    }
}

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
