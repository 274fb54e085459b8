//! Where the fields of a record lie in its words.

use super::{Reason, Record, TEXT_PART, Unknown};
use crate::entry::Token;

/// The bit beside a reason's code: ready, or queued.
const FLAG: u8 = 1 << 7;
/// The detail of a poll's end that waits for nothing known.
const ON_NOTHING: u8 = 0x7F;

/// A record without its time and kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    detail: u8,
    more: u16,
    task: u32,
    first: u64,
    second: u64,
}

impl Parts {
    #[inline(always)]
    pub(super) fn to_words(self, ticks: u64, kind: u8) -> [u64; Record::WORDS] {
        let head = u64::from(kind)
            | u64::from(self.detail) << 8
            | u64::from(self.more) << 16
            | u64::from(self.task) << 32;
        [ticks, head, self.first, self.second]
    }

    /// The kind, and the rest.
    #[inline(always)]
    pub(super) fn from_words(&[_, head, first, second]: &[u64; Record::WORDS]) -> (u8, Self) {
        let parts = Self {
            detail: (head >> 8) as u8,
            more: (head >> 16) as u16,
            task: (head >> 32) as u32,
            first,
            second,
        };
        (head as u8, parts)
    }
}

/// Where a field of type `T` lies.
pub(super) trait Place<T> {
    fn put(field: T, parts: &mut Parts);
    fn get(parts: &Parts) -> Result<T, Unknown>;
}

/// What has a number of eight bits.
pub(super) trait Code: Sized {
    fn to_code(self) -> u8;
    fn from_code(code: u8) -> Result<Self, Unknown>;
}

impl Code for bool {
    #[inline(always)]
    fn to_code(self) -> u8 {
        self.into()
    }

    #[inline(always)]
    fn from_code(code: u8) -> Result<Self, Unknown> {
        Ok(code != 0)
    }
}

/// Declares places, and of each how a field of a type becomes a number of the place's width and what
/// field that number is.
macro_rules! places {
    ($($(#[$doc:meta])* $place:ident is $part:ident {
        $($type:ty: |$field:ident| $to:expr, |$bits:ident| $from:expr;)*
    })*) => {
        $(
            $(#[$doc])*
            pub(super) struct $place;

            $(impl Place<$type> for $place {
                #[inline(always)]
                fn put($field: $type, parts: &mut Parts) {
                    parts.$part = $to;
                }

                #[inline(always)]
                fn get(parts: &Parts) -> Result<$type, Unknown> {
                    let $bits = parts.$part;
                    Ok($from)
                }
            })*
        )*
    };
}

places! {
    /// The 32 bits of a task.
    Task is task {
        u32: |task| task, |bits| bits;
    }
    /// The 16 bits in between.
    More is more {
        u16: |number| number, |bits| bits;
        bool: |is| is.into(), |bits| bits != 0;
    }
    /// The length of a part of a text, in the same place.
    Len is more {
        u8: |len| len.into(), |bits| match bits {
            1..=LEN_MAX => bits as u8,
            _ => return Err(Unknown),
        };
    }
    /// The first argument.
    First is first {
        u32: |number| number.into(), |bits| bits as u32;
        u64: |number| number, |bits| bits;
        Token: |token| token.to_word(), |bits| Token::from_word(bits);
    }
    /// The second argument.
    Second is second {
        u32: |number| number.into(), |bits| bits as u32;
        u64: |number| number, |bits| bits;
    }
}

const LEN_MAX: u16 = TEXT_PART as u16;

/// The detail as the number of a variant.
pub(super) struct Detail;

impl<T: Code> Place<T> for Detail {
    #[inline(always)]
    fn put(field: T, parts: &mut Parts) {
        parts.detail = field.to_code();
    }

    #[inline(always)]
    fn get(parts: &Parts) -> Result<T, Unknown> {
        T::from_code(parts.detail)
    }
}

/// The highest bit of the detail, beside [`Why`].
pub(super) struct Flag;

impl Place<bool> for Flag {
    #[inline(always)]
    fn put(field: bool, parts: &mut Parts) {
        parts.detail |= if field { FLAG } else { 0 };
    }

    #[inline(always)]
    fn get(parts: &Parts) -> Result<bool, Unknown> {
        Ok(parts.detail & FLAG != 0)
    }
}

/// A reason: its code in the lower bits of the detail, the rest in the first argument.
pub(super) struct Why;

impl Place<Option<Reason>> for Why {
    #[inline(always)]
    fn put(field: Option<Reason>, parts: &mut Parts) {
        match field {
            Some(reason) => Self::put(reason, parts),
            None => parts.detail |= ON_NOTHING,
        }
    }

    #[inline(always)]
    fn get(parts: &Parts) -> Result<Option<Reason>, Unknown> {
        match parts.detail & !FLAG {
            ON_NOTHING => Ok(None),
            _ => Self::get(parts).map(Some),
        }
    }
}

impl Place<Reason> for Why {
    #[inline(always)]
    fn put(field: Reason, parts: &mut Parts) {
        let (code, argument) = field.to_parts();
        parts.detail |= code;
        parts.first = argument;
    }

    #[inline(always)]
    fn get(parts: &Parts) -> Result<Reason, Unknown> {
        Reason::from_parts(parts.detail & !FLAG, parts.first)
    }
}

/// Bytes of a text, in both arguments.
pub(super) struct Bytes;

impl Place<[u8; TEXT_PART]> for Bytes {
    #[inline(always)]
    fn put(field: [u8; TEXT_PART], parts: &mut Parts) {
        let both = u128::from_le_bytes(field);
        (parts.first, parts.second) = (both as u64, (both >> 64) as u64);
    }

    #[inline(always)]
    fn get(parts: &Parts) -> Result<[u8; TEXT_PART], Unknown> {
        let both = u128::from(parts.first) | u128::from(parts.second) << 64;
        Ok(both.to_le_bytes())
    }
}
