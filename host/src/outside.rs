//! Where the embedder's code must not run: on a thread of this library, and on a thread that holds
//! the lock of a driver. It may call back, block, or panic there.
//!
//! What of it comes up in such a place is put off. A waker is woken as soon as the lock is let go
//! ([`wake`]). A value goes to the embedder's runtime to be dropped
//! ([`Embedded`](crate::embedded::Embedded)).

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

thread_local! {
    /// Whether this is a thread of the library.
    static OURS: Cell<bool> = const { Cell::new(false) };
    /// Locks that the thread holds, one in the other.
    static LOCKS: Cell<u32> = const { Cell::new(0) };
    /// Who is to be woken when it holds none.
    static PUT_OFF: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread is one of the library's.
pub(crate) fn this_thread_is_ours() {
    OURS.set(true);
}

/// Whether the embedder's code may run here.
pub(crate) fn is_outside() -> bool {
    // A thread whose own variables are gone already is about to end, and the embedder's.
    let ours = OURS.try_with(Cell::get).unwrap_or(false);
    let locks = LOCKS.try_with(Cell::get).unwrap_or(0);
    !ours && locks == 0
}

/// Runs code of the embedder's. A panic in it ends nothing else; the process's panic hook, which is the
/// embedder's, has told of it.
///
/// # Errors
///
/// It panicked.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        // What it panicked with is the embedder's as well, and may panic when it is dropped.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(payload);
        }
        Panicked
    })
}

/// The embedder's code has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Wakes, now or as soon as this thread holds no lock.
pub(crate) fn wake(waker: Waker) {
    if LOCKS.try_with(Cell::get).unwrap_or(0) > 0 {
        PUT_OFF.with_borrow_mut(|wakers| wakers.push(waker));
    } else {
        let _ = guarded(|| waker.wake());
    }
}

/// Says that this thread holds a lock. To be dropped after the lock is let go.
#[derive(Debug)]
pub(crate) struct Locked(PhantomData<*const ()>);

impl Locked {
    /// The lock is about to be taken.
    pub(crate) fn new() -> Self {
        let _ = LOCKS.try_with(|locks| locks.set(locks.get() + 1));
        Self(PhantomData)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let left = LOCKS.try_with(|locks| {
            locks.set(locks.get() - 1);
            locks.get()
        });
        if left != Ok(0) {
            return;
        }
        // One that is woken may take the lock, and put off others.
        while let Some(waker) = PUT_OFF.with_borrow_mut(Vec::pop) {
            let _ = guarded(|| waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    /// Counts where it was woken.
    #[derive(Default)]
    struct Seen {
        outside: AtomicU32,
        inside: AtomicU32,
    }

    impl Wake for Seen {
        fn wake(self: Arc<Self>) {
            let count = if is_outside() {
                &self.outside
            } else {
                &self.inside
            };
            count.fetch_add(1, Ordering::Relaxed);
            panic!("a panic that a test asked for");
        }
    }

    #[test]
    fn who_is_to_be_woken_under_a_lock_is_woken_after_it() {
        let seen = Arc::new(Seen::default());
        let count =
            |seen: &Seen| [&seen.outside, &seen.inside].map(|count| count.load(Ordering::Relaxed));
        wake(seen.clone().into());
        assert_eq!(count(&seen), [1, 0]);
        let outer = Locked::new();
        let inner = Locked::new();
        wake(seen.clone().into());
        wake(seen.clone().into());
        drop(inner);
        assert_eq!(count(&seen), [1, 0]);
        drop(outer);
        assert_eq!(count(&seen), [3, 0]);
        assert!(is_outside());
    }

    #[test]
    fn what_a_panic_has_left_may_panic_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    panic!("a panic that a test asked for");
                }
            }
        }
        let panics = || std::panic::panic_any(Bomb);
        assert_eq!(guarded::<()>(panics), Err(Panicked));
        assert_eq!(guarded(|| 7), Ok(7));
    }
}
