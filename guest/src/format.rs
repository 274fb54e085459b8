//! How arguments and results are written.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};
use wakebox_abi::op::{CallKind, ReplyKind};
use wakebox_typed::{Record, Typed, Watched};

/// Why arguments cannot be read, if the format has words for it.
pub type Unread = Option<String>;

/// How arguments and results are written.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Postcard, a tuple of the arguments.
    Postcard,
    /// The same, with the record of its types behind it.
    Typed,
    /// JSON, an array of several arguments, one by itself, anything for none.
    #[cfg(feature = "json")]
    Json,
}

impl Format {
    pub(crate) fn of(kind: CallKind) -> Option<Self> {
        match kind {
            CallKind::Call => Some(Self::Postcard),
            CallKind::Typed => Some(Self::Typed),
            #[cfg(feature = "json")]
            CallKind::Json => Some(Self::Json),
            _ => None,
        }
    }

    pub(crate) fn read<T: DeserializeOwned>(self, input: &[u8]) -> Result<T, Unread> {
        self.read_with(input, PhantomData::<T>)
    }

    /// Reads a value of a type that `seed` knows.
    ///
    /// # Errors
    ///
    /// It is of another.
    pub fn read_with<S, T>(self, input: &[u8], seed: S) -> Result<T, Unread>
    where
        S: for<'de> DeserializeSeed<'de, Value = T>,
    {
        match self {
            Self::Postcard => read_with(input, seed).ok_or(None),
            Self::Typed => read_typed_with(input, seed).ok_or(None),
            #[cfg(feature = "json")]
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_slice(input);
                let value = seed.deserialize(&mut reader);
                let value = value.and_then(|value| reader.end().map(|()| value));
                value.map_err(|error| Some(error.to_string()))
            }
        }
    }

    /// A result as it goes to the host; nothing if it cannot be written.
    pub fn write<T: Serialize>(self, result: &T) -> Option<Vec<u8>> {
        match self {
            Self::Postcard => postcard::to_allocvec(result).ok(),
            Self::Typed => postcard::to_allocvec(&Typed(result)).ok(),
            #[cfg(feature = "json")]
            Self::Json => serde_json::to_vec(result).ok(),
        }
    }

    /// What a result in it is to the host.
    pub(crate) fn reply(self) -> ReplyKind {
        match self {
            Self::Typed => ReplyKind::Typed,
            _ => ReplyKind::Result,
        }
    }
}

/// Reads a value, and nothing else: bytes behind it say that the value is of another type.
fn read_with<S, T>(bytes: &[u8], seed: S) -> Option<T>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let mut reader = postcard::Deserializer::from_bytes(bytes);
    let value = seed.deserialize(&mut reader).ok()?;
    matches!(reader.finalize(), Ok([])).then_some(value)
}

/// Reads a typed value of a type that `seed` knows; its record says whether it is.
pub(crate) fn read_typed_with<S, T>(bytes: &[u8], seed: S) -> Option<T>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let (bytes, said) = Record::split(bytes)?;
    let mut reader = postcard::Deserializer::from_bytes(bytes);
    let record = Record::new();
    let value = seed.deserialize(Watched::new(&mut reader, &record)).ok()?;
    let is_read = matches!(reader.finalize(), Ok([]));
    (is_read && record.to_bytes() == said).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read_typed<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        read_typed_with(bytes, PhantomData::<T>)
    }

    fn typed(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
        postcard::to_allocvec(&Typed(value)).expect("a value without end is none of these")
    }

    #[test]
    fn a_typed_value_is_read_as_what_it_was_written_as() {
        let value = (vec![Some(7_u16), None], "text".to_string(), -1_i64);
        let bytes = typed(&value);
        assert_eq!(read_typed(&bytes), Some(value));
        assert_eq!(read_typed::<()>(&typed(&())), Some(()));
    }

    #[test]
    fn what_was_written_as_another_type_is_not_read() {
        // As bytes it is the number 1 and the byte of "7".
        assert_eq!(read_typed::<(u8, u8)>(&typed("7")), None);
        assert_eq!(read_typed::<u32>(&typed(&7_i32)), None);
        assert_eq!(read_typed::<Vec<u8>>(&typed("7")), None);
        assert_eq!(read_typed::<Option<u8>>(&typed(&(1_u8, 7_u8))), None);
    }

    #[test]
    fn a_record_that_is_forged_or_cut_off_is_refused() {
        let right = typed(&7_u8);
        assert_eq!(read_typed::<u8>(&right), Some(7));
        for at in 1..right.len() {
            for bit in 0..8 {
                let mut forged = right.clone();
                forged[at] ^= 1 << bit;
                assert_eq!(read_typed::<u8>(&forged), None, "byte {at}, bit {bit}");
            }
        }
        for len in 0..right.len() {
            assert_eq!(read_typed::<u8>(&right[..len]), None);
        }
        // Without a record, with two, and with something before it.
        assert_eq!(read_typed::<u8>(&[7]), None);
        let twice = [&right[..], &right[1..]].concat();
        assert_eq!(read_typed::<u8>(&twice), None);
        let more = [&right[..1], &[0], &right[1..]].concat();
        assert_eq!(read_typed::<u8>(&more), None);
    }

    #[test]
    fn a_length_that_reaches_into_the_record_or_beyond_is_refused() {
        let mut bytes = typed(&vec![7_u8; 3]);
        for len in [2, 4, 7, 8, 127] {
            bytes[0] = len;
            assert_eq!(read_typed::<Vec<u8>>(&bytes), None, "{len}");
        }
        bytes[0] = 3;
        assert_eq!(read_typed(&bytes), Some(vec![7_u8; 3]));
    }
}
