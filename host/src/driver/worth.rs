//! Whether a poller is worth its processor, in mode `auto`.
//!
//! What a thread saves that watches the rings is exits. That pays where they come close together, each for a little that is
//! done on the spot, and where there is a processor for it. So in mode `auto` a poller is away, and the task that runs the
//! guest takes the turns, as in mode `out`; it calls the poller when its exits have been dense for a while ([`Exits`]). The
//! poller leaves again when there is nothing to do, or when more is not done with it than was without. It must be much more
//! where the thread finds that it waits for a processor itself: a thread that watches never sleeps, so where it has had less of
//! a processor than time has passed, others want them all, the guest or whoever it talks to among them ([`Stay`]). Who has
//! stayed in vain is not called for a while, for longer each time ([`Rest`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wakebox_vmm::signal::thread_time;

use crate::primitives::now;

/// Exits by which their density is told.
const EXITS: u32 = 32;

/// What lies between two of them at most, on an average: as long as an exit takes of the dearest (of KVM-PVM) and two threads
/// to wake each other, on a busy machine; what they cost here, and whether a poller saves it, the stay tells.
const DENSE: Duration = Duration::from_micros(150);

/// After so long it is seen again whether to stay.
const LOOK: Duration = Duration::from_millis(2);

/// A stay is in vain if not so much more was done in the same time, in percent, or if it has done so little.
const GAIN: u128 = 120;
const LITTLE: u32 = 8;

/// A poller that has waited for a processor for more than this part of the time is in the way, unless so much more was done.
const PART: u32 = 10;
const MUCH: u128 = 130;

/// How long a stay is at most: what was without it is forgotten then.
const MOST: Duration = Duration::from_millis(500);

/// How long it is not called after the first stay in vain, and at most.
const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_millis(640);

/// So much was done in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) operations: u32,
    pub(crate) time: Duration,
}

impl Pace {
    /// Whether it is a gain over another, of so many percent.
    fn is_gain_over(self, other: Self, gain: u128) -> bool {
        let of = |pace: Self, time: Duration| u128::from(pace.operations) * time.as_nanos();
        of(self, other.time) * 100 >= of(other, self.time) * gain
    }
}

/// What the task that runs a guest learns of its exits while the poller is away.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    since: Option<Instant>,
    count: u32,
    operations: u32,
    /// Whether something was done on the spot of which the guest is not told yet.
    is_put_off: bool,
}

impl Exits {
    /// So many operations were begun, some of which are done, without the guest being told yet.
    pub(crate) fn began(&mut self, operations: u32, is_put_off: bool) {
        self.operations = self.operations.saturating_add(operations);
        self.is_put_off |= is_put_off;
    }

    /// Whether there were such since this was asked last.
    pub(crate) fn has_put_off(&mut self) -> bool {
        std::mem::take(&mut self.is_put_off)
    }

    /// The guest was left, and goes on now. `saved` says whether a poller would have saved the exit: whether what it was for
    /// was done on the spot. Returns what has been done without a poller, if one is to be called.
    pub(crate) fn left(&mut self, at: Instant, saved: bool) -> Option<Pace> {
        let since = *self.since.get_or_insert(at);
        self.count += u32::from(saved);
        let time = at.saturating_duration_since(since);
        if self.count < EXITS && time < DENSE * EXITS {
            return None;
        }
        let pace = Pace {
            operations: self.operations,
            time,
        };
        let is_dense = self.count >= EXITS && time < DENSE * EXITS;
        *self = Self {
            since: Some(at),
            ..Self::default()
        };
        is_dense.then_some(pace)
    }

    /// It begins anew: what was does not count.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Until when a poller is not called, for all who want to know.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// On the clock of [`now`]; zero if it may be.
    until: AtomicU64,
}

impl Rest {
    /// Whether it is not called now. A hint, which orders nothing.
    pub(crate) fn is_on(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until > 0 && now() < until
    }

    fn begin(&self, rest: Duration) {
        let until = now() + rest.as_nanos() as u64;
        self.until.store(until, Ordering::Relaxed);
    }
}

/// How a poller fares.
#[derive(Debug)]
pub(crate) struct Stay {
    /// How long it is not called after the next stay in vain.
    rest: Duration,
    /// What was done without it, if that is known.
    without: Option<Pace>,
    /// When it came, and what the thread had of a processor by then.
    came: (Instant, Duration),
    /// When it is looked at next.
    look: Instant,
    /// Operations that had been begun when it came, whoever began them, and since; and when it did something last.
    before: u32,
    operations: u32,
    active: Instant,
}

/// What is to become of a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It pays.
    Pays,
    /// It ends, and the next may follow at once.
    Enough,
    /// It does not pay.
    Vain,
}

impl Stay {
    pub(crate) fn new() -> Self {
        Self::from_now(SHORT, None, 0)
    }

    fn from_now(rest: Duration, without: Option<Pace>, before: u32) -> Self {
        let now = Instant::now();
        Self {
            rest,
            without,
            came: (now, thread_time()),
            look: now + LOOK,
            before,
            operations: 0,
            active: now,
        }
    }

    /// The thread has come to watch. So many operations have been begun by now.
    pub(crate) fn begins(&mut self, without: Option<Pace>, taken: u32) {
        *self = Self::from_now(self.rest, without, taken);
    }

    /// It has done something. `taken` says how many have been begun by now, if that can be told. Returns whether it is to leave.
    pub(crate) fn is_over(
        &mut self,
        at: Instant,
        taken: impl FnOnce() -> Option<u32>,
        rest: &Rest,
    ) -> bool {
        self.active = at;
        if at < self.look {
            return false;
        }
        let Some(taken) = taken() else {
            return false;
        };
        self.look = at + LOOK;
        self.operations = taken.wrapping_sub(self.before);
        self.judge(at, rest) != Verdict::Pays
    }

    /// It leaves by itself, because there is nothing to do.
    pub(crate) fn ends(&mut self, taken: u32, rest: &Rest) {
        self.operations = taken.wrapping_sub(self.before);
        self.judge(Instant::now(), rest);
    }

    /// What is to become of it now. One in vain begins a rest.
    fn judge(&mut self, at: Instant, rest: &Rest) -> Verdict {
        let had = thread_time().saturating_sub(self.came.1);
        let verdict = self.verdict(at - self.came.0, had);
        self.follow(verdict, rest);
        verdict
    }

    /// So long after it came, in which the thread had a processor for so long.
    fn verdict(&self, passed: Duration, had: Duration) -> Verdict {
        let with = Pace {
            operations: self.operations,
            time: self.active - self.came.0,
        };
        let is_crowded = passed >= LOOK && passed.saturating_sub(had) * PART > passed;
        let gain = if is_crowded { MUCH } else { GAIN };
        let gains = match self.without {
            Some(without) => self.operations >= LITTLE && with.is_gain_over(without, gain),
            None => !is_crowded,
        };
        match (gains, passed >= MOST) {
            (false, _) => Verdict::Vain,
            (true, true) => Verdict::Enough,
            (true, false) => Verdict::Pays,
        }
    }

    fn follow(&mut self, verdict: Verdict, rest: &Rest) {
        if verdict == Verdict::Vain {
            rest.begin(self.rest);
            self.rest = (self.rest * 2).min(LONG);
        } else {
            self.rest = (self.rest / 2).max(SHORT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    /// What exits come to that lie so far apart, each for so many operations.
    fn exits(apart: Duration, operations: u32, saved: impl Fn(u32) -> bool) -> Vec<Pace> {
        let (mut exits, mut at) = (Exits::default(), Instant::now());
        let mut calls = Vec::new();
        for exit in 0..200 {
            exits.began(operations, false);
            calls.extend(exits.left(at, saved(exit)));
            at += apart;
        }
        calls
    }

    #[test]
    fn a_poller_is_called_where_exits_are_dense_that_it_would_save() {
        let dense = exits(5 * US, 3, |_| true);
        assert_eq!(dense.len(), 200 / EXITS as usize);
        let pace = Pace {
            operations: 3 * EXITS,
            time: (EXITS - 1) * 5 * US,
        };
        assert_eq!(dense[0], pace);
        assert_eq!(exits(160 * US, 3, |_| true), []);
        // Of those for which the guest waits it would save none.
        assert_eq!(exits(5 * US, 3, |_| false), []);
        assert_eq!(exits(80 * US, 3, |exit| exit % 2 == 0), []);
        assert_eq!(
            exits(5 * US, 3, |exit| exit % 2 == 0).len(),
            100 / EXITS as usize
        );
    }

    #[test]
    fn an_exit_for_what_was_done_and_is_told_later_is_known_once() {
        let mut exits = Exits::default();
        assert!(!exits.has_put_off());
        exits.began(2, true);
        exits.began(1, false);
        assert!(exits.has_put_off());
        assert!(!exits.has_put_off());
    }

    #[test]
    fn what_was_before_a_stay_does_not_count_after_it() {
        let (mut exits, at) = (Exits::default(), Instant::now());
        for _ in 0..EXITS - 1 {
            assert_eq!(exits.left(at, true), None);
        }
        exits.forget();
        assert_eq!(exits.left(at, true), None);
    }

    /// A stay in which so much was done, after so much without it.
    fn stay(operations: u32, without: Option<u32>) -> Stay {
        let mut stay = Stay::new();
        let pace = |operations| Pace {
            operations,
            time: 2 * MS,
        };
        stay.begins(without.map(pace), 0);
        stay.operations = operations;
        stay.active = stay.came.0 + 2 * MS;
        stay
    }

    #[test]
    fn a_stay_pays_where_more_is_done_than_without() {
        assert_eq!(stay(121, Some(100)).verdict(2 * MS, 2 * MS), Verdict::Pays);
        assert_eq!(stay(119, Some(100)).verdict(2 * MS, 2 * MS), Verdict::Vain);
        assert_eq!(stay(7, Some(1)).verdict(MS, MS), Verdict::Vain);
        // Who was called for another reason is not judged by that.
        assert_eq!(stay(0, None).verdict(2 * MS, 2 * MS), Verdict::Pays);
        // After a while it is seen anew what is without it.
        assert_eq!(stay(200, Some(100)).verdict(MOST, MOST), Verdict::Enough);
    }

    #[test]
    fn a_stay_does_not_pay_where_the_thread_waits_for_a_processor() {
        assert_eq!(stay(200, None).verdict(20 * MS, 17 * MS), Verdict::Vain);
        assert_eq!(stay(200, None).verdict(20 * MS, 19 * MS), Verdict::Pays);
        // Where much more is done with it all the same, it stays.
        assert_eq!(
            stay(129, Some(100)).verdict(20 * MS, 17 * MS),
            Verdict::Vain
        );
        assert_eq!(
            stay(131, Some(100)).verdict(20 * MS, 17 * MS),
            Verdict::Pays
        );
    }

    #[test]
    fn after_stays_in_vain_it_is_not_called_for_longer_each_time() {
        let (mut stay, rest) = (stay(0, Some(1)), Rest::default());
        assert!(!rest.is_on());
        let mut rests = Vec::new();
        for _ in 0..10 {
            rests.push(stay.rest);
            stay.follow(Verdict::Vain, &rest);
        }
        let expected = [2, 4, 8, 16, 32, 64, 128, 256, 512, 640];
        assert_eq!(rests, expected.map(|ms| ms * MS));
        assert!(rest.is_on());
        for _ in 0..10 {
            stay.follow(Verdict::Pays, &rest);
        }
        assert_eq!(stay.rest, SHORT);
    }

    #[test]
    fn a_rest_ends() {
        let rest = Rest::default();
        rest.begin(Duration::from_secs(3_600));
        assert!(rest.is_on());
        rest.begin(Duration::ZERO);
        assert!(!rest.is_on());
    }
}
