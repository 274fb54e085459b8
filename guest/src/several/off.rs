//! A guest with one processor.

use core::cell::Cell;

use wakebox_abi::memory::{Counter, MappedControl};
use wakebox_abi::wake::{self, Sleep};

use crate::runtime::Runtime;
use crate::told::Told;

/// What all processors have in common, of which there is one.
pub(crate) type Shared<T> = T;

/// Makes what all have in common.
#[inline(always)]
pub(crate) fn share<T>(_first: Option<&T>, make: impl FnOnce() -> T) -> T {
    make()
}

/// What all have in common, by itself.
#[inline(always)]
pub(crate) const fn common<T>(shared: &T) -> &T {
    shared
}

/// The latest time that was told.
#[derive(Debug)]
pub(crate) struct Latest(Cell<u64>);

impl Latest {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(0))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }

    #[inline(always)]
    pub(crate) fn advance_to(&self, ns: u64) {
        self.0.set(self.0.get().max(ns));
    }
}

/// Where a task or a waker is at home.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whereabouts;

impl Whereabouts {
    #[cfg(feature = "interrupt")]
    pub(crate) const ONLY: Self = Self;

    /// The number of a task, of which this is the so-manyth.
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "as the other one")]
    pub(crate) const fn number(self, spawned: u32) -> u32 {
        spawned
    }

    /// Something was left there.
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "as the other one")]
    pub(crate) const fn post(self) {}
}

/// This processor among the others.
#[derive(Debug)]
pub(crate) struct Here;

#[allow(clippy::unused_self, reason = "as the other one")]
impl Here {
    #[inline(always)]
    pub(crate) const fn whereabouts(&self) -> Whereabouts {
        Whereabouts
    }

    #[inline(always)]
    pub(crate) const fn note_posts(&self, _control: &MappedControl) {}

    #[inline(always)]
    pub(crate) const fn has_posts(&self, _control: &MappedControl) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn expects_posts(&self) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn may_sleep(&self, control: &MappedControl, how: Sleep, seen: u32) -> bool {
        wake::guest_may_sleep(control, how, seen)
    }

    #[inline(always)]
    pub(crate) const fn counted_by_others(&self, _counter: Counter) -> u64 {
        0
    }

    #[inline(always)]
    pub(crate) const fn polled(&self) -> Option<(&Told, &'static str)> {
        None
    }

    #[inline(always)]
    pub(crate) const fn tasks_of_all(&self) -> usize {
        0
    }

    #[inline(always)]
    pub(crate) const fn tell_of_tasks(&self) {}

    #[inline(always)]
    pub(crate) const fn main_ended(&self) {}

    #[inline(always)]
    pub(crate) const fn assert_first(&self, _what: &str) {}
}

#[allow(clippy::unused_self, reason = "as the other one")]
impl Runtime {
    #[inline(always)]
    pub(crate) const fn turn_of_shared(&self) {}

    #[inline(always)]
    pub(crate) const fn has_shared(&self) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn is_called(&self) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn is_back(&self) {}

    #[inline(always)]
    pub(crate) const fn end_if_others_do(&self) {}

    #[inline(always)]
    pub(crate) const fn end_others(&self) {}
}
