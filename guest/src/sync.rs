//! A lock between tasks of one processor, which tells who holds it.
//!
//! Any lock of the ecosystem works in a guest (`async-lock`, `embassy-sync`); whoever waits for one of those waits
//! "for another task". When tasks wait for each other at this one, the report of the deadlock says who holds it, since
//! when, and where that task has taken it.
//!
//! ```no_run
//! # async fn example() {
//! use wakebox_guest::sync::Mutex;
//!
//! let stock = Mutex::new(3);
//! *stock.lock().await -= 1;
//! assert_eq!(stock.into_inner(), 2);
//! # }
//! ```

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::future::Future;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use wakebox_abi::task::Holder;

use crate::runtime::try_runtime;
use crate::trace;
use crate::turns::{Take, Turn, Turns};

/// A value for one task at a time: first come, first served. It does not leave its processor.
///
/// A task that holds it across an `await` holds up the others; one that asks for what it holds already never gets it.
pub struct Mutex<T: ?Sized> {
    turns: Turns,
    holder: Cell<Holder>,
    value: UnsafeCell<T>,
}

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self {
            turns: Turns::new(),
            holder: Cell::new(NOBODY),
            value: UnsafeCell::new(value),
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

const NOBODY: Holder = Holder {
    file: 0,
    since: 0,
    file_len: 0,
    line: 0,
    column: 0,
    task: 0,
};

impl<T: ?Sized> Mutex<T> {
    /// Waits until those who came before have had it, and holds it until what is returned is dropped. Cancel-safe:
    /// whoever drops the future loses its place.
    #[track_caller]
    pub fn lock(&self) -> Lock<'_, T> {
        Lock {
            mutex: self,
            take: self.turns.take(),
            place: Location::caller(),
        }
    }

    /// Holds it, if nobody does and nobody waits.
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let turn = self.turns.try_take()?;
        Some(self.hold(turn, Location::caller()))
    }

    /// The value: whoever has the lock for himself need not wait.
    pub const fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn hold<'a>(&'a self, turn: Turn<'a>, place: &'static Location<'static>) -> Guard<'a, T> {
        // Outside of a guest nobody looks.
        if let Some(runtime) = try_runtime() {
            self.holder.set(Holder {
                file: place.file().as_ptr().addr() as u64,
                since: runtime.now_ns(),
                file_len: place.file().len() as u32,
                line: place.line(),
                column: place.column(),
                task: runtime.current_number(),
            });
        }
        Guard { mutex: self, turn }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mutex = f.debug_struct("Mutex");
        match self.try_lock() {
            Some(value) => mutex.field("value", &&*value).finish(),
            None => mutex.finish_non_exhaustive(),
        }
    }
}

/// Waits for a [`Mutex`].
#[must_use = "whoever does not wait holds nothing"]
pub struct Lock<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    take: Take<'a>,
    place: &'static Location<'static>,
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = Guard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Guard<'a, T>> {
        let polled = Pin::new(&mut self.take).poll(cx);
        if polled.is_pending() {
            trace::waits_for_lock((&raw const self.mutex.holder).addr());
        }
        Poll::Ready(self.mutex.hold(ready!(polled), self.place))
    }
}

impl<T: ?Sized> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("place", self.place)
            .finish_non_exhaustive()
    }
}

/// The value of a [`Mutex`], until this is dropped.
pub struct Guard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// Given back when it is dropped, after [`Guard::drop`].
    #[expect(dead_code, reason = "dropped")]
    turn: Turn<'a>,
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it is this one's turn alone, and the lock does not leave its processor.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed for as long.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.mutex.holder.set(NOBODY);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use core::task::Waker;

    #[test]
    fn one_holds_it_and_the_next_has_what_that_one_left() {
        let mutex = Mutex::new(1);
        let mut first = mutex.try_lock().unwrap();
        *first += 1;
        assert!(mutex.try_lock().is_none());
        assert_eq!(format!("{mutex:?}"), "Mutex { .. }");
        let mut second = pin!(mutex.lock());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        let Poll::Ready(second) = second.as_mut().poll(&mut cx) else {
            panic!("nobody holds it");
        };
        assert_eq!(*second, 2);
    }
}
