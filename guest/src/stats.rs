//! How the guest does.

use wakebox_abi::memory::Counter;

use crate::runtime::runtime;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the executor in which something was polled.
    pub turns: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Tasks spawned.
    pub spawned: u64,
    /// Tasks ended.
    pub completed: u64,
    /// Times that a waker put a task into the run queue.
    pub wakes: u64,
    /// Operations submitted.
    pub operations: u64,
    /// Completions read.
    pub completions: u64,
    /// Operations cancelled because their future was dropped.
    pub cancels: u64,
    /// Idle periods that ended by watching memory.
    pub woken_by_memory: u64,
    /// Idle periods that ended with the return of an exit.
    pub woken_by_out: u64,
    /// Idle periods that ended with an interrupt.
    pub woken_by_interrupt: u64,
}

/// The counters as they stand. Costs no exit.
#[must_use]
pub fn stats() -> Stats {
    let mut stats = Stats::default();
    for (counter, value) in runtime().counters() {
        let place = match counter {
            Counter::Turns => &mut stats.turns,
            Counter::Polls => &mut stats.polls,
            Counter::Spawned => &mut stats.spawned,
            Counter::Completed => &mut stats.completed,
            Counter::Wakes => &mut stats.wakes,
            Counter::Operations => &mut stats.operations,
            Counter::Completions => &mut stats.completions,
            Counter::Cancels => &mut stats.cancels,
            Counter::WokenByMemory => &mut stats.woken_by_memory,
            Counter::WokenByOut => &mut stats.woken_by_out,
            Counter::WokenByInterrupt => &mut stats.woken_by_interrupt,
        };
        *place = value;
    }
    stats
}
