//! The guest's clocks: read in the guest from the time-stamp counter and a page that the
//! host keeps up to date.
//!
//! KVM is told to give the guest the host's own counter (offset zero), so that a pair of
//! (counter, time) taken on the host is true in the guest. Where that cannot be had, or the
//! counter is not steady, the guest asks with an operation instead.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wakebox_abi::boot::Moment;

use crate::vcpu::Vcpu;

/// How old the clock page may be when a guest is entered.
const REFRESH_AFTER: Duration = Duration::from_millis(50);

/// The clocks of one sandbox.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// Zero of the monotonic clock.
    start: Instant,
    /// Nanoseconds in a tick of the counter, times 2³²; zero if the guest cannot use it.
    multiplier: u64,
    written: Option<Instant>,
}

impl Clocks {
    /// Starts the clocks, and lines the vCPU's counter up with the host's if that can be done.
    pub fn new(vcpu: &Vcpu) -> Self {
        // One counter for all machines of the process: asked once.
        static MULTIPLIER: OnceLock<u64> = OnceLock::new();
        let multiplier = *MULTIPLIER.get_or_init(|| {
            let steady = counter_is_steady();
            let khz = steady.then(|| vcpu.counter_khz()).flatten();
            multiplier(khz.unwrap_or(0))
        });
        let usable = multiplier != 0 && vcpu.line_up();
        Self {
            start: Instant::now(),
            multiplier: if usable { multiplier } else { 0 },
            written: None,
        }
    }

    /// The same for a guest whose monotonic clock shows `elapsed` now.
    #[must_use]
    pub fn resumed(vcpu: &Vcpu, elapsed: Duration) -> Self {
        let mut clocks = Self::new(vcpu);
        if let Some(start) = clocks.start.checked_sub(elapsed) {
            clocks.start = start;
        }
        clocks
    }

    /// The guest goes on in another machine. Returns whether it tells the time there as it did.
    #[must_use]
    pub fn go_on(&self, vcpu: &Vcpu) -> bool {
        !self.has_counter() || vcpu.line_up()
    }

    /// Whether the guest can tell the time by itself.
    pub fn has_counter(&self) -> bool {
        self.multiplier != 0
    }

    /// Nanoseconds in a tick of the counter, times 2³²; zero if the guest cannot use it.
    pub fn multiplier(&self) -> u64 {
        self.multiplier
    }

    /// Zero of the monotonic clock, on the host's.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// What the clock page should say, if what it says is older than a moment.
    pub fn refresh(&mut self) -> Option<Moment> {
        let now = Instant::now();
        if self
            .written
            .is_some_and(|written| now - written < REFRESH_AFTER)
        {
            return None;
        }
        self.written = Some(now);
        // SAFETY: `rdtsc` has no precondition on x86-64.
        let tsc = unsafe { _rdtsc() };
        Some(Moment {
            shift: 32,
            tsc,
            monotonic_ns: monotonic_ns(self.start, now),
            wall_ns: wall_ns(),
            multiplier: self.multiplier,
        })
    }
}

/// Nanoseconds on the guest's monotonic clock.
pub fn monotonic_ns(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970; zero on a machine that believes it is earlier.
pub fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn multiplier(khz: u32) -> u64 {
    if khz == 0 {
        0
    } else {
        (1_000_000_u64 << 32) / u64::from(khz)
    }
}

/// Whether the counter runs at one speed in all power states (AMD APM vol. 3, E.4.6; Intel
/// SDM vol. 3B, 18.17.1), or the kernel itself tells the time by it.
fn counter_is_steady() -> bool {
    const INVARIANT: u32 = 1 << 8;
    if __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & INVARIANT != 0 {
        return true;
    }
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(source).is_ok_and(|name| matches!(name.trim(), "tsc" | "kvm-clock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiplier_turns_ticks_into_nanoseconds() {
        let moment = Moment {
            shift: 32,
            multiplier: multiplier(2_500_000),
            ..Moment::default()
        };
        assert_eq!(moment.elapsed_ns(2_500_000_000 + 1), 1_000_000_000);
        assert_eq!(multiplier(0), 0);
    }
}
