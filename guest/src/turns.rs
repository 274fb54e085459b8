//! Taking turns: exclusive use of something, first come, first served.
//!
//! ```text
//! take, free and nobody in the queue  -------------------------->  TURN
//! take, else: at the end of the queue --> first, and free ----->  TURN -- dropped --> the first
//!                  \-- dropped: out of the queue, and if free the first is woken        is woken
//! ```
//!
//! A future that stands in the queue and is not polled holds up those behind it, as with any lock of this
//! kind: poll it or drop it.

use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::mask::{self, MaskedCell};
use crate::wait_queue::{Key, WaitQueue};

/// Whose turn it is, and who comes next.
#[derive(Debug)]
pub(crate) struct Turns {
    taken: Cell<bool>,
    queue: MaskedCell<WaitQueue>,
}

impl Turns {
    pub(crate) const fn new() -> Self {
        Self {
            taken: Cell::new(false),
            queue: MaskedCell::new(WaitQueue::new()),
        }
    }

    /// A turn, when those who came before have had theirs.
    pub(crate) fn take(&self) -> Take<'_> {
        Take {
            turns: self,
            key: None,
        }
    }

    /// A turn, if it is nobody's now and nobody waits for one.
    pub(crate) fn try_take(&self) -> Option<Turn<'_>> {
        let _masked = mask::mask();
        if self.taken.get() || !self.queue.borrow().is_empty() {
            return None;
        }
        self.taken.set(true);
        Some(Turn(self))
    }

    /// Lets the first in the queue try.
    fn call_first(&self) {
        let first = self.queue.borrow().first();
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// Somebody's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.call_first();
    }
}

/// Waits for a turn.
#[derive(Debug)]
#[must_use = "whoever does not wait has no turn"]
pub(crate) struct Take<'a> {
    turns: &'a Turns,
    /// The place in the queue.
    key: Option<Key>,
}

impl<'a> Future for Take<'a> {
    type Output = Turn<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn<'a>> {
        let turns = self.turns;
        let _masked = mask::mask();
        match self.key {
            None => {
                if let Some(turn) = turns.try_take() {
                    return Poll::Ready(turn);
                }
                let key = turns.queue.borrow_mut().join(cx.waker());
                self.key = Some(key);
            }
            Some(key) if !turns.taken.get() && turns.queue.borrow().is_first(key) => {
                turns.taken.set(true);
                self.key = None;
                // Dropped after the borrow. The next one is woken when this turn is over.
                let _own = turns.queue.borrow_mut().leave(key);
                return Poll::Ready(Turn(turns));
            }
            Some(key) => {
                // Dropped after the borrow.
                let _old = turns.queue.borrow_mut().renew(key, cx.waker());
            }
        }
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let _own = self.turns.queue.borrow_mut().leave(key);
        // It may have been woken for a turn that it does not take.
        if !self.turns.taken.get() {
            self.turns.call_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use core::task::Waker;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_go_to_those_who_wait_in_the_order_in_which_they_came() {
        let turns = Turns::new();
        let first = turns.try_take().unwrap();
        let mut second = pin!(turns.take());
        let mut third = pin!(turns.take());
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        drop(first);
        // Free, but not for who comes last.
        assert!(turns.try_take().is_none());
        assert!(poll(third.as_mut()).is_pending());
        let Poll::Ready(second) = poll(second.as_mut()) else {
            panic!("it was its turn");
        };
        assert!(poll(third.as_mut()).is_pending());
        drop(second);
        assert!(poll(third.as_mut()).is_ready());
        assert!(turns.try_take().is_some());
    }

    #[test]
    fn whoever_gives_up_hands_the_turn_on() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let turns = Turns::new();
        let first = turns.try_take().unwrap();
        let mut second = Box::pin(turns.take());
        let mut third = pin!(turns.take());
        assert!(poll(second.as_mut()).is_pending());
        let woken = std::sync::Arc::new(Woken(false.into()));
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(third.as_mut().poll(&mut cx).is_pending());
        // The second is woken, and is dropped instead of polled.
        drop(first);
        assert!(!woken.0.load(std::sync::atomic::Ordering::Relaxed));
        drop(second);
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }
}
