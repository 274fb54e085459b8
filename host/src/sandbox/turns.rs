//! The turns of one processor: when it was entered and left, what that counts for, and how long the next may be.

use std::time::{Duration, Instant};

use super::cpu_time::CpuTime;
use crate::limits::{LimitKind, Limits};
use crate::outcome::Limit;
use crate::stats::RunCounts;

/// Of a processor, as the task that runs it has them.
#[derive(Debug)]
pub(super) struct Turns {
    /// Time on a processor in the guest, if that is limited.
    computed: Option<CpuTime>,
    /// When the guest was left last.
    left_at: Option<Instant>,
    /// When others on this thread had a turn last.
    began: Instant,
}

impl Turns {
    pub(super) fn new(limits: &Limits) -> Self {
        let limited = limits.time(LimitKind::CpuTime).is_some();
        Self {
            computed: limited.then(CpuTime::default),
            left_at: None,
            began: Instant::now(),
        }
    }

    /// The guest is about to be entered. Returns when.
    pub(super) fn enters(&mut self, counts: &RunCounts) -> Instant {
        let entered = Instant::now();
        if let Some(left) = self.left_at {
            counts.in_host.add(entered - left);
        }
        if let Some(computed) = &mut self.computed {
            computed.enter(entered);
        }
        entered
    }

    /// It was left. Returns how long it was on a processor, if that is limited.
    pub(super) fn leaves(&mut self, entered: Instant, counts: &RunCounts) -> Duration {
        let left = Instant::now();
        counts.in_guest.add(left - entered);
        self.left_at = Some(left);
        self.computed.as_mut().map_or(Duration::ZERO, |computed| {
            let before = computed.used();
            computed.leave(entered, left);
            computed.used() - before
        })
    }

    /// Time that this processor was in the guest, if that is limited.
    pub(super) fn used(&self) -> Duration {
        self.computed.as_ref().map_or(Duration::ZERO, CpuTime::used)
    }

    /// How long the guest may stay in its next turn, `quantum` at most, if it runs since `began` and all its processors have
    /// used so much.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    pub(super) fn length(
        &self,
        limits: &Limits,
        quantum: Duration,
        used: Duration,
        began: Instant,
    ) -> Result<Duration, Limit> {
        let runs = self
            .left_at
            .unwrap_or(began)
            .saturating_duration_since(began);
        let of = [
            (LimitKind::CpuTime, used, Limit::CpuTime as fn(_) -> _),
            (LimitKind::WallClock, runs, Limit::WallClock),
        ];
        of.into_iter()
            .try_fold(quantum, |most, (kind, used, reached)| {
                match limits
                    .time(kind)
                    .map(|limit| (limit, limit.saturating_sub(used)))
                {
                    None => Ok(most),
                    Some((limit, Duration::ZERO)) => Err(reached(limit)),
                    Some((_, left)) => Ok(most.min(left)),
                }
            })
    }

    /// Whether others on this thread have waited for so long.
    pub(super) fn is_long(&self, most: Duration) -> bool {
        self.began.elapsed() >= most
    }

    /// Others have had their turn, or had nothing to do.
    pub(super) fn begin(&mut self) -> Instant {
        self.began = Instant::now();
        self.began
    }

    /// When the guest was left last.
    pub(super) fn left_at(&self) -> Option<Instant> {
        self.left_at
    }

    /// The guest was parked since it was left, and no longer is.
    pub(super) fn was_parked(&mut self, counts: &RunCounts) {
        let now = self.begin();
        if let Some(since) = self.left_at.replace(now) {
            counts.parked.add(now - since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_as_long_as_the_quantum_and_what_is_left_of_each_limit() {
        let ms = Duration::from_millis;
        let began = Instant::now();
        let turns = Turns {
            computed: None,
            left_at: Some(began + ms(40)),
            began,
        };
        let length = |limits: Limits, used| turns.length(&limits, ms(10), used, began);
        assert_eq!(length(Limits::new(), ms(5)), Ok(ms(10)));
        assert_eq!(length(Limits::new().cpu_time(ms(8)), ms(5)), Ok(ms(3)));
        assert_eq!(
            length(Limits::new().cpu_time(ms(5)), ms(5)),
            Err(Limit::CpuTime(ms(5)))
        );
        assert_eq!(length(Limits::new().wall_clock(ms(47)), ms(5)), Ok(ms(7)));
        assert_eq!(
            length(Limits::new().wall_clock(ms(39)), ms(5)),
            Err(Limit::WallClock(ms(39)))
        );
    }
}
