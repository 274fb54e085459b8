//! What an operation costs that no machine makes dearer: exits, and allocations of the host.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use wakebox::{Sandbox, Stats, WakeMode};
use wakebox_tests::{guest, kvm_test, runtime_of};

/// The allocator of the system, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is the system's allocator's; the count is nobody's memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many tasks that do nothing but no-ops, so many in all: what that took, and allocations of all
/// threads from the guest's first instruction to its end.
fn storm(tasks: u32, operations: u32) -> (Stats, u64) {
    let runtime = runtime_of(1);
    let builder = Sandbox::builder().guest(guest("storm")).wake(WakeMode::Out);
    let builder = builder.args([tasks.to_string(), operations.to_string()]);
    let mut sandbox = builder.build().unwrap();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let outcome = runtime.block_on(sandbox.run()).unwrap();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(outcome.is_success(), "{outcome}");
    (sandbox.stats(), allocations)
}

/// What more operations take, of so many tasks: exits that the guest asked for, at least and at most, and
/// allocations.
fn more(tasks: u32, operations: u32) -> (u64, u64, u64) {
    // What is made once is made in the first.
    let ((few, first), (many, second)) = (storm(tasks, operations), storm(tasks, 2 * operations));
    let done = |stats: &Stats| stats.operations_total();
    assert_eq!(done(&many) - done(&few), u64::from(operations));
    let asked = |stats: &Stats| stats.exits.submit + stats.exits.wait;
    let asked = asked(&many).abs_diff(asked(&few));
    // The host serves a guest that it kicks, which then need not ask: a busy machine kicks more.
    let kicks = many.exits.kick + few.exits.kick;
    (
        asked - asked.min(kicks),
        asked + kicks,
        second.saturating_sub(first),
    )
}

// One test: another beside it would allocate, too.
#[kvm_test]
fn an_operation_takes_its_part_of_an_exit_and_no_allocation() {
    for (tasks, operations, exits) in [(1, 2_000, 2_000), (256, 256_000, 1_000)] {
        let (least, most, allocations) = more(tasks, operations);
        assert!(
            (least..=most).contains(&exits),
            "{tasks}: {least} to {most} exits"
        );
        // Without kicks the bounds are one number.
        assert!(most - least < 2 * exits, "{tasks}: {least} to {most} exits");
        // Some happen once, in this run or that. One an operation, or an exit, would be a thousand.
        assert!(allocations < 100, "{tasks}: {allocations} allocations");
    }
}
