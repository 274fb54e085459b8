//! Masking upcalls: what ordinary code and the urgent tasks of `crate::interrupt` share is used with
//! upcalls masked, so that one may come at any instruction of anything else.
//!
//! # What is shared, and how it is kept whole
//!
//! | what | how |
//! |---|---|
//! | the heap | masked for each call |
//! | reactor, timers, console, arena, trace and what else a runtime has one of | a [`MaskedCell`], or masked where a few cells belong together |
//! | an executor's queues and tasks | nobody else touches them: a wake from another priority goes through the inbox, which is made of atomics |
//! | what futures have | the compiler: `interrupt::spawn` wants it to be `Send` |
//!
//! Masks, and not a heap and rings for each priority: masking is two loads and a store, upcalls wait for
//! at most one such section, memory that one priority has freed is there for the others, and one
//! ring keeps its order and its bound on operations in flight.
//!
//! Whether upcalls are masked, the control page tells ([`wakebox_abi::upcall`]): sections may lie within
//! sections, and only the outermost lifts the mask. Whoever lifts it takes what has come meanwhile, and polls
//! urgent tasks that were woken meanwhile, right there.
//!
//! Without the feature `interrupt` all of this is nothing.

#[cfg(all(feature = "interrupt", not(test)))]
mod on;
#[cfg(all(feature = "interrupt", not(test)))]
use self::on as masks;

#[cfg(any(not(feature = "interrupt"), test))]
mod off;
#[cfg(any(not(feature = "interrupt"), test))]
use self::off as masks;

use core::cell::{Ref, RefCell, RefMut};
use core::fmt;
use core::ops::{Deref, DerefMut};

#[cfg(all(feature = "critical-section", not(feature = "processors")))]
pub(crate) use self::masks::lift;
pub(crate) use self::masks::{
    KNOWS_REASON_OF_POST, Masked, begin, end, is_home, mask, number, upcalls, urgent_executors,
    woken,
};
#[cfg(all(feature = "interrupt", not(test)))]
pub(crate) use self::on::{NOTED, current, is_known, note, set_home, set_runtime};

/// A `RefCell` for what priorities share: upcalls are masked while it is borrowed.
pub(crate) struct MaskedCell<T>(RefCell<T>);

impl<T> MaskedCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn borrow(&self) -> Borrowed<Ref<'_, T>> {
        let masked = mask();
        Borrowed {
            value: self.0.borrow(),
            _masked: masked,
        }
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn borrow_mut(&self) -> Borrowed<RefMut<'_, T>> {
        let masked = mask();
        Borrowed {
            value: self.0.borrow_mut(),
            _masked: masked,
        }
    }

    /// Whether it is borrowed now.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.0.try_borrow_mut().is_err()
    }

    pub(crate) fn replace(&self, value: T) -> T {
        core::mem::replace(&mut *self.borrow_mut(), value)
    }

    pub(crate) fn take(&self) -> T
    where
        T: Default,
    {
        self.replace(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for MaskedCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is borrowed, with upcalls masked.
pub(crate) struct Borrowed<R> {
    // Dropped in this order: whoever runs when the mask is lifted may borrow.
    value: R,
    _masked: Masked,
}

impl<R: Deref> Deref for Borrowed<R> {
    type Target = R::Target;

    #[inline(always)]
    fn deref(&self) -> &R::Target {
        &self.value
    }
}

impl<R: DerefMut> DerefMut for Borrowed<R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut R::Target {
        &mut self.value
    }
}
