//! The clock of a trace, which both sides read.

use std::time::Instant;

use wakebox_abi::trace::ticks;
use wakebox_vmm::clock::Clocks;

/// The clock of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceClock {
    /// Ticks when the sandbox was made.
    zero: u64,
    /// Nanoseconds in a tick, times 2³².
    multiplier: u64,
    /// Set if there is no steady counter: the time is that since then.
    start: Option<Instant>,
    /// Nanoseconds that the guest's monotonic clock showed at zero.
    pub(super) guest: u64,
}

impl TraceClock {
    /// A clock that shows zero now.
    pub(super) fn new(clocks: &Clocks) -> Self {
        let guest = nanos_since(clocks.start());
        if clocks.has_counter() {
            Self {
                zero: ticks(),
                multiplier: clocks.multiplier(),
                start: None,
                guest,
            }
        } else {
            Self {
                zero: guest,
                multiplier: 1 << 32,
                start: Some(clocks.start()),
                guest,
            }
        }
    }

    /// A clock whose ticks are nanoseconds.
    #[cfg(test)]
    pub(super) fn of_nanoseconds() -> Self {
        Self {
            zero: 0,
            multiplier: 1 << 32,
            start: Some(Instant::now()),
            guest: 0,
        }
    }

    pub(super) fn now(&self) -> u64 {
        match self.start {
            None => ticks(),
            Some(start) => nanos_since(start),
        }
    }

    /// Nanoseconds since the sandbox was made.
    pub(super) fn nanos(&self, ticks: u64) -> u64 {
        let ticks = ticks.saturating_sub(self.zero);
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// The same of a moment on the guest's monotonic clock.
    pub(super) fn of_guest(&self, nanos: u64) -> u64 {
        nanos.saturating_sub(self.guest)
    }
}

fn nanos_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
