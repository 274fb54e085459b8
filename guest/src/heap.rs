//! The heap: `talc` in the range that the boot page names.

use core::alloc::{GlobalAlloc, Layout};

use talc::TalcCell;
use talc::source::Manual;
use wakebox_abi::boot::Boot;

#[cfg(not(feature = "processors"))]
use crate::mask::mask as alone;

/// Nobody else uses the heap, until what is returned is dropped.
#[cfg(feature = "processors")]
#[inline(always)]
fn alone() -> crate::lock::Taken<'static> {
    static LOCK: crate::lock::RawLock = crate::lock::RawLock::new();
    LOCK.take()
}

struct Shared(TalcCell<Manual>);

/// A block has been given to whoever called the allocator, who is alone.
#[inline(always)]
fn given(block: *mut u8, len: usize) {
    #[cfg(all(feature = "trace", not(test)))]
    // SAFETY: the caller is alone; the layout has a size.
    unsafe {
        use wakebox_abi::heap::{Large, PLACES};
        crate::large::given(block, len, || {
            SHARED.0.alloc(Layout::new::<[Large; PLACES]>())
        });
    }
    let _ = (block, len);
}

/// A block has been taken back, by who is alone.
#[inline(always)]
fn taken(block: *mut u8, len: usize) {
    #[cfg(all(feature = "trace", not(test)))]
    // SAFETY: the caller is alone.
    unsafe {
        crate::large::taken(block, len);
    }
    let _ = (block, len);
}

// SAFETY: a guest has one virtual processor, and upcalls are masked whenever the heap is used; interrupt
// stubs run in ring 0 and allocate nothing. Where there are several processors, one of them has the lock.
// On a host, where threads exist, the heap is never used.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(TalcCell::new(Manual));

/// Gives the heap its memory.
///
/// # Safety
///
/// The range is mapped and nobody else's, and the code runs as a Wakebox guest.
pub(crate) unsafe fn claim(boot: &Boot) {
    #[cfg(all(feature = "trace", not(test)))]
    crate::large::begin(boot);
    let start = core::ptr::with_exposed_provenance_mut(boot.heap.start as usize);
    // SAFETY: the caller's promise. Too small a range leaves a heap without memory, and
    // the first allocation says so.
    let _ = unsafe { SHARED.0.claim(start, boot.heap.len as usize) };
}

/// The heap of a guest, as its allocator.
#[doc(hidden)]
#[derive(Debug)]
pub struct Heap;

// SAFETY: passes everything on to an allocator.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _alone = alone();
        // SAFETY: the caller's promise.
        let block = unsafe { SHARED.0.alloc(layout) };
        given(block, layout.size());
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let _alone = alone();
        taken(block, layout.size());
        // SAFETY: the caller's promise.
        unsafe { SHARED.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _alone = alone();
        // SAFETY: the caller's promise.
        let moved = unsafe { SHARED.0.realloc(block, layout, size) };
        if !moved.is_null() {
            taken(block, layout.size());
            given(moved, size);
        }
        moved
    }
}
