//! Time: instants, sleeps, timeouts, intervals.
//!
//! All timers share one deadline at the host, that of the nearest. A timer also fires
//! while the guest computes, at the end of the turn in which its time comes.

use alloc::boxed::Box;
use core::fmt;
use core::future::{Future, poll_fn};
use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

pub use core::time::Duration;

use wakebox_abi::op::ReadClock;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::runtime::runtime;
use crate::trace::{self, What};
use crate::wait_queue::Key;

/// A moment on the guest's monotonic clock, in nanoseconds since its sandbox was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Now. Takes about 20 ns, without an exit; never goes back.
    #[must_use]
    pub fn now() -> Self {
        Self(runtime().now_ns())
    }

    /// The instant so many nanoseconds after the sandbox was made.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the sandbox was made.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since this instant; zero if it lies in the future.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant so much later; the end of time (584 years) if that is beyond it.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// As [`Instant::saturating_add`].
    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// The instant so much earlier; that of the sandbox's making if that is before it.
    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// As [`Instant::duration_since`].
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The host's wall clock: time since 1970-01-01T00:00:00Z. It may be set back.
#[must_use]
pub fn unix_time() -> Duration {
    Duration::from_nanos(runtime().wall_ns())
}

/// Asks the host what time it is. Cancel-safe.
///
/// Only guests whose host offers no time-stamp counter have a use for it: their clock
/// shows the time at which the host last wrote it.
///
/// # Errors
///
/// Those of the operation, of which none is known.
pub async fn synchronize() -> Result<Instant> {
    let buf = IoBuf::with_capacity(16).await?;
    let (outcome, buf) = Op::with_buf(ReadClock { into: buf.whole() }, buf).await;
    outcome?;
    if let Some(mut buf) = buf {
        buf.set_len(8);
        if let Ok(bytes) = buf[..].try_into() {
            runtime().advance_to(u64::from_le_bytes(bytes));
        }
    }
    Ok(Instant::now())
}

/// Waits for a duration. Zero is over at once; the longest is longer than we live.
pub fn sleep(duration: Duration) -> Sleep {
    let deadline = Instant::now() + duration;
    // Without a counter "now" may be long ago: ask first.
    let ask = (!runtime().has_tsc()).then(|| -> Question { (Box::pin(synchronize()), duration) });
    Sleep {
        deadline,
        timer: None,
        ask,
    }
}

/// Waits until an instant; one in the past is over at once.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: None,
        ask: None,
    }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "a sleep does nothing unless it is polled"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<Key>,
    ask: Option<Question>,
}

/// The time is asked for, and the deadline comes so long after the answer.
type Question = (Pin<Box<dyn Future<Output = Result<Instant>>>>, Duration);

impl Sleep {
    /// When it will be over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn forget_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            // The waker is dropped after the borrow.
            let _waker = runtime().timers.borrow_mut().remove(timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((clock, duration)) = &mut self.ask {
            let Poll::Ready(answer) = clock.as_mut().poll(cx) else {
                return Poll::Pending;
            };
            let duration = *duration;
            self.deadline = answer.unwrap_or_else(|_| Instant::now()) + duration;
            self.ask = None;
        }
        let runtime = runtime();
        match self.timer {
            None if runtime.now_ns() >= self.deadline.0 => Poll::Ready(()),
            None => {
                let mut timers = runtime.timers.borrow_mut();
                let timer = timers.insert(self.deadline.0, cx.waker().clone());
                self.timer = Some(timer);
                let (at_ns, number) =
                    (self.deadline.0, || timers.number(timer).unwrap_or_default());
                trace::write(|by| What::TimerSet {
                    timer: number(),
                    at_ns,
                    by,
                });
                trace::waits_for_timer(at_ns, number);
                Poll::Pending
            }
            Some(timer) => {
                // The old waker is dropped after the borrow.
                let (fired, _old) = runtime.timers.borrow_mut().poll(timer, cx.waker());
                if !fired {
                    let number = || runtime.timers.borrow().number(timer).unwrap_or_default();
                    trace::waits_for_timer(self.deadline.0, number);
                    return Poll::Pending;
                }
                self.forget_timer();
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget_timer();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The future of a [`timeout`] was not ready in time, and has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it took too long")
    }
}

impl core::error::Error for Elapsed {}

/// Gives a future so much time. One that is ready at once is, even with none.
///
/// # Errors
///
/// [`Elapsed`] if it is not ready by then.
pub async fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> core::result::Result<F::Output, Elapsed> {
    within(sleep(duration), future).await
}

/// Gives a future until an instant. One that is ready at once is, even if that is past.
///
/// # Errors
///
/// [`Elapsed`] if it is not ready by then.
pub async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> core::result::Result<F::Output, Elapsed> {
    within(sleep_until(deadline), future).await
}

async fn within<F: Future>(
    mut sleep: Sleep,
    future: F,
) -> core::result::Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Ticks now, and then once every `period`. See [`Interval`].
///
/// # Panics
///
/// If the period is zero.
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks at `start`, and then once every `period`. See [`Interval`].
///
/// # Panics
///
/// If the period is zero.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    assert!(nanos > 0, "an interval's period is not zero");
    Interval {
        sleep: sleep_until(start),
        period: nanos,
    }
}

/// A beat: ticks at `start + n * period`.
///
/// A tick for which nobody waited comes as soon as somebody does, once; the others
/// that were missed are left out, and the beat stays where it was. So nobody who is slow
/// once is hurried after.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: u64,
}

impl Interval {
    /// Waits for the next tick, and returns the instant for which it was set. Dropping the
    /// future loses no tick.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Pin::new(&mut self.sleep).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let due = self.sleep.deadline().0;
        let missed = runtime().now_ns().saturating_sub(due) / self.period;
        let ahead = self.period.saturating_mul(missed + 1);
        self.sleep = sleep_until(Instant(due.saturating_add(ahead)));
        Poll::Ready(Instant(due))
    }

    /// Nanoseconds between two ticks, as a duration.
    #[must_use]
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period)
    }
}

/// The ticks, without end.
#[cfg(feature = "stream")]
impl futures_core::Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(cx).map(Some)
    }
}
