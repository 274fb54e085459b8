//! What a processor does: the poll on it, and for how long polls have computed there.

use crate::TaskId;
use crate::upcalls::Interrupted;

/// The longest stay in the guest that counts, in nanoseconds.
const STAY: u64 = 2_000_000;

/// What a processor does.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) poll: Option<Poll>,
    pub(super) interrupted: Interrupted<Poll>,
    /// Since when the guest runs there.
    pub(super) inside: Option<u64>,
    /// Nanoseconds that the guest has spent in polls, of each stay at most [`STAY`].
    pub(super) computed: u64,
    /// Nanoseconds for which polls have lasted.
    pub(super) polled: u64,
}

impl Running {
    /// What a poll has computed since the guest was entered, or since it began.
    pub(super) fn stay(&self, time: u64) -> u64 {
        match (&self.poll, self.inside) {
            (Some(poll), Some(inside)) => time.saturating_sub(inside.max(poll.begin)).min(STAY),
            _ => 0,
        }
    }

    /// Counts that.
    pub(super) fn compute(&mut self, time: u64) {
        self.computed += self.stay(time);
    }

    /// From what had been computed when a poll began to what it has computed itself, and back, so that
    /// it does not while it is interrupted.
    pub(super) fn turn_over(&mut self) {
        if let Some(poll) = &mut self.poll {
            poll.computed = self.computed.saturating_sub(poll.computed);
        }
    }

    pub(super) fn upcall_begins(&mut self, time: u64) {
        self.compute(time);
        self.turn_over();
        self.interrupted.begin(&mut self.poll);
    }

    pub(super) fn upcall_ends(&mut self, time: u64) {
        self.interrupted.end(&mut self.poll);
        self.turn_over();
        self.inside = self.inside.map(|inside| inside.max(time));
    }
}

#[derive(Debug)]
pub(super) struct Poll {
    pub(super) task: TaskId,
    /// [`Lint::computed`] when it began.
    pub(super) computed: u64,
    pub(super) begin: u64,
    pub(super) woken: bool,
    pub(super) by_another: bool,
}
