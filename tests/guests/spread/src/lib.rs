//! What guests with several processors have in common.
#![no_std]

use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;

/// Where a task waits for tokens.
pub struct Mailbox(Mutex<CriticalSectionRawMutex, RefCell<(u32, Option<Waker>)>>);

impl Mailbox {
    /// One without a token.
    pub const fn new() -> Self {
        Self(Mutex::new(RefCell::new((0, None))))
    }

    /// Puts one in, and wakes who waits when nobody has the lock.
    pub fn put(&self) {
        let waker = self.0.lock(|tokens| {
            let mut tokens = tokens.borrow_mut();
            tokens.0 += 1;
            tokens.1.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes one out, once there is one.
    pub async fn take(&self) {
        poll_fn(|context| {
            let waker = context.waker().clone();
            let (taken, _old) = self.0.lock(|tokens| {
                let mut tokens = tokens.borrow_mut();
                if tokens.0 > 0 {
                    tokens.0 -= 1;
                    return (Poll::Ready(()), None);
                }
                (Poll::Pending, tokens.1.replace(waker))
            });
            taken
        })
        .await;
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}
