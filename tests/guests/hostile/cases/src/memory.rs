//! Memory accesses at, over and around every boundary of the layout.

use core::arch::asm;

use wakebox_abi::layout::{self, PAGE_SIZE};

use crate::case::{Args, Case, End, Expect, Trap};
use crate::guest::Guest;
use crate::machine;

/// A range of the address space and what ring 3 may do there.
struct Region {
    name: &'static str,
    start: u64,
    end: u64,
    read: bool,
    write: bool,
}

const fn region(name: &'static str, start: u64, len: u64, read: bool, write: bool) -> Region {
    Region {
        name,
        start,
        end: start + len,
        read,
        write,
    }
}

/// Everything whose place is fixed, each with nothing mapped below and, but for `control`, above.
const REGIONS: &[Region] = &[
    region("descriptors", layout::SUPERVISOR, PAGE_SIZE, false, false),
    region(
        "stubs",
        layout::SUPERVISOR + PAGE_SIZE,
        PAGE_SIZE,
        false,
        false,
    ),
    region(
        "ring0-stack",
        layout::SUPERVISOR + 3 * PAGE_SIZE,
        PAGE_SIZE,
        false,
        false,
    ),
    region(
        "fault-stack",
        layout::SUPERVISOR + 5 * PAGE_SIZE,
        PAGE_SIZE,
        false,
        false,
    ),
    region("boot", layout::BOOT, PAGE_SIZE, true, false),
    region("clock", layout::CLOCK, PAGE_SIZE, true, false),
    region("instance", layout::INSTANCE, 4 * PAGE_SIZE, true, false),
    // The report page follows it.
    region("control-report", layout::CONTROL, 2 * PAGE_SIZE, true, true),
    region("submissions", layout::SUBMISSIONS, PAGE_SIZE, true, true),
    region("completions", layout::COMPLETIONS, PAGE_SIZE, true, true),
    region("stack", layout::STACK, machine::STACK, true, true),
    region("arena", layout::ARENA, machine::ARENA, true, true),
];

/// Addresses where nothing is.
const NOWHERE: &[(&str, u64)] = &[
    ("null", 0),
    ("null-page-end", 0xFF8),
    ("below-image", layout::IMAGE_MIN - 8),
    ("image-window-end", layout::IMAGE_MAX - 8),
    ("below-heap", layout::HEAP - 8),
    ("lower-half-end", (1 << 47) - PAGE_SIZE),
    ("upper-half", 0xFFFF_8000_0000_0000),
    ("kernel-text", 0xFFFF_FFFF_8100_0000),
    ("top", u64::MAX - 7),
];

fn read(_: &mut Guest, [at, ..]: Args) {
    // SAFETY: reads, or faults as expected.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) at => _) };
}

fn write(_: &mut Guest, [at, ..]: Args) {
    // SAFETY: writes what was there, or faults as expected.
    unsafe { asm!("lock or qword ptr [{0}], 0", in(reg) at) };
}

fn store(_: &mut Guest, [at, ..]: Args) {
    // SAFETY: faults: the place is not writable.
    unsafe { asm!("mov qword ptr [{0}], 1", in(reg) at) };
}

fn execute(_: &mut Guest, [at, ..]: Args) {
    // SAFETY: faults: the place is not executable.
    unsafe { asm!("call {0}", in(reg) at, clobber_abi("sysv64")) };
}

/// Fills to the end of a range and one byte further with one instruction.
fn fill_over(_: &mut Guest, [from, len, ..]: Args) {
    // SAFETY: writes zeroes where zeroes are, and faults at the end.
    unsafe { asm!("rep stosb", in("al") 0_u8, inout("rcx") len => _, inout("rdi") from => _) };
}

/// Writes to what the linker made read-only: its own instructions.
fn write_text(_: &mut Guest, _: Args) {
    let at = write_text as *const u8;
    // SAFETY: faults.
    unsafe { asm!("mov byte ptr [{0}], 0xC3", in(reg) at) };
}

static CONSTANT: [u8; 16] = [0xC3; 16];
static mut DATA: [u8; 16] = [0xC3; 16];

fn execute_constants(_: &mut Guest, _: Args) {
    // SAFETY: faults.
    unsafe { asm!("call {0}", in(reg) &raw const CONSTANT, clobber_abi("sysv64")) };
}

fn execute_data(_: &mut Guest, _: Args) {
    // SAFETY: faults.
    unsafe { asm!("call {0}", in(reg) &raw const DATA, clobber_abi("sysv64")) };
}

fn write_constants(_: &mut Guest, _: Args) {
    // SAFETY: faults.
    unsafe { asm!("mov byte ptr [{0}], 1", in(reg) &raw const CONSTANT) };
}

/// Touches all of the heap and the arena, and then one byte more.
fn memory_bomb(guest: &mut Guest, [over, ..]: Args) {
    let (mut at, end) = (
        guest.boot.heap.start,
        guest.boot.heap.end() + over * PAGE_SIZE,
    );
    while at < end {
        // SAFETY: the heap is the guest's, nothing uses it; behind it a fault is expected.
        unsafe { (at as *mut u64).write_volatile(at) };
        at += PAGE_SIZE;
    }
}

/// Uses stack until there is none.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    match core::hint::black_box(frame[0]) {
        u64::MAX => 0,
        depth => recurse(depth + 1) + frame[1],
    }
}

fn stack_overflow(_: &mut Guest, _: Args) {
    core::hint::black_box(recurse(0));
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for region in REGIONS {
        around(region, visit);
    }
    for (name, at) in NOWHERE {
        let case = |act, what, trap: Trap| {
            Case::new("memory", format_args!("{what}-{name}"), act, trap).with([*at, 0, 0, 0])
        };
        visit(case(read, "read", Trap::Read(*at)));
        visit(case(store, "write", Trap::Write(*at)));
        visit(case(execute, "execute", Trap::Execute(*at)));
    }
    for (name, at) in [
        ("low", 1 << 47),
        ("middle", 1 << 62),
        ("high", 0xFFFF_7FFF_FFFF_FFF8),
    ] {
        for (what, act) in [
            ("read", read as crate::Act),
            ("write", store),
            ("execute", execute),
        ] {
            let name = format_args!("{what}-not-canonical-{name}");
            visit(Case::new("memory", name, act, Trap::Protection).with([at, 0, 0, 0]));
        }
    }
    visit(Case::new(
        "memory",
        "touch-all-of-the-heap",
        memory_bomb,
        End::Exit(0),
    ));
    let behind = Trap::WriteWithin(layout::HEAP, layout::HEAP + machine::MEMORY + 1);
    let case = Case::new("memory", "touch-more-than-the-heap", memory_bomb, behind);
    visit(case.with([1, 0, 0, 0]));
    let guard = Trap::WriteWithin(layout::STACK - PAGE_SIZE, layout::STACK);
    visit(Case::new(
        "memory",
        "recurse-for-ever",
        stack_overflow,
        guard,
    ));
    let write = Trap::WriteWithin(layout::IMAGE_PIE_BASE, layout::IMAGE_MAX);
    let execute = Trap::ExecuteWithin(layout::IMAGE_PIE_BASE, layout::IMAGE_MAX);
    for (name, act, trap) in [
        ("write-own-text", write_text as crate::Act, write),
        ("write-own-constants", write_constants, write),
        ("execute-own-constants", execute_constants, execute),
        ("execute-own-data", execute_data, execute),
    ] {
        visit(Case::new("memory", name, act, trap));
    }
}

fn around(region: &Region, visit: &mut dyn FnMut(Case)) {
    let Region {
        name,
        start,
        end,
        read: may_read,
        write: may_write,
    } = *region;
    let mut case = |act, what, place, at, expect: Expect| {
        let name = format_args!("{what}-{name}-{place}");
        visit(Case::new("memory", name, act, expect).with([at, 0, 0, 0]));
    };
    let fine = |fine, trap| {
        if fine {
            Expect::from(End::Exit(0))
        } else {
            Expect::from(trap)
        }
    };
    for (place, at) in [("first", start), ("last", end - 8)] {
        case(read, "read", place, at, fine(may_read, Trap::Read(at)));
        let writes = if may_write { write } else { store };
        case(writes, "write", place, at, fine(may_write, Trap::Write(at)));
        case(
            execute,
            "execute",
            place,
            at,
            Expect::from(Trap::Execute(at)),
        );
    }
    // Descriptors and stubs are neighbours.
    if name != "stubs" {
        case(
            read,
            "read",
            "below",
            start - 8,
            Trap::Read(start - 8).into(),
        );
        case(
            store,
            "write",
            "below",
            start - 8,
            Trap::Write(start - 8).into(),
        );
        case(
            read,
            "read",
            "into",
            start - 4,
            Trap::Read(start - 4).into(),
        );
    }
    if name != "descriptors" {
        case(read, "read", "above", end, Trap::Read(end).into());
        case(store, "write", "above", end, Trap::Write(end).into());
    }
    if may_read {
        case(read, "read", "across", end - 4, Trap::Read(end).into());
    }
    if may_write {
        case(store, "write", "across", end - 4, Trap::Write(end).into());
        let name = format_args!("fill-{name}-over");
        let case = Case::new("memory", name, fill_over, Trap::Write(end));
        visit(case.with([end - 16, 17, 0, 0]));
    }
}
