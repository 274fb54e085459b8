//! From when on something is a finding.

use std::time::Duration;

/// From when on something is a finding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Thresholds {
    /// A poll that computes for longer: 50 ms. What counts is time in the guest, of each stay at most
    /// 2 ms, which is the longest that a guest who is traced may stay: what is beyond was not its.
    /// Events make a poll longer: about 0.1 us each.
    pub poll: Duration,
    /// More wakes of a task than this between two polls of it: 1,000.
    pub wakes: u64,
    /// A share of polls in vain ([`Summary::spurious`](crate::summary::Summary::spurious)) above
    /// this, from 0 to 1: 0.5.
    pub spurious: f64,
    /// That share is looked at only after so many polls of a task: 100,
    pub spurious_polls: u64,
    /// and if its polls are no longer than this on average: 20 us. One who computes for a while and
    /// yields looks as idle in a trace as one who only looks and goes.
    pub spurious_length: Duration,
    /// More polls than this in a row of tasks that wake each other, in which no operation begins or
    /// ends, no timer fires, and no task is spawned or ends: 1,000. Only if they are no longer than
    /// [`Self::spurious_length`] on average: those who compute get somewhere.
    pub circle: u64,
    /// A timer that fires later than this, counting only the time in which a task was being polled:
    /// 100 ms. If the guest could have fired it and was not let, ten times that.
    pub late: Duration,
    /// A task that has waited for something of the guest's own making for longer than this when the
    /// run ends, although somebody keeps its waker: never. One who waits for work that does not
    /// come is as quiet as one who was forgotten.
    pub unwoken: Option<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(50),
            wakes: 1_000,
            spurious: 0.5,
            spurious_polls: 100,
            spurious_length: Duration::from_micros(20),
            circle: 1_000,
            late: Duration::from_millis(100),
            unwoken: None,
        }
    }
}
