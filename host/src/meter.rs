//! How much a running sandbox has used of what is limited by number.
//!
//! Bytes are taken at the moment of the system call that moves them and what it did not move is
//! given back, so that a limit is neither passed nor used up by an operation that only waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::status::Status;

use crate::limits::{LimitKind, Limits, UNLIMITED};

/// The meters of one sandbox. Its operations count here, on whichever thread they run.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    used: [AtomicU64; LimitKind::COUNT],
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            used: [const { AtomicU64::new(0) }; LimitKind::COUNT],
        })
    }

    fn used(&self, kind: LimitKind) -> u64 {
        // A count; readers want no order, here and below.
        self.used[kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes that were moved so far, by kind; only kinds that occurred.
    pub(crate) fn bytes(&self) -> Vec<(&'static str, u64)> {
        LimitKind::ALL
            .iter()
            .filter(|kind| kind.is_bytes())
            .map(|kind| (kind.key(), self.used(*kind)))
            .filter(|(_, used)| *used > 0)
            .collect()
    }

    /// Adds to what is used, at most what is left. Returns how much that was.
    fn add(&self, kind: LimitKind, wanted: u64) -> u64 {
        let used = &self.used[kind as usize];
        let most = self.limits.value(kind);
        let left = |used: u64| match most {
            // Also when the count has come to its end.
            UNLIMITED => wanted,
            most => wanted.min(most.saturating_sub(used)),
        };
        let add = |used: u64| Some(used.saturating_add(left(used)));
        let before = match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(before) | Err(before) => before,
        };
        left(before)
    }

    fn give_back(&self, kind: LimitKind, count: u64) {
        if count > 0 {
            let less = |used: u64| Some(used.saturating_sub(count));
            let used = &self.used[kind as usize];
            let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Takes some of what is wanted, at least one if any is wanted.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if nothing is left.
    pub(crate) fn take(&self, kind: LimitKind, wanted: usize) -> Result<Taken<'_>, Status> {
        let count = self.add(kind, wanted as u64);
        if count == 0 && wanted > 0 {
            return Err(Status::QuotaExceeded);
        }
        Ok(Taken {
            meter: self,
            kind,
            count,
        })
    }

    /// Takes all of what is wanted.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if less is left; then nothing is taken.
    pub(crate) fn take_whole(&self, kind: LimitKind, wanted: usize) -> Result<Taken<'_>, Status> {
        let taken = self.take(kind, wanted)?;
        if taken.len() < wanted {
            return Err(Status::QuotaExceeded);
        }
        Ok(taken)
    }

    /// Takes all of what is wanted for good.
    ///
    /// # Errors
    ///
    /// As [`Self::take_whole`].
    pub(crate) fn take_all(&self, kind: LimitKind, wanted: usize) -> Result<(), Status> {
        self.take_whole(kind, wanted)?.keep(wanted);
        Ok(())
    }

    /// Takes one thing, for as long as the value lives.
    ///
    /// # Errors
    ///
    /// `LimitReached` if there are as many as there may be.
    pub(crate) fn one(self: &Arc<Self>, kind: LimitKind) -> Result<One, Status> {
        match self.add(kind, 1) {
            0 => Err(Status::LimitReached),
            _ => Ok(One {
                meter: self.clone(),
                kind,
            }),
        }
    }
}

/// Bytes that were taken. What is not [kept](Self::keep) goes back.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    meter: &'a Meter,
    kind: LimitKind,
    count: u64,
}

impl Taken<'_> {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// So many were moved.
    pub(crate) fn keep(mut self, moved: usize) {
        self.count = self.count.saturating_sub(moved as u64);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.meter.give_back(self.kind, self.count);
    }
}

/// One of a limited number of things.
#[derive(Debug)]
pub(crate) struct One {
    meter: Arc<Meter>,
    kind: LimitKind,
}

impl Drop for One {
    fn drop(&mut self) {
        self.meter.give_back(self.kind, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: LimitKind = LimitKind::NetworkIn;

    #[test]
    fn a_quota_is_used_to_the_last_byte_and_not_passed() {
        let meter = Meter::new(Limits::new().network_in(10));
        meter.take(KIND, 6).unwrap().keep(6);
        let taken = meter.take(KIND, 6).unwrap();
        assert_eq!(taken.len(), 4);
        // While it is in somebody's hands, nobody else gets it.
        assert_eq!(meter.take(KIND, 1).unwrap_err(), Status::QuotaExceeded);
        taken.keep(1);
        assert_eq!(meter.take_all(KIND, 4), Err(Status::QuotaExceeded));
        assert_eq!(meter.take_all(KIND, 3), Ok(()));
        assert_eq!(meter.used(KIND), 10);
        assert_eq!(meter.take(KIND, 0).unwrap().len(), 0);
    }

    #[test]
    fn what_was_not_moved_goes_back() {
        let meter = Meter::new(Limits::new().network_in(10));
        drop(meter.take(KIND, 10).unwrap());
        assert_eq!(meter.used(KIND), 0);
        let unlimited = Meter::new(Limits::unlimited());
        unlimited.take(KIND, usize::MAX).unwrap().keep(5);
        assert_eq!(unlimited.used(KIND), 5);
        // Lengths of files may be as large as they like.
        for _ in 0..2 {
            unlimited.take_all(KIND, usize::MAX).unwrap();
        }
        assert_eq!(unlimited.take(KIND, 7).unwrap().len(), 7);
    }

    #[test]
    fn things_count_for_as_long_as_they_live() {
        let meter = Meter::new(Limits::new().timers(2));
        let timers = [meter.one(LimitKind::Timers), meter.one(LimitKind::Timers)];
        assert!(timers.iter().all(Result::is_ok));
        let third = meter.one(LimitKind::Timers);
        assert_eq!(third.unwrap_err(), Status::LimitReached);
        drop(timers);
        assert!(meter.one(LimitKind::Timers).is_ok());
    }
}
