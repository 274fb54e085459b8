//! Reading what a guest has serialized.
//!
//! A type that holds itself (a tree, a list of boxes) is read by a function that calls itself, as
//! deep as the bytes say. A guest that nests a value a hundred thousand times deep would overflow
//! the stack of the thread that reads it, and end the process. So reading stops at a depth of stack,
//! not of the value: that is what runs out.

use std::cell::Cell;

use postcard::de_flavors::Flavor;
use postcard::{Deserializer, Error};
use serde::de::DeserializeOwned;
use wakebox_abi::op::CallForm;
use wakebox_abi::status::Status;
use wakebox_typed::{Record, Watch, Watched};

use super::counted::Cost;
use crate::account::{Account, Charged};

/// Most bytes of stack that reading a message may take. A thread has 2 MiB, unless its owner has said
/// otherwise; and what has been read may be as deep once more when it is written or dropped.
const STACK_MAX: usize = 128 << 10;

/// A serialized value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether a record of its types is at its end.
    pub(super) is_typed: bool,
}

impl<'a> Message<'a> {
    /// The arguments of a host function.
    ///
    /// # Errors
    ///
    /// `InvalidData` if they are in none of the forms that say what serde has written.
    pub(super) fn of(form: CallForm, bytes: &'a [u8]) -> Result<Self, Status> {
        let is_typed = match form {
            CallForm::Plain => false,
            CallForm::Typed => true,
            CallForm::Signature | CallForm::Json | CallForm::Bytes => {
                return Err(Status::InvalidData);
            }
        };
        Ok(Self { bytes, is_typed })
    }
}

/// Reads a value in postcard's format, and nothing else: bytes behind it say that the value is of
/// another type, and so does a record of another. What the value takes is charged to the account
/// before it is made.
///
/// # Errors
///
/// `InvalidData` if the message is not such a value alone, or it is nested too deeply;
/// `LimitReached` if it is larger than the account allows.
pub(super) fn read<T: DeserializeOwned>(
    message: Message<'_>,
    account: &Account,
) -> Result<Charged<T>, Status> {
    let (bytes, record) = match message.is_typed {
        true => {
            let (bytes, record) = Record::split(message.bytes).ok_or(Status::InvalidData)?;
            (bytes, Some(record))
        }
        false => (message.bytes, None),
    };
    let cost = Cost::new(account.charge(0)?, bytes.len());
    let mut reader = Deserializer::from_flavor(Bounded {
        rest: bytes,
        unread: &cost.unread,
        began_at: stack_at(),
    });
    match T::deserialize(Watched::new(&mut reader, &cost)) {
        Ok(value) => {
            let is_other = record.is_some_and(|record| record != cost.record().to_bytes());
            if is_other || !matches!(reader.finalize(), Ok([])) {
                return Err(Status::InvalidData);
            }
            let charge = cost.into_charge().ok_or(Status::LimitReached)?;
            Ok(charge.on(value))
        }
        Err(_) if cost.is_full() => Err(Status::LimitReached),
        Err(_) => Err(Status::InvalidData),
    }
}

/// Bytes that can be read while the stack lasts.
struct Bounded<'de, 'c> {
    rest: &'de [u8],
    /// How many they are, for who counts.
    unread: &'c Cell<usize>,
    began_at: usize,
}

/// About where the stack ends now.
#[inline(never)]
fn stack_at() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

impl<'de> Bounded<'de, '_> {
    /// Every level of nesting reads at least one byte: how else would it know to end?
    fn check(&self) -> postcard::Result<()> {
        if self.began_at.abs_diff(stack_at()) > STACK_MAX {
            return Err(Error::SerdeDeCustom);
        }
        Ok(())
    }

    fn read_to(&mut self, rest: &'de [u8]) {
        self.rest = rest;
        self.unread.set(rest.len());
    }
}

impl<'de, 'c: 'de> Flavor<'de> for Bounded<'de, 'c> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        self.check()?;
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.read_to(rest);
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        self.check()?;
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.read_to(rest);
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<Self::Remainder> {
        Ok(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    fn read<T: DeserializeOwned>(bytes: &[u8], account: &Account) -> Result<Charged<T>, Status> {
        let is_typed = false;
        super::read(Message { bytes, is_typed }, account)
    }

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
        let account = Account::new(1 << 20);
        let read_back = read::<(Vec<u64>, String, Option<Nested>)>(&bytes, &account).unwrap();
        assert_eq!(*read_back, value);
        assert!(read::<u64>(&[0x80], &account).is_err());
        assert!(read::<String>(&[5, b'a'], &account).is_err());
        // The text "7", which is the number 1 and something else.
        let seven = postcard::to_stdvec("7").unwrap();
        assert!(read::<u32>(&seven, &account).is_err());
        assert!(read::<()>(&[0], &account).is_err());
    }

    #[test]
    fn a_value_that_is_nested_without_end_is_refused() {
        // Boxes in boxes; lists of one in lists of one.
        let boxes = vec![2_u8; 16 << 20];
        let lists = [1_u8, 1].repeat(8 << 20);
        for bytes in [&boxes, &lists] {
            // In a thread as small as an embedder may have.
            let bytes = bytes.clone();
            let account = Account::new(1 << 30);
            let read = move || read::<Nested>(&bytes, &account).unwrap_err();
            let thread = std::thread::Builder::new().stack_size(512 << 10);
            assert_eq!(
                thread.spawn(read).unwrap().join().unwrap(),
                Status::InvalidData
            );
        }
    }

    /// What the global allocator does not tell: about how much a value holds.
    const LIMIT: u64 = 4 << 20;

    #[track_caller]
    fn assert_full<T: DeserializeOwned>(bytes: &[u8]) {
        let account = Account::new(LIMIT);
        let status = read::<T>(bytes, &account).map(|_| ()).unwrap_err();
        assert_eq!(
            status,
            Status::LimitReached,
            "{}",
            std::any::type_name::<T>()
        );
        assert!(account.peak() <= LIMIT);
        assert_eq!(account.kept(), 0, "{}", std::any::type_name::<T>());
    }

    /// A list of so many elements, whose bytes are all the same.
    fn list(len: usize, element: &[u8]) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(&len).unwrap();
        bytes.extend(element.repeat(len));
        bytes
    }

    #[derive(Debug, Deserialize)]
    #[expect(
        dead_code,
        clippy::large_enum_variant,
        reason = "read and dropped, and as large as it is meant to be"
    )]
    enum Large {
        Small,
        Big([u64; 32]),
    }

    #[derive(Debug, Deserialize)]
    #[serde(from = "u8")]
    #[expect(dead_code, reason = "read and dropped")]
    struct Grows([u64; 32]);

    impl From<u8> for Grows {
        fn from(byte: u8) -> Self {
            Self([byte.into(); 32])
        }
    }

    #[test]
    fn few_bytes_do_not_become_a_large_value() {
        let zeros = list(1 << 20, &[0]);
        assert_full::<Vec<Option<[u64; 32]>>>(&zeros);
        assert_full::<Vec<Large>>(&zeros);
        assert_full::<Vec<Box<Large>>>(&zeros);
        assert_full::<Vec<Grows>>(&zeros);
        assert_full::<(u8, Vec<Box<Grows>>)>(&[&[0], &*zeros].concat());
        assert_full::<Vec<Option<Box<Large>>>>(&list(1 << 20, &[1, 0]));
        // Empty ones, and such as have one element.
        assert_full::<Vec<Vec<u8>>>(&zeros);
        assert_full::<Vec<String>>(&zeros);
        assert_full::<Vec<Vec<Option<[u64; 32]>>>>(&list(1 << 15, &[1, 0]));
        assert_full::<Vec<std::collections::BTreeMap<u8, Large>>>(&list(1 << 14, &[1, 7, 0]));
        let keys: Vec<u8> = (0..1_u64 << 14)
            .flat_map(|key| [postcard::to_stdvec(&key).unwrap(), vec![0]].concat())
            .collect();
        let map = [postcard::to_stdvec(&(1_u64 << 14)).unwrap(), keys].concat();
        assert_full::<std::collections::HashMap<u64, Large>>(&map);
        assert_full::<std::collections::BTreeMap<u64, Large>>(&map);
    }

    #[test]
    fn a_length_is_an_allegation() {
        let account = Account::new(LIMIT);
        let length = postcard::to_stdvec(&(1_u64 << 60)).unwrap();
        let invalid = Err(Status::InvalidData);
        assert_eq!(read::<Vec<()>>(&length, &account).map(|_| ()), invalid);
        assert_eq!(
            read::<Vec<[u64; 0]>>(&length, &account).map(|_| ()),
            invalid
        );
        assert_eq!(read::<Vec<u64>>(&length, &account).map(|_| ()), invalid);
        assert_eq!(read::<String>(&length, &account).map(|_| ()), invalid);
        let nested = length.repeat(1_000);
        assert_eq!(read::<Vec<Vec<()>>>(&nested, &account).map(|_| ()), invalid);
        let map = read::<std::collections::BTreeMap<(), ()>>(&length, &account);
        assert_eq!(map.map(|_| ()), invalid);
        assert!(account.peak() < 1 << 20, "{}", account.peak());
        assert_eq!(read::<Vec<()>>(&[100], &account).unwrap().len(), 100);
    }

    #[test]
    fn what_is_read_is_charged_for_as_long_as_it_is_kept() {
        let account = Account::new(LIMIT);
        let bytes = postcard::to_stdvec(&vec![7_u64; 10_000]).unwrap();
        let value = read::<Vec<u64>>(&bytes, &account).unwrap();
        let room = (value.capacity() * size_of::<u64>()) as u64;
        assert!(
            account.kept() >= room && account.kept() < 2 * room,
            "{}",
            account.kept()
        );
        drop(value);
        assert_eq!(account.kept(), 0);
        // A message of bytes takes about twice its length.
        let bytes = postcard::to_stdvec(&vec![7_u8; 1_000_000]).unwrap();
        assert!(read::<Vec<u8>>(&bytes, &account).is_ok());
        assert!(account.peak() < 2_100_000, "{}", account.peak());
        let text = "a".repeat(1_000_000);
        let bytes = postcard::to_stdvec(&text).unwrap();
        assert_eq!(read::<String>(&bytes, &account).unwrap().len(), text.len());
    }
}
