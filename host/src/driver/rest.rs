//! When a poller rests.
//!
//! Whoever watches memory keeps a processor from others, and what it saves is an exit. That pays where there is a processor
//! for it. A thread that watches never sleeps by itself, so where it has had less of a processor than time has passed, it has
//! waited for one: others want them all, the guest or whoever it talks to among them. In mode `auto` it leaves the rings
//! alone then, for longer each time that it finds it so again, and the task that runs the guest takes the turns, as in mode
//! `out`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wakebox_vmm::signal::thread_time;

use crate::primitives::now;

/// After so much more watching it is seen whether there was a processor for it.
const WINDOW: Duration = Duration::from_millis(2);

/// It has waited for more than this part of the time.
const PART: u32 = 10;

/// How long it rests for the first time, and at most.
const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_millis(320);

/// Until when a poller rests, for all who want to know.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// On the clock of [`now`]; zero if it does not.
    until: AtomicU64,
}

impl Rest {
    /// Whether it rests now. A hint, which orders nothing.
    pub(crate) fn is_on(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until > 0 && now() < until
    }

    fn begin(&self, rest: Duration) {
        let until = now() + rest.as_nanos() as u64;
        self.until.store(until, Ordering::Relaxed);
    }
}

/// How the thread that watches has fared lately.
#[derive(Debug)]
pub(crate) struct Watching {
    /// How long it has watched since the last decision,
    fresh: Duration,
    /// and in all, and how much of that it was kept from a processor, where each decision halves what was before: a scheduler
    /// takes a processor away for longer than a window.
    watched: Duration,
    waited: Duration,
    /// How long the next rest is.
    rest: Duration,
    /// When it has begun to watch, and what the thread had of a processor by then.
    began: (Instant, Duration),
}

impl Watching {
    pub(crate) fn new() -> Self {
        Self {
            fresh: Duration::ZERO,
            watched: Duration::ZERO,
            waited: Duration::ZERO,
            rest: LEAST,
            began: (Instant::now(), Duration::ZERO),
        }
    }

    /// The thread that calls begins to watch.
    pub(crate) fn begins(&mut self) {
        self.began = (Instant::now(), thread_time());
    }

    /// It has watched, and perhaps rests from now on.
    pub(crate) fn ends(&mut self, rest: &Rest) {
        let (at, before) = self.began;
        let (passed, had) = (at.elapsed(), thread_time().saturating_sub(before));
        if let Some(long) = self.saw(passed, had) {
            rest.begin(long);
        }
    }

    /// So much time has passed, in which the thread had a processor for so long. Returns how long it is to rest, if it is.
    fn saw(&mut self, passed: Duration, had: Duration) -> Option<Duration> {
        self.fresh += passed;
        self.watched += passed;
        self.waited += passed.saturating_sub(had);
        if self.fresh < WINDOW {
            return None;
        }
        let is_crowded = self.waited * PART > self.watched;
        self.fresh = Duration::ZERO;
        (self.watched, self.waited) = (self.watched / 2, self.waited / 2);
        let rest = self.rest;
        self.rest = match is_crowded {
            true => (rest * 2).min(MOST),
            false => (rest / 2).max(LEAST),
        };
        is_crowded.then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_rests_for_longer_each_time_that_it_waits_for_a_processor() {
        let mut watching = Watching::new();
        let mut rests = Vec::new();
        for _ in 0..20 {
            rests.extend(watching.saw(MS, MS / 2));
        }
        let expected = [10, 20, 40, 80, 160, 320, 320, 320, 320, 320];
        assert_eq!(rests, expected.map(|ms| ms * MS));
        // Where there is a processor it soon does not any more, and what was is forgotten.
        let after: Vec<_> = (0..40).map(|_| watching.saw(MS, MS)).collect();
        assert_eq!(after[20..], [None; 20]);
        assert_eq!(watching.saw(2 * MS, MS), Some(10 * MS));
    }

    #[test]
    fn a_short_wait_is_none() {
        let mut watching = Watching::new();
        // The clocks differ by some microseconds.
        for _ in 0..100 {
            let passed = Duration::from_micros(50);
            assert_eq!(watching.saw(passed, passed * 95 / 100), None);
        }
    }

    #[test]
    fn a_rest_ends() {
        let rest = Rest::default();
        assert!(!rest.is_on());
        rest.begin(Duration::from_secs(3_600));
        assert!(rest.is_on());
        rest.begin(Duration::ZERO);
        assert!(!rest.is_on());
    }
}
