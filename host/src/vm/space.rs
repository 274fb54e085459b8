//! The plan of a guest's memory: what lies where, physically and virtually.
//!
//! ```text
//! offset in RAM
//! 0          descriptor tables | stubs | ring-0 stack | double-fault stack   (supervisor)
//!            boot page, arguments, environment | clock
//!            control | report | submission ring | completion ring
//!            stack | image | page tables
//! 2 MiB * n  arena
//! 2 MiB * m  heap
//! 2 MiB * k  trace ring, if there is one
//! ```

use wakebox_abi::layout::{self, LARGE_PAGE_SIZE, PAGE_SIZE};
use wakebox_abi::trace::Record;

use super::paging::{Rights, Tables};
use crate::error::{Error, Result};
use crate::loader::Image;

/// RAM starts at this guest-physical address when it is small enough to end below the
/// addresses that x86 machines keep for devices, and above 4 GiB otherwise.
const LOW_RAM_MAX: u64 = 3 << 30;
const HIGH_RAM_BASE: u64 = 4 << 30;

/// Bytes of the ring-0 stack, and of the double-fault stack.
pub(crate) const RING0_STACK: u64 = PAGE_SIZE;

/// A range of RAM.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// Bytes from the start of RAM.
    pub(crate) offset: u64,
    /// Length in bytes, whole pages.
    pub(crate) len: u64,
}

/// A part at the guest-virtual addresses at which the guest can reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// First guest-virtual address.
    pub(crate) start: u64,
    pub(crate) part: Part,
    pub(crate) rights: Rights,
}

/// Sizes that a sandbox asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// RAM in all, in bytes.
    pub(crate) memory: u64,
    /// The arena, in bytes.
    pub(crate) arena: u64,
    /// The stack, in bytes.
    pub(crate) stack: u64,
    /// Most operations in flight.
    pub(crate) in_flight: u32,
    /// Boot page, arguments and environment, in bytes.
    pub(crate) boot: u64,
    /// Places of the trace ring, a power of two, or zero.
    pub(crate) trace_records: u32,
}

/// What lies where.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// Bytes of RAM to map.
    pub(crate) ram: u64,
    /// Guest-physical address of offset zero.
    pub(crate) base: u64,
    pub(crate) descriptors: Part,
    pub(crate) stubs: Part,
    pub(crate) ring0_stack: Part,
    pub(crate) fault_stack: Part,
    pub(crate) boot: Part,
    pub(crate) clock: Part,
    pub(crate) control: Part,
    pub(crate) report: Part,
    pub(crate) submissions: Part,
    pub(crate) completions: Part,
    pub(crate) stack: Part,
    pub(crate) image: Part,
    pub(crate) tables: Part,
    pub(crate) arena: Part,
    pub(crate) heap: Part,
    pub(crate) trace: Part,
    pub(crate) trace_records: u32,
    pub(crate) submission_entries: u32,
    pub(crate) completion_entries: u32,
    /// Guest-virtual address of the image's first page.
    pub(crate) image_start: u64,
}

/// Rounds up to whole pages.
pub(crate) const fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}

impl Space {
    /// Plans the memory of a sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::MemoryTooSmall`] if nothing is left for the heap.
    pub(crate) fn plan(image: &Image, sizes: &Sizes) -> Result<Self> {
        let completion_entries = sizes
            .in_flight
            .next_power_of_two()
            .clamp(64, layout::COMPLETIONS_MAX);
        // A submission ring as long as a turn is likely to fill; a longer turn is
        // published in parts.
        let submission_entries = completion_entries.clamp(64, 1024);

        let mut next = 0;
        let mut take = |bytes: u64| {
            let part = Part {
                offset: next,
                len: pages(bytes),
            };
            next += part.len;
            part
        };
        let span = image.span();
        let descriptors = take(PAGE_SIZE);
        let stubs = take(PAGE_SIZE);
        let ring0_stack = take(RING0_STACK);
        let fault_stack = take(RING0_STACK);
        let boot = take(sizes.boot);
        let clock = take(PAGE_SIZE);
        let control = take(PAGE_SIZE);
        let report = take(PAGE_SIZE);
        let submissions = take(u64::from(submission_entries) * 64);
        let completions = take(u64::from(completion_entries) * 16);
        let stack = take(sizes.stack);
        let image_part = take(span.len);
        let tables = take(Tables::most_pages(span.len, stack.len, sizes.memory) * PAGE_SIZE);

        let lower = next;
        let arena = Part {
            offset: lower.next_multiple_of(LARGE_PAGE_SIZE),
            len: pages(sizes.arena),
        };
        let least_heap = 16 * PAGE_SIZE;
        let heap_len = sizes
            .memory
            .checked_sub(lower + arena.len)
            .map(|len| len / PAGE_SIZE * PAGE_SIZE)
            .filter(|len| *len >= least_heap)
            .ok_or(Error::MemoryTooSmall {
                asked: sizes.memory,
                least: lower + arena.len + least_heap,
            })?;
        let heap = Part {
            offset: (arena.offset + arena.len).next_multiple_of(LARGE_PAGE_SIZE),
            len: heap_len,
        };
        // Beyond what the guest was given: a guest that is watched has no less.
        let trace = Part {
            offset: (heap.offset + heap.len).next_multiple_of(LARGE_PAGE_SIZE),
            len: pages(u64::from(sizes.trace_records) * Record::SIZE as u64),
        };
        let ram = match trace.len {
            0 => heap.offset + heap.len,
            len => trace.offset + len,
        };
        Ok(Self {
            ram,
            base: if ram <= LOW_RAM_MAX { 0 } else { HIGH_RAM_BASE },
            descriptors,
            stubs,
            ring0_stack,
            fault_stack,
            boot,
            clock,
            control,
            report,
            submissions,
            completions,
            stack,
            image: image_part,
            tables,
            arena,
            heap,
            trace,
            trace_records: sizes.trace_records,
            submission_entries,
            completion_entries,
            image_start: span.start,
        })
    }

    /// Guest-physical address of a part.
    pub(crate) fn physical(&self, part: Part) -> u64 {
        self.base + part.offset
    }

    /// What the guest itself can reach, in no particular order.
    pub(crate) fn mappings(&self, image: &Image) -> Vec<Mapping> {
        let parts = [
            (layout::BOOT, self.boot, Rights::READ),
            (layout::CLOCK, self.clock, Rights::READ),
            (layout::CONTROL, self.control, Rights::WRITE),
            (layout::REPORT, self.report, Rights::WRITE),
            (layout::SUBMISSIONS, self.submissions, Rights::WRITE),
            (layout::COMPLETIONS, self.completions, Rights::WRITE),
            (layout::STACK, self.stack, Rights::WRITE),
            (layout::ARENA, self.arena, Rights::WRITE),
            (layout::HEAP, self.heap, Rights::WRITE),
            (layout::TRACE, self.trace, Rights::WRITE),
        ];
        let image = image.pages().into_iter().map(|(start, len, rights)| {
            debug_assert!(start % PAGE_SIZE == 0 && len % PAGE_SIZE == 0);
            let offset = self.image.offset + (start - self.image_start);
            (start, Part { offset, len }, rights)
        });
        parts
            .into_iter()
            .filter(|(_, part, _)| part.len > 0)
            .chain(image)
            .map(|(start, part, rights)| Mapping {
                start,
                part,
                rights,
            })
            .collect()
    }

    /// The page tables for this plan: every part with exactly the rights that it needs.
    pub(crate) fn tables(&self, image: &Image) -> Tables {
        let mut tables = Tables::new(self.physical(self.tables));
        let mut map = |virt: u64, part: Part, rights: Rights| {
            tables.map(virt, self.physical(part), part.len, rights);
        };
        map(descriptors_at(), self.descriptors, Rights::SUPERVISOR_READ);
        map(stubs_at(), self.stubs, Rights::SUPERVISOR_EXECUTE);
        map(ring0_stack_at(), self.ring0_stack, Rights::SUPERVISOR_WRITE);
        map(fault_stack_at(), self.fault_stack, Rights::SUPERVISOR_WRITE);
        for mapping in self.mappings(image) {
            map(mapping.start, mapping.part, mapping.rights);
        }
        tables
    }
}

/// Virtual address of the descriptor tables.
pub(crate) const fn descriptors_at() -> u64 {
    layout::SUPERVISOR
}

/// Virtual address of the stubs.
pub(crate) const fn stubs_at() -> u64 {
    layout::SUPERVISOR + PAGE_SIZE
}

/// Virtual address of the ring-0 stack's lowest byte; an unmapped page lies below it.
pub(crate) const fn ring0_stack_at() -> u64 {
    layout::SUPERVISOR + 3 * PAGE_SIZE
}

/// Virtual address of the double-fault stack's lowest byte; an unmapped page lies below it.
pub(crate) const fn fault_stack_at() -> u64 {
    layout::SUPERVISOR + 5 * PAGE_SIZE
}
