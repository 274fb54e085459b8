//! Whom `embassy-time` wants to be woken, and when.
//!
//! Its interface knows no timers that can be dropped: it names a moment and a waker at each
//! poll of a timer that is not over. So there is at most one alarm for each waker, the earliest,
//! and whoever is woken polls its other timers and names their moments again.

use alloc::collections::BTreeMap;
use core::task::Waker;

use crate::trace::{self, What};

/// Nanoseconds on the guest's monotonic clock.
type Nanos = u64;

/// The two words of a waker. Those of one that is kept are not given to another meanwhile.
type Identity = (usize, usize);

/// The key of an alarm: its moment, and which was set first among those of one moment.
type AlarmKey = (Nanos, u64);

/// All alarms of a guest.
#[derive(Debug)]
pub(crate) struct Alarms {
    by_time: BTreeMap<AlarmKey, Waker>,
    by_waker: BTreeMap<Identity, AlarmKey>,
    next_sequence: u64,
}

/// The number of the first alarm, far from those of timers ([`crate::timers`]).
const FIRST: u64 = 1 << 48;

fn identity(waker: &Waker) -> Identity {
    let vtable = core::ptr::from_ref(waker.vtable());
    (waker.data().addr(), vtable.addr())
}

impl Alarms {
    pub(crate) const fn new() -> Self {
        Self {
            by_time: BTreeMap::new(),
            by_waker: BTreeMap::new(),
            next_sequence: FIRST,
        }
    }

    /// The nearest moment.
    #[inline]
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.by_time.first_key_value().map(|(key, _)| key.0)
    }

    /// Wakes `waker` at a moment, if nothing wakes it before. Returns the waker to drop.
    #[must_use]
    pub(crate) fn set(&mut self, at: Nanos, waker: &Waker) -> Option<Waker> {
        let old = match self.by_waker.get(&identity(waker)) {
            Some(key) if key.0 <= at => {
                trace::waits_for_timer(key.0, || key.1);
                return None;
            }
            Some(&key) => self.take(key),
            None => None,
        };
        let timer = self.next_sequence;
        let key = (at, timer);
        self.next_sequence += 1;
        trace::write(move |by| What::TimerSet {
            timer,
            at_ns: at,
            by,
        });
        trace::waits_for_timer(at, || timer);
        let waker = waker.clone();
        // That of the clone, which need not have the words of the original.
        let replaced = self.by_waker.insert(identity(&waker), key);
        let replaced = replaced.and_then(|key| self.by_time.remove(&key));
        self.by_time.insert(key, waker);
        old.or(replaced)
    }

    /// Fires the first alarm that is due, and returns whom to wake, and the number of the alarm.
    pub(crate) fn fire(&mut self, now: Nanos) -> Option<(Waker, u64)> {
        let (&key, _) = self.by_time.first_key_value()?;
        if key.0 > now {
            return None;
        }
        Some((self.take(key)?, key.1))
    }

    fn take(&mut self, key: AlarmKey) -> Option<Waker> {
        let waker = self.by_time.remove(&key)?;
        self.by_waker.remove(&identity(&waker));
        Some(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::task::Wake;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fire_all(alarms: &mut Alarms, now: Nanos) -> usize {
        core::iter::from_fn(|| alarms.fire(now))
            .map(|(waker, _)| waker.wake())
            .count()
    }

    #[test]
    fn a_waker_has_one_alarm_and_it_is_the_earliest() {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(bell.clone());
        let mut alarms = Alarms::new();
        for at in [50, 70, 30, 30, 90] {
            drop(alarms.set(at, &waker));
        }
        assert_eq!(alarms.next(), Some(30));
        assert_eq!(fire_all(&mut alarms, 29), 0);
        assert_eq!(fire_all(&mut alarms, 100), 1);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(alarms.next(), None);
        assert!(alarms.by_waker.is_empty());
        // This test's own, and the one in `waker`.
        assert_eq!(Arc::strong_count(&bell), 2);
    }

    #[test]
    fn alarms_fire_in_order_each_for_its_own_waker() {
        let bells: Vec<Arc<Bell>> = (0..1_000).map(|_| Arc::default()).collect();
        let mut alarms = Alarms::new();
        for (number, bell) in bells.iter().enumerate() {
            drop(alarms.set((number as u64 * 7) % 1_000, &bell.clone().into()));
        }
        assert_eq!(fire_all(&mut alarms, 499), 500);
        let rung = |bell: &&Arc<Bell>| bell.0.load(Ordering::Relaxed) == 1;
        assert_eq!(bells.iter().filter(rung).count(), 500);
        assert!(rung(&&bells[0]) && !rung(&&bells[100]));
        assert_eq!(alarms.next(), Some(500));
        assert_eq!(fire_all(&mut alarms, u64::MAX), 500);
        assert_eq!(bells.iter().filter(rung).count(), 1_000);
    }
}
