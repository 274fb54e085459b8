//! The plan of a guest's memory: what lies where, physically and virtually.
//!
//! ```text
//! offset in RAM
//! 0          descriptor tables | stubs | ring-0 stack | double-fault stack   (supervisor)
//!            boot page | clock | instance page, arguments, environment
//!            control | report | submission ring | completion ring
//!            stack | image | page tables | page tables of windows, if there are any
//!            the same of what each further processor has of its own
//! 2 MiB * n  arena
//! 2 MiB * m  heap
//! 2 MiB * k  trace ring of each processor, if there are any
//! ```

use std::sync::Arc;

use wakebox_abi::boot::Range;
use wakebox_abi::layout::{self, LARGE_PAGE_SIZE, PAGE_SIZE};
use wakebox_abi::trace::Record;

use crate::error::{Error, Result};
use crate::x86_64::paging::{Rights, Tables};
use crate::x86_64::windows::{self, Place};
use crate::x86_64::{RING0_STACK, descriptors_at, fault_stack_at, ring0_stack_at, stubs_at};
use crate::x86_64::{descriptors, stubs};

/// RAM starts at this guest-physical address when it is small enough to end below the
/// addresses that x86 machines keep for devices, and above 4 GiB otherwise.
const LOW_RAM_MAX: u64 = 3 << 30;
const HIGH_RAM_BASE: u64 = 4 << 30;

/// A range of RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes from the start of RAM.
    pub offset: u64,
    /// Length in bytes, whole pages.
    pub len: u64,
}

/// A region at the guest-virtual addresses at which the guest can reach it.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// First guest-virtual address.
    pub start: u64,
    /// What lies there.
    pub region: Region,
    /// What the guest may do with it.
    pub rights: Rights,
}

/// Pages that a guest is made of: the addresses at which it wants them, and what it may do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// First guest-virtual address.
    pub start: u64,
    /// Length in bytes, whole pages.
    pub len: u64,
    /// What the guest may do with them.
    pub rights: Rights,
}

/// Sizes that a sandbox asks for.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// RAM in all, in bytes.
    pub memory: u64,
    /// The arena, in bytes.
    pub arena: u64,
    /// The stack, in bytes.
    pub stack: u64,
    /// Most operations in flight.
    pub in_flight: u32,
    /// Instance page, arguments and environment, in bytes.
    pub instance: u64,
    /// Slots of the trace ring, a power of two, or zero.
    pub trace_records: u32,
    /// Windows of the guest ([`wakebox_abi::window`]), or none.
    pub windows: u32,
    /// Processors, at least one. Stack, operations in flight and trace ring are those of each.
    pub processors: u32,
}

/// What a processor has of its own, where the others have theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The descriptor tables: supervisor, read-only.
    pub descriptors: Region,
    /// The stack of ring 0.
    pub ring0_stack: Region,
    /// The stack of double faults.
    pub fault_stack: Region,
    /// The control page.
    pub control: Region,
    /// The page of a guest's last words.
    pub report: Region,
    /// The submission ring.
    pub submissions: Region,
    /// The completion ring.
    pub completions: Region,
    /// The guest's stack.
    pub stack: Region,
    /// The page tables.
    pub tables: Region,
    /// The trace ring; empty if nobody watches.
    pub trace: Region,
}

/// What lies where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of RAM that the guest was given: what it is made of, and what it may use.
    pub memory: u64,
    /// Bytes of RAM to map.
    pub ram: u64,
    /// Guest-physical address of offset zero.
    pub base: u64,
    /// The descriptor tables: supervisor, read-only.
    pub descriptors: Region,
    /// The stubs: supervisor, executable.
    pub stubs: Region,
    /// The stack of ring 0.
    pub ring0_stack: Region,
    /// The stack of double faults.
    pub fault_stack: Region,
    /// What the guest is told of itself.
    pub boot: Region,
    /// The clock page.
    pub clock: Region,
    /// The instance page, and what lies behind it.
    pub instance: Region,
    /// The control page.
    pub control: Region,
    /// The page of a guest's last words.
    pub report: Region,
    /// The submission ring.
    pub submissions: Region,
    /// The completion ring.
    pub completions: Region,
    /// The guest's stack.
    pub stack: Region,
    /// What the guest is made of.
    pub image: Region,
    /// The page tables.
    pub tables: Region,
    /// The page tables of windows, which all processors share; empty if there are none.
    pub windows: Region,
    /// How many windows there are.
    pub window_count: u32,
    /// The I/O arena.
    pub arena: Region,
    /// The heap.
    pub heap: Region,
    /// The trace ring; empty if nobody watches.
    pub trace: Region,
    /// Slots of the trace ring.
    pub trace_records: u32,
    /// Slots of the submission ring.
    pub submission_entries: u32,
    /// Slots of the completion ring.
    pub completion_entries: u32,
    /// Guest-virtual address of the image's first page.
    pub image_start: u64,
    /// The image's pages.
    image_pages: Arc<[Pages]>,
    /// What each processor but the first has of its own.
    others: Arc<[Own]>,
}

/// Rounds up to whole pages.
pub const fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}

/// Where a trace ring lies: beyond what the guest was given, so that one that is watched has no less.
fn trace_behind(heap: Region, slots: u32) -> Region {
    Region {
        offset: (heap.offset + heap.len).next_multiple_of(LARGE_PAGE_SIZE),
        len: pages(u64::from(slots) * Record::SIZE as u64),
    }
}

/// Lays a trace ring of so many slots for each processor behind the heap. Gives that of the first, and the bytes of RAM
/// to map.
fn lay_traces(heap: Region, others: &mut [Own], slots: u32) -> (Region, u64) {
    let first = trace_behind(heap, slots);
    if slots == 0 {
        return (first, heap.offset + heap.len);
    }
    let mut last = first;
    for other in others {
        last = trace_behind(last, slots);
        other.trace = last;
    }
    (first, last.offset + last.len)
}

/// Guest-physical address of so much RAM.
fn base(ram: u64) -> u64 {
    if ram <= LOW_RAM_MAX { 0 } else { HIGH_RAM_BASE }
}

impl Plan {
    /// Plans the memory of a guest that is made of these pages, which do not overlap.
    ///
    /// # Errors
    ///
    /// [`Error::MemoryTooSmall`] if nothing is left for the heap.
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub fn new(image_pages: &[Pages], sizes: &Sizes) -> Result<Self> {
        let completion_entries = sizes
            .in_flight
            .next_power_of_two()
            .clamp(64, layout::COMPLETIONS_MAX);
        // A submission ring as long as a turn is likely to fill; a longer turn is
        // published in parts.
        let submission_entries = completion_entries.clamp(64, 1024);

        let mut next = 0;
        let mut take = |bytes: u64| {
            let region = Region {
                offset: next,
                len: pages(bytes),
            };
            next += region.len;
            region
        };
        let image_start = image_pages
            .iter()
            .map(|pages| pages.start)
            .min()
            .unwrap_or(0);
        let image_end = image_pages
            .iter()
            .map(|pages| pages.start + pages.len)
            .max();
        let image_len = image_end.map_or(0, |end| end - image_start);
        let descriptors = take(PAGE_SIZE);
        let stubs = take(PAGE_SIZE);
        let ring0_stack = take(RING0_STACK);
        let fault_stack = take(RING0_STACK);
        let boot = take(PAGE_SIZE);
        let clock = take(PAGE_SIZE);
        let instance = take(sizes.instance);
        let control = take(PAGE_SIZE);
        let report = take(PAGE_SIZE);
        let submissions = take(u64::from(submission_entries) * 64);
        let completions = take(u64::from(completion_entries) * 16);
        let stack = take(sizes.stack);
        let image = take(image_len);
        let stacks = (stack.len + PAGE_SIZE) * u64::from(sizes.processors);
        let table_len = Tables::most_pages(image_len, stacks, sizes.memory) * PAGE_SIZE;
        let tables = take(table_len);
        let window_count = windows::count(sizes.windows, sizes.memory);
        let windows = take(windows::most_pages(window_count, sizes.memory) * PAGE_SIZE);
        let mut others: Vec<Own> = (1..sizes.processors)
            .map(|_| Own {
                descriptors: take(PAGE_SIZE),
                ring0_stack: take(RING0_STACK),
                fault_stack: take(RING0_STACK),
                control: take(PAGE_SIZE),
                report: take(PAGE_SIZE),
                submissions: take(submissions.len),
                completions: take(completions.len),
                stack: take(stack.len),
                tables: take(table_len),
                trace: Region::default(),
            })
            .collect();

        let lower = next;
        let arena = Region {
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
        let heap = Region {
            offset: (arena.offset + arena.len).next_multiple_of(LARGE_PAGE_SIZE),
            len: heap_len,
        };
        let (trace, ram) = lay_traces(heap, &mut others, sizes.trace_records);
        Ok(Self {
            memory: sizes.memory,
            ram,
            base: base(ram),
            descriptors,
            stubs,
            ring0_stack,
            fault_stack,
            boot,
            clock,
            instance,
            control,
            report,
            submissions,
            completions,
            stack,
            image,
            tables,
            windows,
            window_count,
            arena,
            heap,
            trace,
            trace_records: sizes.trace_records,
            submission_entries,
            completion_entries,
            image_start,
            image_pages: image_pages.into(),
            others: others.into(),
        })
    }

    /// The same with a trace ring of so many slots for each processor behind all else; `None` if that is none, if there
    /// is a ring already, or if all else would have other addresses for it.
    #[must_use]
    pub fn with_trace(&self, slots: u32) -> Option<Self> {
        if slots == 0 || self.trace.len > 0 {
            return None;
        }
        let mut others = self.others.to_vec();
        let (trace, ram) = lay_traces(self.heap, &mut others, slots);
        (base(ram) == self.base).then(|| Self {
            ram,
            trace,
            trace_records: slots,
            others: others.into(),
            ..self.clone()
        })
    }

    /// All regions: those of a guest with one processor, as they lie one behind the other, then what each further
    /// processor has of its own.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let others = self.others.iter().flat_map(|own| {
            [
                own.descriptors,
                own.ring0_stack,
                own.fault_stack,
                own.control,
                own.report,
                own.submissions,
                own.completions,
                own.stack,
                own.tables,
                own.trace,
            ]
        });
        let first = [
            self.descriptors,
            self.stubs,
            self.ring0_stack,
            self.fault_stack,
            self.boot,
            self.clock,
            self.instance,
            self.control,
            self.report,
            self.submissions,
            self.completions,
            self.stack,
            self.image,
            self.tables,
            self.arena,
            self.heap,
            self.trace,
        ];
        let windows = Some(self.windows).filter(|windows| windows.len > 0);
        first.into_iter().chain(windows).chain(others).collect()
    }

    /// The regions of ring 0, which the guest cannot read or write, in the order of their offsets.
    #[must_use]
    pub fn supervisor(&self) -> Vec<Region> {
        let others = self.others.iter().flat_map(|own| {
            [
                own.descriptors,
                own.ring0_stack,
                own.fault_stack,
                own.tables,
            ]
        });
        let first = [
            self.descriptors,
            self.stubs,
            self.ring0_stack,
            self.fault_stack,
            self.tables,
        ];
        let windows = Some(self.windows).filter(|windows| windows.len > 0);
        first.into_iter().chain(windows).chain(others).collect()
    }

    /// How many processors the guest has.
    #[must_use]
    pub fn processors(&self) -> u32 {
        1 + self.others.len() as u32
    }

    /// What a processor has of its own.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    #[must_use]
    pub fn own(&self, processor: u32) -> Own {
        match processor.checked_sub(1) {
            Some(other) => self.others[other as usize],
            None => Own {
                descriptors: self.descriptors,
                ring0_stack: self.ring0_stack,
                fault_stack: self.fault_stack,
                control: self.control,
                report: self.report,
                submissions: self.submissions,
                completions: self.completions,
                stack: self.stack,
                tables: self.tables,
                trace: self.trace,
            },
        }
    }

    /// Guest-physical address of a region.
    pub fn physical(&self, region: Region) -> u64 {
        self.base + region.offset
    }

    /// Where the tables of windows lie, and the heap.
    pub fn window_place(&self) -> Place {
        Place {
            count: self.window_count,
            tables: self.physical(self.windows),
            len: self.windows.len,
            heap: self.physical(self.heap),
            heap_len: self.heap.len,
        }
    }

    /// The first processor's stack, at the guest's own addresses.
    pub fn stack_range(&self) -> Range {
        self.stack_range_of(0)
    }

    /// A processor's stack, at the guest's own addresses.
    pub fn stack_range_of(&self, processor: u32) -> Range {
        Range {
            start: layout::stack_of(processor, self.stack.len),
            len: self.stack.len,
        }
    }

    /// Where in RAM an address of the image lies.
    pub fn image_offset(&self, address: u64) -> u64 {
        self.image.offset + (address - self.image_start)
    }

    /// What the guest itself can reach on its first processor, in no particular order.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.mappings_of(0)
    }

    /// What the guest itself can reach on a processor, in no particular order.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn mappings_of(&self, processor: u32) -> Vec<Mapping> {
        let own = self.own(processor);
        let regions = [
            (layout::BOOT, self.boot, Rights::READ),
            (layout::CLOCK, self.clock, Rights::READ),
            (layout::INSTANCE, self.instance, Rights::READ),
            (layout::CONTROL, own.control, Rights::WRITE),
            (layout::REPORT, own.report, Rights::WRITE),
            (layout::SUBMISSIONS, own.submissions, Rights::WRITE),
            (layout::COMPLETIONS, own.completions, Rights::WRITE),
            (layout::ARENA, self.arena, Rights::WRITE),
            (layout::HEAP, self.heap, Rights::WRITE),
            (layout::TRACE, own.trace, Rights::WRITE),
        ];
        let all = (0..self.processors()).map(|processor| (processor, self.own(processor)));
        let stacks = all.clone().map(|(processor, other)| {
            let start = self.stack_range_of(processor).start;
            (start, other.stack, Rights::WRITE)
        });
        let controls = all.map(|(processor, other)| {
            (layout::control_of(processor), other.control, Rights::WRITE)
        });
        let controls = controls.filter(|_| self.processors() > 1);
        let image = self.image_pages.iter().map(|pages| {
            let Pages { start, len, rights } = *pages;
            debug_assert!(start % PAGE_SIZE == 0 && len % PAGE_SIZE == 0);
            let offset = self.image_offset(start);
            (start, Region { offset, len }, rights)
        });
        regions
            .into_iter()
            .filter(|(_, region, _)| region.len > 0)
            .chain(stacks)
            .chain(controls)
            .chain(image)
            .map(|(start, region, rights)| Mapping {
                start,
                region,
                rights,
            })
            .collect()
    }

    /// Whether an address of the guest lies in code that it may execute.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        let holds = |mapping: &Mapping| {
            let end = mapping.start + mapping.region.len;
            mapping.rights == Rights::EXECUTE && (mapping.start..end).contains(&address)
        };
        self.mappings().iter().any(holds)
    }

    /// What the processors need before their first instruction, and where in RAM: descriptor tables, stubs
    /// and page tables.
    pub(crate) fn written(&self) -> Vec<(u64, Vec<u8>)> {
        let mut written = vec![(self.stubs.offset, stubs::code().to_vec())];
        for processor in 0..self.processors() {
            let own = self.own(processor);
            let tables = self.tables_of(processor).to_bytes();
            assert!(
                tables.len() as u64 <= own.tables.len,
                "page tables have room"
            );
            written.push((own.descriptors.offset, descriptors::page().to_vec()));
            written.push((own.tables.offset, tables));
        }
        written
    }

    /// The page tables of a processor for this plan: every region with exactly the rights that it needs.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn tables_of(&self, processor: u32) -> Tables {
        let own = self.own(processor);
        let mut tables = Tables::new(self.physical(own.tables));
        let mut map = |virt: u64, region: Region, rights: Rights| {
            tables.map(virt, self.physical(region), region.len, rights);
        };
        map(descriptors_at(), own.descriptors, Rights::SUPERVISOR_READ);
        map(stubs_at(), self.stubs, Rights::SUPERVISOR_EXECUTE);
        map(ring0_stack_at(), own.ring0_stack, Rights::SUPERVISOR_WRITE);
        map(fault_stack_at(), own.fault_stack, Rights::SUPERVISOR_WRITE);
        for mapping in self.mappings_of(processor) {
            map(mapping.start, mapping.region, mapping.rights);
        }
        for (virt, table) in self.window_place().roots() {
            tables.link(virt, table);
        }
        tables
    }
}
