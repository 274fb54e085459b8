//! How much a thread may do for one sandbox before it looks around.
//!
//! A guest decides how many operations it submits and how large they are; how long a turn of its
//! driver takes must not be the guest's to decide. So a turn has an [`Allowance`]: of bytes that it
//! moves, in which everything else that it does has a price too, and of time. Whoever moves bytes
//! on behalf of a guest [spends](spend) them. The driver stops between two operations when all is
//! spent, and one that is larger than what is left does a piece and [gives way](give_way): it goes on
//! in a later turn.
//!
//! The allowance belongs to the thread for the length of the turn, as a budget of cooperation
//! belongs to a task. So a copy counts wherever it is made, in however many futures it is wrapped,
//! and cannot be made past the allowance by somebody who was not given it. Outside a turn there is
//! none and nothing counts: a thread for blocking calls may take its time.
//!
//! The clock is looked at when so many bytes have been spent ([`LOOK`]), not at every operation. A
//! turn begins without a look: the first one starts its time.

use std::cell::Cell;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::task::Poll;
use std::time::{Duration, Instant};

/// What may be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Bytes moved, and the price of what moves none.
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Quota {
    /// Of a turn of the driver. A kill is promised to take a millisecond: a fifth of it for a turn,
    /// as much at most for the last piece, and the rest for everything else.
    pub(crate) const TURN: Self = Self {
        bytes: 512 << 10,
        time: Duration::from_micros(200),
    };
}

/// Most bytes that are moved without a look at what is left. No datagram of IPv4 or IPv6 is longer.
pub(crate) const PIECE: usize = 64 << 10;

/// Most bytes that a system call moves between the kernel and guest memory in a turn: an eighth of a millisecond where each
/// page is touched for the first time.
pub(crate) const REACH: usize = 256 << 10;

/// Bytes between two looks at the clock.
const LOOK: u64 = 16 << 10;

/// The price of taking an operation that is done without the kernel, in bytes.
pub(crate) const LIGHT: usize = 128;

/// The price of polling an operation, in bytes.
pub(crate) const POLL: usize = 512;

/// The price of a system call or a few, in bytes.
pub(crate) const CALL: usize = 4 << 10;

/// What the thread has done of what it may. Everywhere else but in a turn `quota` is none, and
/// `look_at` so far away that nobody looks.
#[derive(Debug)]
struct Turn {
    quota: Cell<Option<Quota>>,
    /// Bytes spent.
    spent: Cell<u64>,
    /// When so many bytes have been spent, it is time to look at what is left.
    look_at: Cell<u64>,
    /// When the clock was looked at first.
    since: Cell<Option<Instant>>,
    /// Whether the time was over at the last look.
    is_over: Cell<bool>,
}

impl Turn {
    const fn none() -> Self {
        Self {
            quota: Cell::new(None),
            spent: Cell::new(0),
            look_at: Cell::new(u64::MAX),
            since: Cell::new(None),
            is_over: Cell::new(false),
        }
    }

    fn of(quota: Quota) -> Self {
        let turn = Self::none();
        turn.quota.set(Some(quota));
        turn.look_at.set(LOOK.min(quota.bytes));
        turn
    }

    fn swap(&self, other: &Self) {
        self.quota.swap(&other.quota);
        self.spent.swap(&other.spent);
        self.look_at.swap(&other.look_at);
        self.since.swap(&other.since);
        self.is_over.swap(&other.is_over);
    }

    /// Whether all is spent, as the bytes and the clock say.
    #[cold]
    fn look(&self) -> bool {
        let Some(quota) = self.quota.get() else {
            return false;
        };
        let spent = self.spent.get();
        if spent >= quota.bytes || self.is_over.get() {
            return true;
        }
        let now = Instant::now();
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let is_over = now - since >= quota.time;
        self.is_over.set(is_over);
        if !is_over {
            self.look_at.set((spent + LOOK).min(quota.bytes));
        }
        is_over
    }
}

thread_local! {
    static TURN: Turn = const { Turn::none() };
}

/// The allowance of a turn that the thread takes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// The turn in which this one is taken, if it is.
    outer: Turn,
    /// It belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl Allowance {
    /// A turn begins.
    pub(crate) fn new(quota: Quota) -> Self {
        let turn = Turn::of(quota);
        TURN.with(|current| current.swap(&turn));
        Self {
            outer: turn,
            _not_send: PhantomData,
        }
    }

    /// Bytes spent so far.
    #[cfg(test)]
    #[allow(
        clippy::unused_self,
        reason = "there is a turn as long as the value lives"
    )]
    pub(crate) fn spent(&self) -> u64 {
        TURN.with(|turn| turn.spent.get())
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        TURN.with(|current| current.swap(&self.outer));
    }
}

/// Whether the thread takes a turn.
#[inline]
pub(crate) fn counts() -> bool {
    TURN.with(|turn| turn.quota.get().is_some())
}

/// So many bytes have been moved in the thread's turn.
#[inline]
pub(crate) fn spend(bytes: usize) {
    TURN.with(|turn| {
        let spent = turn.spent.get().saturating_add(bytes as u64);
        turn.spent.set(spent);
    });
}

/// Whether the thread's turn is to stop where it can.
#[inline]
pub(crate) fn is_spent() -> bool {
    TURN.with(|turn| turn.spent.get() >= turn.look_at.get() && turn.look())
}

/// Goes on at once, or in a later turn if this one is spent. For a future that the driver polls.
pub(crate) async fn give_way() {
    let mut gave_way = false;
    poll_fn(|context| {
        if gave_way || !is_spent() {
            return Poll::Ready(());
        }
        gave_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const LONG: Quota = Quota {
        bytes: 10 * LOOK,
        time: Duration::MAX,
    };

    #[test]
    fn what_is_spent_is_gone_until_the_next_turn() {
        let turn = Allowance::new(LONG);
        spend(LONG.bytes as usize - 1);
        assert!(!is_spent());
        spend(2);
        assert!(is_spent());
        assert_eq!(turn.spent(), LONG.bytes + 1);
        drop(turn);
        let turn = Allowance::new(LONG);
        assert!(!is_spent());
        assert_eq!(turn.spent(), 0);
    }

    #[test]
    fn outside_a_turn_nothing_counts() {
        spend(usize::MAX);
        assert!(!is_spent());
        assert_eq!(give_way().now_or_never(), Some(()));
    }

    #[test]
    fn a_turn_inside_another_has_its_own() {
        let _outer = Allowance::new(LONG);
        spend(usize::MAX);
        let inner = Allowance::new(LONG);
        assert!(!is_spent());
        drop(inner);
        assert!(is_spent());
    }

    #[test]
    fn time_is_looked_at_as_bytes_go() {
        let quota = Quota {
            time: Duration::ZERO,
            ..LONG
        };
        let turn = Allowance::new(quota);
        spend(LOOK as usize - 1);
        assert!(!is_spent(), "nobody has looked");
        spend(1);
        assert!(is_spent(), "no time is over at the first look");
        drop(turn);
        let _turn = Allowance::new(LONG);
        spend(LOOK as usize);
        assert!(!is_spent());
    }

    #[test]
    fn who_gives_way_goes_on_in_the_next_turn() {
        let mut gives_way = std::pin::pin!(give_way());
        let turn = Allowance::new(LONG);
        spend(usize::MAX);
        assert_eq!(gives_way.as_mut().now_or_never(), None);
        drop(turn);
        let _turn = Allowance::new(LONG);
        assert_eq!(gives_way.now_or_never(), Some(()));
    }
}
