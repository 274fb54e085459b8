//! Counts what a value takes while it is read from bytes of a guest.
//!
//! Few bytes can become a large value: a thousand `None`s are a thousand bytes, and as many times
//! the largest `Some` in memory; a list of units is as long as its length says and holds nothing. So
//! each value is paid for before it is made. What a type takes in memory is known where serde makes
//! it: the size of the visitor's value, that of a list's elements, the length of a text. What cannot
//! be seen is how a collection allocates: it is taken to double its room, to begin with four places,
//! and to reserve nothing ahead of what is read, for which it is told no length.

use std::cell::Cell;

use serde::de::Error;
use wakebox_typed::{Record, Watch};

use crate::account::Charge;

/// Bytes that an allocation takes besides what it is for.
const ALLOCATION: usize = 32;

/// Elements with which a collection begins.
const FIRST: usize = 4;

/// Most elements of a message that are read from no byte at all: nothing but their number bounds them.
const EMPTY_MAX: usize = 1 << 16;

/// Bytes that are charged at once.
const STEP: usize = 4 << 10;

/// What the values of a message take.
pub(super) struct Cost {
    charge: Cell<Option<Charge>>,
    /// Bytes charged and not used.
    left: Cell<usize>,
    /// Size of the place that the next value goes to, if it is not an allocation of its own.
    place: Cell<usize>,
    /// Whether what is visited next has its elements in itself: a tuple, a struct.
    is_fixed: Cell<bool>,
    /// Bytes of the message that are not read.
    pub(super) unread: Cell<usize>,
    empty: Cell<usize>,
    /// Whether the account has refused.
    is_full: Cell<bool>,
    /// What the values are.
    record: Record,
}

impl Cost {
    /// Pays with this charge, which grows.
    pub(super) fn new(charge: Charge, unread: usize) -> Self {
        Self {
            charge: Cell::new(Some(charge)),
            left: Cell::new(0),
            place: Cell::new(0),
            is_fixed: Cell::new(false),
            unread: Cell::new(unread),
            empty: Cell::new(0),
            is_full: Cell::new(false),
            record: Record::new(),
        }
    }

    /// Whether reading ended because the account was full.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// What was paid.
    pub(super) fn into_charge(self) -> Option<Charge> {
        self.charge.into_inner()
    }

    #[inline]
    fn pay<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None if self.grow(bytes) => Ok(()),
            None => Err(E::custom(
                "the value is larger than the limit on the host's memory allows",
            )),
        }
    }

    /// Charges what is wanted, and a little more if there is that.
    #[cold]
    fn grow(&self, wanted: usize) -> bool {
        let mut charge = self.charge.take();
        let left = charge.as_mut().and_then(|charge| {
            let more = charge.grow(wanted.saturating_add(STEP)).map(|()| STEP);
            more.or_else(|_| charge.grow(wanted).map(|()| 0)).ok()
        });
        self.charge.set(charge);
        match left {
            Some(left) => self.left.set(self.left.get() + left),
            None => self.is_full.set(true),
        }
        left.is_some()
    }
}

impl Watch for Cost {
    fn record(&self) -> &Record {
        &self.record
    }

    /// Pays for a value of this type.
    #[inline]
    fn value<T, E: Error>(&self, is_fixed: bool) -> Result<(), E> {
        let (size, place) = (size_of::<T>(), self.place.replace(size_of::<T>()));
        self.is_fixed.set(is_fixed);
        // In its place, or as an option in it; else it is a box or something like it.
        let is_inline = size <= place && place <= size.saturating_mul(2);
        self.pay(if is_inline { size } else { size + ALLOCATION })
    }

    fn payload<T>(&self) {
        self.place.set(size_of::<T>());
    }

    fn fields(&self) {
        self.is_fixed.set(true);
    }

    fn bytes<E: Error>(&self, len: usize) -> Result<(), E> {
        self.pay(len + ALLOCATION)
    }

    fn elements(&self) -> bool {
        self.is_fixed.take()
    }

    /// Pays for an element of a collection; a field is paid for with its value.
    #[inline]
    fn element<T, E: Error>(&self, is_fixed: bool, is_first: bool) -> Result<(), E> {
        let size = size_of::<T>();
        self.place.set(size);
        match (is_fixed, is_first) {
            (true, _) => Ok(()),
            (false, true) => self.pay(FIRST * size + ALLOCATION),
            (false, false) => self.pay(size),
        }
    }

    fn unread(&self) -> usize {
        self.unread.get()
    }

    #[inline]
    fn has_read<E: Error>(&self, unread: usize) -> Result<(), E> {
        if self.unread.get() < unread {
            return Ok(());
        }
        self.empty.set(self.empty.get() + 1);
        if self.empty.get() > EMPTY_MAX {
            return Err(E::custom("there are too many elements of no size"));
        }
        Ok(())
    }
}
