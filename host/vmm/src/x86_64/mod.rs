//! What is x86 about a machine: descriptor tables, stubs, page tables, registers, exceptions.
//!
//! All of ring 0 lies in six pages that only the supervisor may touch, with an unmapped page below
//! either stack.

pub mod descriptors;
pub mod exception;
pub mod features;
pub mod paging;
pub mod registers;
pub mod shutdown;
pub(crate) mod state;
pub(crate) mod stubs;
pub mod user;
pub mod windows;

use wakebox_abi::layout::{self, PAGE_SIZE};

/// Bytes of the ring-0 stack, and of the double-fault stack.
pub(crate) const RING0_STACK: u64 = PAGE_SIZE;

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
