//! The time of `embassy-time`: the guest's clock, and alarms beside its timers.

use core::task::Waker;

use embassy_time_driver::{Driver, TICK_HZ};

use crate::runtime::runtime;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The driver that `embassy-time` finds in a guest. [`crate::main`] puts it in.
#[doc(hidden)]
#[derive(Debug)]
pub struct TimeDriver;

impl Driver for TimeDriver {
    fn now(&self) -> u64 {
        ticks(runtime().now_ns())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        // The old waker is dropped after the borrow.
        let _old = runtime().alarms.borrow_mut().set(nanos(at), waker);
    }
}

/// Whole ticks that have passed after so many nanoseconds.
fn ticks(nanos: u64) -> u64 {
    saturated(u128::from(nanos) * u128::from(TICK_HZ) / NANOS_PER_SECOND)
}

/// Nanoseconds after which so many ticks have passed.
fn nanos(ticks: u64) -> u64 {
    saturated((u128::from(ticks) * NANOS_PER_SECOND).div_ceil(TICK_HZ.into()))
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_comes_when_its_tick_has_passed_and_not_before() {
        for at in [0, 1, 2, 999, 1_000_003, u64::from(u32::MAX) * 1_000] {
            assert_eq!(ticks(nanos(at)), at);
            assert!(at == 0 || ticks(nanos(at) - 1) < at);
        }
        assert_eq!(nanos(u64::MAX), u64::MAX);
    }
}
