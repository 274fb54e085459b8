//! So many at a time; the others wait, in their order.

use alloc::collections::VecDeque;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

pub(crate) struct Turns {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            free: Cell::new(most),
            waiting: RefCell::default(),
        }
    }

    pub(crate) async fn take(&self) -> Turn<'_> {
        poll_fn(|cx| {
            if self.free.get() == 0 {
                self.waiting.borrow_mut().push_back(cx.waker().clone());
                return Poll::Pending;
            }
            self.free.set(self.free.get() - 1);
            Poll::Ready(Turn(self))
        })
        .await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        // One that waits no longer lets the next have it: all are asked.
        let waiting = self.0.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}
