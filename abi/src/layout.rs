//! Where things lie in a guest's virtual address space.
//!
//! ```text
//! 0x0000_0000  never mapped: a null dereference faults
//! 0x0001_0000  image window: the ELF's segments (a PIE starts at IMAGE_PIE_BASE)
//! 0x4000_0000  ring-0 page: descriptor tables, stubs, ring-0 stacks   (supervisor)
//! 0x4010_0000  boot page                                              (user, read-only)
//! 0x4018_0000  clock page                                             (user, read-only)
//! 0x4019_0000  instance page, then arguments and environment          (user, read-only)
//! 0x4020_0000  control page: ring indices and the wake words          (user, read-write)
//! 0x4020_1000  report page: last words                                (user, read-write)
//! 0x4020_2000  control pages of all processors, if there are several   (user, read-write)
//! 0x4030_0000  submission ring                                        (user, read-write)
//! 0x4040_0000  completion ring                                        (user, read-write)
//! 0x4100_0000  trace ring, if there is one                            (user, read-write)
//! 0x4800_0000  stacks, guard pages between them and on both sides     (user, read-write)
//! 0x5000_0000  I/O arena, at most 512 MiB                             (user, read-write)
//! 0x1_0000_0000  heap, 2 MiB pages where they fit                     (user, read-write)
//! 0x80_0000_0000 windows, if the guest asks for any                   (user, read-write)
//! ```
//!
//! # Several processors
//!
//! Each processor has page tables of its own, in which what is its own lies at the address that it has in
//! a guest with one: the ring-0 page, the control and the report page, the rings and the trace ring. All else
//! is the same for all of them, and so is where it lies. Each has a stack at an address of its own
//! ([`stack_of`]), and each reaches the control pages of all ([`control_of`]), to wake another.
//!
//! Only what ring-0 stubs and hand-written guests need is a constant; sizes and
//! the rest are told in the boot page ([`crate::boot::Boot`]). Everything up to the
//! heap lies below 2 GiB, so that a stub reaches it with a sign-extended 32-bit
//! displacement.

/// Bytes in a page, the granule of rights.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes in a large page.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Lowest address at which an image may have a segment.
pub const IMAGE_MIN: u64 = 0x1_0000;

/// Where a position-independent image is placed.
pub const IMAGE_PIE_BASE: u64 = 0x20_0000;

/// First address past the image window.
pub const IMAGE_MAX: u64 = 0x4000_0000;

/// Descriptor tables, interrupt stubs and ring-0 stacks. Not reachable from ring 3.
pub const SUPERVISOR: u64 = 0x4000_0000;

/// The boot page: [`crate::boot::Boot`], read-only to the guest.
pub const BOOT: u64 = 0x4010_0000;

/// The clock page: [`crate::boot::Clock`], read-only to the guest, updated by the host.
pub const CLOCK: u64 = 0x4018_0000;

/// The instance page: [`crate::boot::Instance`], read-only to the guest, replaced by the host when
/// the sandbox is restored from a template.
pub const INSTANCE: u64 = 0x4019_0000;

/// Most bytes that the instance page, the arguments and the environment take together: a page
/// stays free below the control page.
pub const INSTANCE_MAX: u64 = CONTROL - PAGE_SIZE - INSTANCE;

/// The control page: ring indices, wake words, counters ([`crate::memory::Word`]).
pub const CONTROL: u64 = 0x4020_0000;

/// The report page: [`crate::report`].
pub const REPORT: u64 = 0x4020_1000;

/// The control page of the first processor, where there are several; those of the others follow it. Each
/// processor finds its own at [`CONTROL`], too.
pub const CONTROLS: u64 = 0x4020_2000;

/// Most processors of a guest.
pub const PROCESSORS_MAX: u32 = 64;

/// The control page of a processor, for all of them. Only a guest with several has it.
#[must_use]
pub const fn control_of(processor: u32) -> u64 {
    CONTROLS + processor as u64 * PAGE_SIZE
}

/// First submission entry.
pub const SUBMISSIONS: u64 = 0x4030_0000;

/// First completion entry.
pub const COMPLETIONS: u64 = 0x4040_0000;

/// First record of the trace ring ([`crate::trace`]), aligned to a large page.
pub const TRACE: u64 = 0x4100_0000;

/// Most records of a trace ring.
pub const TRACE_RECORDS_MAX: u32 = 1 << 21;

/// Lowest mapped address of the first processor's stack; the page below it is a guard page.
pub const STACK: u64 = 0x4800_0000;

/// Most bytes of stack, of all processors together, with the guard pages between them.
pub const STACK_MAX: u64 = 0x400_0000;

/// Most bytes of stack of each of so many processors, whole pages.
#[must_use]
pub const fn stack_max(processors: u32) -> u64 {
    match processors {
        0 | 1 => STACK_MAX,
        _ => (STACK_MAX / processors as u64 - PAGE_SIZE) / PAGE_SIZE * PAGE_SIZE,
    }
}

/// Lowest mapped address of a processor's stack, if each has `len` bytes, whole pages: they lie one above the other,
/// with a guard page between two.
#[must_use]
pub const fn stack_of(processor: u32, len: u64) -> u64 {
    STACK + processor as u64 * (len + PAGE_SIZE)
}

/// First byte of the I/O arena, the only range besides rings and clock into which
/// the host writes after start.
pub const ARENA: u64 = 0x5000_0000;

/// Most bytes of arena.
pub const ARENA_MAX: u64 = 0x2000_0000;

/// First byte of the heap.
pub const HEAP: u64 = 0x1_0000_0000;

/// First byte of the first window ([`crate::window`]): the second half tebibyte, so that its page tables are nobody else's.
pub const WINDOWS: u64 = 0x80_0000_0000;

/// Bytes of address space of each window: 4 GiB, and as much behind them that nothing maps.
pub const WINDOW_SPACE: u64 = 8 << 30;

/// Most windows of a guest.
pub const WINDOWS_MAX: u32 = 256;

/// Where a window begins.
#[must_use]
pub const fn window_of(window: u32) -> u64 {
    WINDOWS + window as u64 * WINDOW_SPACE
}

/// Most entries of a submission ring.
pub const SUBMISSIONS_MAX: u32 = 1 << 14;

/// Most entries of a completion ring, and so most operations in flight.
pub const COMPLETIONS_MAX: u32 = 1 << 18;

const _: () = {
    use crate::entry::{Completion, Submission};
    use crate::trace::Record;
    assert!(
        SUBMISSIONS + SUBMISSIONS_MAX as u64 * Submission::SIZE as u64 <= COMPLETIONS,
        "the submission ring runs into the completion ring: see layout.rs"
    );
    assert!(
        COMPLETIONS + COMPLETIONS_MAX as u64 * Completion::SIZE as u64 <= TRACE,
        "the completion ring runs into the trace ring: see layout.rs"
    );
    assert!(
        control_of(PROCESSORS_MAX) <= SUBMISSIONS,
        "the control pages run into the submission ring: see layout.rs"
    );
    assert!(
        TRACE.is_multiple_of(LARGE_PAGE_SIZE)
            && TRACE + TRACE_RECORDS_MAX as u64 * Record::SIZE as u64 <= STACK - PAGE_SIZE,
        "the trace ring runs into the stack's guard page: see layout.rs"
    );
    assert!(
        STACK + STACK_MAX + PAGE_SIZE <= ARENA && ARENA + ARENA_MAX <= 1 << 31,
        "everything below the heap lies below 2 GiB: see layout.rs"
    );
};
