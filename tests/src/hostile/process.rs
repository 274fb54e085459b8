//! What this process has, by what the kernel says of it.

use std::arch::asm;

use wakebox_hostile::machine;

use crate::leaks;
use crate::memory::{Resident, heap_in_use};

/// What the heap of a process may grow by while it runs cases, in bytes.
const HEAP_GROWTH: u64 = 4 << 20;
/// What the RAM of guests may grow by, in bytes: parts of threads' heaps look like it to the kernel.
const RAM_GROWTH: u64 = 32 << 20;

/// What a sandbox could leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    files: usize,
    threads: usize,
    /// Bytes of guest RAM that are in memory.
    ram: u64,
    /// Bytes that were allocated and not freed.
    heap: u64,
}

impl Left {
    /// What there is now.
    pub(super) fn now() -> Self {
        // What threads have freed goes back to the kernel, to which their heaps look like RAM of guests.
        // SAFETY: it touches what is free, under the allocator's own locks.
        unsafe { libc::malloc_trim(0) };
        Self {
            files: leaks::descriptors().expect("/proc"),
            threads: threads(),
            ram: Resident::now(machine::MEMORY).expect("/proc").guest,
            heap: heap_in_use(),
        }
    }

    /// Whether there are no more files and threads than before, and about as much memory.
    pub(super) fn is_no_more_than(&self, before: &Self) -> bool {
        (self.files, self.threads) == (before.files, before.threads)
            && self.ram <= before.ram + RAM_GROWTH
            && self.heap <= before.heap + HEAP_GROWTH
    }

    /// Takes on the files and threads of another one that has fewer: what has just begun or is about to
    /// end was counted here.
    pub(super) fn settle(&mut self, other: &Self) {
        self.files = self.files.min(other.files);
        self.threads = self.threads.min(other.threads);
    }

    /// Takes on the memory of another one.
    pub(super) fn grow(&mut self, other: &Self) {
        self.ram = self.ram.max(other.ram);
        self.heap = self.heap.max(other.heap);
    }
}

/// Threads of this process, without those that newer kernels have for each VM, and without Tokio's
/// for blocking calls, which wait for a while for the next one.
fn threads() -> usize {
    let names = leaks::thread_names().expect("/proc").into_iter();
    let counts = |name: &String| !name.starts_with("kvm-") && !name.starts_with("tokio-");
    names.filter(counts).count()
}

/// Checks that no guest has changed how this thread computes.
pub(super) fn floats_are_as_before() -> Result<(), String> {
    let (mut sse, mut x87) = (0_u32, 0_u16);
    // SAFETY: both instructions store to the variables.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut sse, options(nostack));
        asm!("fnstcw [{}]", in(reg) &raw mut x87, options(nostack));
    }
    // The low six bits are what was computed so far.
    if (sse & !0x3F, x87) == (0x1F80, 0x37F) {
        return Ok(());
    }
    Err(format!(
        "this thread computes with MXCSR {sse:#x} and FCW {x87:#x} now"
    ))
}
