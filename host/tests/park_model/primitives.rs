//! Loom's primitives under the names of `src/primitives.rs`, with fences that can be left out.

use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
// Loom's threads are one real thread; its own `Arc` would only add states to the search.
pub(crate) use std::sync::Arc;

pub(crate) use crate::kick::{Kick, Processor, Reasons};

loom::thread_local! {
    static WITHOUT_FENCES: std::cell::Cell<bool> = std::cell::Cell::new(false);
}

/// The calling thread executes no fence from now on, if it is said.
pub(crate) fn without_fences(without: bool) {
    WITHOUT_FENCES.with(|cell| cell.set(without));
}

pub(crate) fn fence(order: Ordering) {
    if !WITHOUT_FENCES.with(std::cell::Cell::get) {
        loom::sync::atomic::fence(order);
    }
}

/// What `futures_util::task::AtomicWaker` promises: of a registration and a wake at the same time,
/// either the wake finds the waker, or whoever registers sees what came before the wake. All of its
/// accesses are read-modify-writes of one word with acquire and release, which is what a mutex is.
#[derive(Debug)]
pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn register(&self, waker: &Waker) {
        *self.0.lock().unwrap() = Some(waker.clone());
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        self.0.lock().unwrap().take()
    }

    pub(crate) fn wake(&self) {
        self.take().into_iter().for_each(wake);
    }
}

/// Time stands still.
pub(crate) fn now() -> u64 {
    1
}

/// All is long ago: that a guest was parked a moment before changes only who is woken.
pub(crate) fn is_long_ago(_: u64) -> bool {
    true
}

/// Wakes. Nobody in the models holds a lock of a driver.
pub(crate) fn wake(waker: Waker) {
    waker.wake();
}

/// Who waits for a wake. One that comes before the wait is not lost.
struct Sleeper {
    woken: Mutex<bool>,
    wakes: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.wakes.notify_one();
    }
}

/// Polls a future to its end, each time that it is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let sleeper = Arc::new(Sleeper {
        woken: Mutex::new(false),
        wakes: Condvar::new(),
    });
    let waker = Waker::from(sleeper.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.wakes.wait(woken).unwrap();
        }
        *woken = false;
    }
}
