//! The largest blocks of the heap and who has asked for them, kept while somebody watches
//! ([`wakebox_abi::heap`]).

use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::boot::{Boot, Range};
use wakebox_abi::heap::{LEAST, Large, PLACES, STACK};

use crate::trace;

/// What the host reads first: the address of the records, or zero.
static RECORDS: AtomicU64 = AtomicU64::new(0);

/// Where RECORDS lies.
pub(crate) fn address() -> u64 {
    RECORDS.as_ptr().addr() as u64
}

/// The records, and the stacks of this guest's processors.
pub(crate) struct Largest {
    records: Cell<*mut [Large; PLACES]>,
    stack: Cell<Range>,
    processors: Cell<u32>,
}

impl Largest {
    pub(crate) const fn new() -> Self {
        Self {
            records: Cell::new(core::ptr::null_mut()),
            stack: Cell::new(Range { start: 0, len: 0 }),
            processors: Cell::new(1),
        }
    }

    pub(crate) fn begin(&self, boot: &Boot) {
        self.stack.set(boot.stack);
        self.processors.set(boot.vcpus);
    }

    /// A block has been given to whoever called the allocator. `allocate` gives room for the records, or null.
    #[inline(always)]
    pub(crate) fn given(&self, block: *mut u8, len: usize, allocate: impl FnOnce() -> *mut u8) {
        if len as u64 >= LEAST && trace::is_on() && !block.is_null() {
            self.record(block.addr() as u64, len as u64, allocate);
        }
    }

    /// A block has been taken back.
    #[inline(always)]
    pub(crate) fn taken(&self, block: *mut u8, len: usize) {
        if len as u64 >= LEAST && !self.records.get().is_null() {
            self.strike(block.addr() as u64);
        }
    }

    #[cold]
    fn record(&self, address: u64, len: u64, allocate: impl FnOnce() -> *mut u8) {
        if self.records.get().is_null() {
            let records = allocate().cast::<[Large; PLACES]>();
            if records.is_null() {
                return;
            }
            // SAFETY: it was allocated for that, and is never given back.
            unsafe { records.write([Large::NONE; PLACES]) };
            self.records.set(records);
            let address = records.expose_provenance() as u64;
            RECORDS.store(address, Ordering::Relaxed);
        }
        // SAFETY: the records are there, and whoever is here is alone: the allocator's promise.
        let records = unsafe { &mut *self.records.get() };
        let least = records.iter_mut().min_by_key(|record| record.len);
        if let Some(least) = least.filter(|record| record.len < len) {
            least.address = address;
            least.len = len;
            least.task = trace::current().into();
            self.note_calls(least);
        }
    }

    #[cold]
    fn strike(&self, address: u64) {
        // SAFETY: as in `record`.
        let records = unsafe { &mut *self.records.get() };
        let found = records.iter_mut().find(|record| record.address == address);
        if let Some(found) = found {
            found.address = 0;
            found.len = 0;
        }
    }

    /// Notes where the calls stand: the registers that the unwind tables of this very function begin with, and what is on
    /// the stack.
    #[inline(never)]
    fn note_calls(&self, record: &mut Large) {
        // SAFETY: it writes eight words of the record, and nothing else.
        unsafe {
            asm!(
                "lea {place}, [rip]",
                "mov [{to}], {place}",
                "mov [{to} + 8], rsp",
                "mov [{to} + 16], rbp",
                "mov [{to} + 24], rbx",
                "mov [{to} + 32], r12",
                "mov [{to} + 40], r13",
                "mov [{to} + 48], r14",
                "mov [{to} + 56], r15",
                place = out(reg) _,
                to = in(reg) record.registers.as_mut_ptr(),
                options(nostack),
            );
        }
        let top = record.registers[1];
        let words = (self.end_of_stack(top) - top) / 8;
        let depth = words.min(STACK as u64);
        record.depth = depth;
        let stack = core::ptr::with_exposed_provenance::<u64>(top as usize);
        for (at, word) in record.stack.iter_mut().enumerate().take(depth as usize) {
            // SAFETY: below the end of the stack, or of the page, all is mapped from its top on. Others may write
            // there: to words that lie in frames below this one nobody does while this runs.
            *word = unsafe { stack.add(at).read_volatile() };
        }
    }

    /// Where the stack ends whose top this is; of one that is not a processor's, at least the page is there.
    fn end_of_stack(&self, top: u64) -> u64 {
        let len = self.stack.get().len;
        let stacks =
            (0..self.processors.get()).map(|number| wakebox_abi::layout::stack_of(number, len));
        for start in stacks {
            if (start..start + len).contains(&top) {
                return start + len;
            }
        }
        (top | (wakebox_abi::layout::PAGE_SIZE - 1)) + 1
    }
}
