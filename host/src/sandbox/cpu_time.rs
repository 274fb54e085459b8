//! How long a guest was on a processor, without asking the scheduler at every exit.
//!
//! The scheduler's count for a thread takes a system call. A guest that makes an operation after
//! the other is left every few dozen microseconds; two calls for each stay are felt. So a short
//! stay counts as it is by the wall clock, and only a long one, in which others may have had
//! the processor, as the scheduler counts it: the thread's time since it was last asked for, which is at
//! most [`FRESH`] before the stay, and never more than the stay.

use std::time::{Duration, Instant};

use wakebox_vmm::signal::{thread_id, thread_time};

/// Longest stay that counts by the wall clock.
const SHORT: Duration = Duration::from_micros(100);
/// How old the thread's time may be when the guest is entered: so much of the host's own time may
/// be counted as the guest's when others took the processor from it.
const FRESH: Duration = Duration::from_micros(250);

/// The time that one guest was on a processor.
#[derive(Debug, Default)]
pub(super) struct CpuTime {
    used: Duration,
    asked: Option<Reading>,
}

/// The time for which a thread had run at some moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    thread: i32,
    at: Instant,
    time: Duration,
}

impl CpuTime {
    pub(super) fn used(&self) -> Duration {
        self.used
    }

    /// The guest is about to be entered by this thread.
    pub(super) fn enter(&mut self, now: Instant) {
        let is_fresh = |asked: Reading| asked.is_fresh(thread_id(), now);
        if !self.asked.is_some_and(is_fresh) {
            self.asked = Some(Reading::now(now));
        }
    }

    /// The guest was left, by the thread that had entered it.
    pub(super) fn leave(&mut self, entered: Instant, left: Instant) {
        let now = (left - entered > SHORT).then(|| Reading::now(left));
        self.count(left - entered, now);
    }

    fn count(&mut self, stay: Duration, now: Option<Reading>) {
        let at_most = match (self.asked, now) {
            (Some(before), Some(now)) => now.time.saturating_sub(before.time),
            _ => Duration::MAX,
        };
        self.used += stay.min(at_most);
        self.asked = now.or(self.asked);
    }
}

impl Reading {
    /// Whether it will do for a stay that begins now on a thread.
    fn is_fresh(&self, thread: i32, now: Instant) -> bool {
        self.thread == thread && now - self.at < FRESH
    }

    fn now(at: Instant) -> Self {
        Self {
            thread: thread_id(),
            at,
            time: thread_time(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(time: Duration) -> Option<Reading> {
        Some(Reading {
            thread: 0,
            at: Instant::now(),
            time,
        })
    }

    fn asked(time: Duration) -> CpuTime {
        CpuTime {
            used: Duration::ZERO,
            asked: reading(time),
        }
    }

    const STAY: Duration = Duration::from_millis(10);

    #[test]
    fn a_stay_in_which_others_had_the_processor_counts_without_them() {
        let mut time = asked(Duration::from_secs(1));
        time.count(STAY, reading(Duration::from_millis(1_004)));
        assert_eq!(time.used(), Duration::from_millis(4));
        // And from there on.
        time.count(STAY, reading(Duration::from_millis(1_005)));
        assert_eq!(time.used(), Duration::from_millis(5));
    }

    #[test]
    fn what_the_host_did_before_the_stay_is_not_the_guests() {
        let mut time = asked(Duration::from_secs(1));
        time.count(STAY, reading(Duration::from_secs(2)));
        assert_eq!(time.used(), STAY);
    }

    #[test]
    fn a_short_stay_counts_in_full() {
        let mut time = asked(Duration::from_secs(1));
        time.count(SHORT, None);
        time.count(SHORT, None);
        assert_eq!(time.used(), 2 * SHORT);
    }

    #[test]
    fn neither_an_old_time_will_do_nor_that_of_another_thread() {
        let asked = reading(Duration::ZERO).unwrap();
        assert!(asked.is_fresh(asked.thread, asked.at + FRESH / 2));
        assert!(!asked.is_fresh(asked.thread, asked.at + FRESH));
        assert!(!asked.is_fresh(asked.thread + 1, asked.at));
    }
}
