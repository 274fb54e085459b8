//! Reading what a guest has serialized.
//!
//! A type that holds itself (a tree, a list of boxes) is read by a function that calls itself, as
//! deep as the bytes say. A guest that nests a value a hundred thousand times deep would overflow
//! the stack of the thread that reads it, and end the process. So reading stops at a depth of stack,
//! not of the value: that is what runs out.

use postcard::de_flavors::Flavor;
use postcard::{Deserializer, Error, Result};
use serde::de::DeserializeOwned;

/// Most bytes of stack that reading a message may take. A thread has 2 MiB, unless its owner has said
/// otherwise; and what has been read may be as deep once more when it is written or dropped.
const STACK_MAX: usize = 128 << 10;

/// Reads a value in postcard's format. As with [`postcard::from_bytes`], bytes behind it are nobody's
/// business.
///
/// # Errors
///
/// The bytes are not those of such a value, or the value is nested too deeply.
pub(super) fn deserialize<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = Deserializer::from_flavor(Bounded {
        rest: bytes,
        began_at: stack_at(),
    });
    T::deserialize(&mut reader)
}

/// Bytes that can be read while the stack lasts.
struct Bounded<'de> {
    rest: &'de [u8],
    began_at: usize,
}

/// About where the stack ends now.
#[inline(never)]
fn stack_at() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

impl Bounded<'_> {
    /// Every level of nesting reads at least one byte: how else would it know to end?
    fn check(&self) -> Result<()> {
        if self.began_at.abs_diff(stack_at()) > STACK_MAX {
            return Err(Error::SerdeDeCustom);
        }
        Ok(())
    }
}

impl<'de> Flavor<'de> for Bounded<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> Result<u8> {
        self.check()?;
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    fn try_take_n(&mut self, count: usize) -> Result<&'de [u8]> {
        self.check()?;
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    fn finalize(self) -> Result<Self::Remainder> {
        Ok(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Nested {
        End,
        List(Vec<Nested>),
        Box(Box<Nested>),
    }

    #[test]
    fn what_was_written_is_read() {
        let value = (
            vec![1_u64, u64::MAX],
            "text".to_owned(),
            Some(Nested::List(vec![
                Nested::End,
                Nested::Box(Box::new(Nested::End)),
            ])),
        );
        let bytes = postcard::to_stdvec(&value).unwrap();
        assert_eq!(deserialize(&bytes), Ok(value));
        assert!(deserialize::<u64>(&[0x80]).is_err());
        assert!(deserialize::<String>(&[5, b'a']).is_err());
    }

    #[test]
    fn a_value_that_is_nested_without_end_is_refused() {
        // Boxes in boxes; lists of one in lists of one.
        let boxes = vec![2_u8; 16 << 20];
        let lists = [1_u8, 1].repeat(8 << 20);
        for bytes in [&boxes, &lists] {
            // In a thread as small as an embedder may have.
            let bytes = bytes.clone();
            let read = move || deserialize::<Nested>(&bytes).is_err();
            let thread = std::thread::Builder::new().stack_size(512 << 10);
            assert!(thread.spawn(read).unwrap().join().unwrap());
        }
    }
}
