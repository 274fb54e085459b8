//! How long a thread that polls looks in vain, and what it does for others meanwhile.

use std::time::{Duration, Instant};

use wakebox_abi::wake::Mode;

/// How long it looks in vain.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) now: Duration,
    least: Duration,
    most: Duration,
}

impl Patience {
    pub(super) fn of(mode: Mode) -> Self {
        let (least, most) = match mode {
            Mode::Poll => (Duration::from_micros(200), Duration::from_millis(2)),
            _ => (Duration::from_micros(5), Duration::from_micros(200)),
        };
        Self {
            now: least,
            least,
            most,
        }
    }

    pub(super) fn adapt(&mut self, paid: bool) {
        self.now = match paid {
            true => (self.now * 2).min(self.most),
            false => (self.now / 2).max(self.least),
        };
    }
}

/// Others of the process or of the machine may have a processor for so long before they are no longer let have it.
const MOMENT: Duration = Duration::from_micros(300);

/// Who has kept it for longer is not let have it again for so many times as long.
const DEARER: u32 = 32;

/// Lets others have the processor as long as they want it for moments.
///
/// A thread that looks at memory never sleeps, nor does the guest while it watches. Where there are two processors, whoever sends
/// the request that both wait for has neither, until the scheduler takes one from them, which can be a millisecond. So the thread
/// yields between two looks. To somebody who computes it would lose whole slices of time that way, and only yields now and then.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    not_before: Option<Instant>,
}

impl Courtesy {
    /// Yields, unless that was too dear lately.
    pub(super) fn yield_now(&mut self) {
        self.give(Instant::now(), || {
            std::thread::yield_now();
            Instant::now()
        });
    }

    /// The same at this time, by `give`, which says when that has ended.
    fn give(&mut self, now: Instant, give: impl FnOnce() -> Instant) {
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return;
        }
        let back = give();
        let away = back.saturating_duration_since(now);
        self.not_before = (away > MOMENT).then(|| back + away * DEARER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_lent_for_moments() {
        let begin = Instant::now();
        let mut courtesy = Courtesy::default();
        // Whether it was lent at this time, for so long.
        let mut lent = |at: Duration, away: Duration| {
            let mut lent = false;
            courtesy.give(begin + at, || {
                lent = true;
                begin + at + away
            });
            lent
        };
        let long = 10 * MOMENT;
        assert!(lent(Duration::ZERO, MOMENT));
        assert!(lent(MOMENT, long));
        let again = MOMENT + long + long * DEARER;
        assert!(!lent(again - Duration::from_nanos(1), MOMENT));
        assert!(lent(again, MOMENT));
        assert!(lent(again + MOMENT, MOMENT));
    }

    #[test]
    fn looking_in_vain_is_left_off_sooner_each_time() {
        let mut patience = Patience::of(Mode::Auto);
        let least = patience.now;
        for _ in 0..10 {
            patience.adapt(true);
        }
        assert_eq!(patience.now, patience.most);
        for _ in 0..10 {
            patience.adapt(false);
        }
        assert_eq!(patience.now, least);
    }
}
