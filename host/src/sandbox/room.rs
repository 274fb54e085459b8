//! What of a guest's memory is for what.

use std::fmt;

use wakebox_trace::units;

use super::Sandbox;

/// The parts of a guest's memory, in bytes: together what [`Limits::memory`](crate::Limits::memory) gives. A trace
/// has memory of its own besides.
///
/// `Display` says it in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// The program: its code, its constants and its statics.
    pub program: u64,
    /// Buffers for operations.
    pub buffers: u64,
    /// What the program's allocator has.
    pub heap: u64,
}

impl Room {
    /// Stacks, rings and page tables.
    #[must_use]
    pub const fn rest(&self) -> u64 {
        self.total
            .saturating_sub(self.program + self.buffers + self.heap)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [total, program, buffers, heap, rest] = [
            self.total,
            self.program,
            self.buffers,
            self.heap,
            self.rest(),
        ]
        .map(units::bytes);
        write!(
            f,
            "of {total}, the heap has {heap}, the program {program}, buffers for operations {buffers}, stacks, \
             rings and page tables {rest}"
        )
    }
}

impl Sandbox {
    /// What of its memory is for what.
    #[must_use]
    pub fn room(&self) -> Room {
        let plan = self.memory.plan();
        Room {
            total: plan.memory,
            program: plan.image.len,
            buffers: plan.arena.len,
            heap: plan.heap.len,
        }
    }
}
