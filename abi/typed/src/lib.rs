//! Whether both sides of a call mean the same types.
//!
//! Postcard carries no types: the text "7" read as a number is 1. So a typed message ends with a
//! record of what was written, and who reads records what is read and compares. The record follows
//! the value, not the type: the kind of each number, text, list, option and enum in the message, in
//! order, which is the same on both sides because both walk the same bytes. Four bytes of it travel.
//! They find mistakes; whoever wants to forge them can.
//!
//! What takes no bytes is not in the record: tuples, structs, arrays and new types are their fields,
//! a unit is nothing, and names do not count. Neither is it a difference that has no meaning: a map
//! is a list of its pairs, bytes are a list of `u8`, owned is borrowed, `usize` is `u64`. What is not
//! there is not compared: what is in the lists that are empty, the options that are `None` and the
//! variants that are others.
//!
//! Apart from `wakebox-abi`, against which a guest without serde and without a heap is written.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]
#![no_std]

mod read;
mod write;

use core::any::type_name;
use core::cell::Cell;
use core::fmt;

pub use self::read::{Watch, Watched};
pub use self::write::Typed;

/// What bytes of a message stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(
    missing_docs,
    reason = "each is the type of its name in serde's data model"
)]
pub enum Token {
    Nothing,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Text,
    /// The length of a list, of bytes, or of a map; what is in it follows.
    List,
    /// Whether an option is `Some`.
    Option,
    /// Which variant of an enum follows.
    Variant,
}

/// The record of a value, while it is written or read.
#[derive(Debug)]
pub struct Record {
    hash: Cell<u64>,
    /// What came last, and how often in a row: a long list costs a count.
    last: Cell<Token>,
    run: Cell<u64>,
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    /// Bytes of a record in a message.
    pub const SIZE: usize = 4;

    /// That of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            hash: Cell::new(0),
            last: Cell::new(Token::Nothing),
            run: Cell::new(0),
        }
    }

    /// A value of this kind comes.
    #[inline]
    pub fn note(&self, token: Token) {
        self.note_many(token, 1);
    }

    /// So many of this kind come.
    #[inline]
    pub fn note_many(&self, token: Token, count: usize) {
        let count = count as u64;
        if self.last.get() == token || count == 0 {
            self.run.set(self.run.get() + count);
            return;
        }
        self.hash.set(self.folded());
        self.last.set(token);
        self.run.set(count);
    }

    /// The hash with the last run in it.
    #[inline]
    fn folded(&self) -> u64 {
        // The finisher of SplitMix64, shortened: each run changes half of the bits.
        let word = self.run.get() << 8 | self.last.get() as u64;
        let mixed = (self.hash.get() ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }

    /// As it stands behind a message.
    #[inline]
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        (self.folded().wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32)
            .to_le_bytes()
            .first_chunk()
            .copied()
            .unwrap_or_default()
    }

    /// A typed message without its record, and the record; `None` if it is too short to have one.
    #[must_use]
    pub fn split(message: &[u8]) -> Option<(&[u8], [u8; Self::SIZE])> {
        let (value, record) = message.split_last_chunk()?;
        Some((value, *record))
    }

    /// Has something done that leaves no trace here.
    #[inline]
    fn unnoticed<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = (self.hash.get(), self.last.get(), self.run.get());
        let done = work();
        self.hash.set(before.0);
        self.last.set(before.1);
        self.run.set(before.2);
        done
    }
}

/// The types of a function in words, `arguments -> result`, for an error.
pub fn signature<A: ?Sized, R>() -> impl fmt::Display + Sync {
    fmt::from_fn(|f| write!(f, "{} -> {}", type_name::<A>(), type_name::<R>()))
}

/// As [`signature`], for a function that gives a stream: `arguments -> stream<item>`.
pub fn stream_signature<A: ?Sized, T>() -> impl fmt::Display + Sync {
    fmt::from_fn(|f| write!(f, "{} -> stream<{}>", type_name::<A>(), type_name::<T>()))
}
