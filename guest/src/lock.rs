//! A lock between processors: first come, first served.
//!
//! Whoever wants it draws a number and waits until that number is served, so each waits for at most as many
//! sections as there are other processors. Sections are short, call no code of a program and never wait. A
//! processor does not take a lock twice, and nothing preempts it: the features `processors` and `interrupt`
//! are not used together.
//!
//! The host may take a core from the processor that has the lock. Who has looked [`LOOKS`] times in vain
//! leaves to the host, which lets others run, and looks again.

use core::cell::UnsafeCell;
use core::fmt;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::machine;
use crate::word::SharedWord;

/// Looks at a lock before the host is told; some ten microseconds.
const LOOKS: u32 = 1 << 10;

/// A lock without a value.
#[derive(Debug)]
pub(crate) struct RawLock {
    next: SharedWord,
    served: AtomicU32,
}

impl RawLock {
    pub(crate) const fn new() -> Self {
        Self {
            next: SharedWord::new(0),
            served: AtomicU32::new(0),
        }
    }

    /// Takes the lock, until [`Self::release`].
    #[inline]
    pub(crate) fn acquire(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Acquire, with the Release in `release`: what was done under the lock is seen.
        if self.served.load(Ordering::Acquire) != number {
            self.wait(number);
        }
    }

    #[cold]
    fn wait(&self, number: u32) {
        let mut looks = 0;
        while self.served.load(Ordering::Acquire) != number {
            spin_loop();
            looks += 1;
            if looks == LOOKS {
                looks = 0;
                machine::give_way();
            }
        }
    }

    /// Gives it to the next. For who has it.
    #[inline]
    pub(crate) fn release(&self) {
        let served = self.served.load(Ordering::Relaxed);
        self.served.store(served.wrapping_add(1), Ordering::Release);
    }

    /// Takes the lock, until what is returned is dropped.
    #[inline]
    pub(crate) fn take(&self) -> Taken<'_> {
        self.acquire();
        Taken(self)
    }

    /// Whether somebody has it.
    fn is_taken(&self) -> bool {
        self.next.load(Ordering::Relaxed) != self.served.load(Ordering::Relaxed)
    }
}

/// A lock is taken.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a RawLock);

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A value with a lock, with the functions of a `MaskedCell`.
pub(crate) struct Locked<T> {
    lock: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: whoever uses the value has the lock, and only one has it at a time.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            lock: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn borrow_mut(&self) -> Guard<'_, T> {
        let taken = self.lock.take();
        Guard {
            // SAFETY: the lock is taken, so this is the only reference.
            value: unsafe { &mut *self.value.get() },
            _taken: taken,
        }
    }

    /// As [`Self::borrow_mut`]: readers are few and short.
    #[inline]
    pub(crate) fn borrow(&self) -> Guard<'_, T> {
        self.borrow_mut()
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked")
            .field("taken", &self.lock.is_taken())
            .finish_non_exhaustive()
    }
}

/// A value whose lock is taken.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    value: &'a mut T,
    _taken: Taken<'a>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_is_done_under_a_lock_is_done_by_one_at_a_time() {
        let count = Locked::new(0_u64);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let mut count = count.borrow_mut();
                        let before = *count;
                        core::hint::black_box(&mut count);
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(*count.borrow(), 4_000);
    }
}
