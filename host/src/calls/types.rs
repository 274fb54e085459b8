//! Tests of which types fit: what one side writes and the other reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wakebox_abi::status::Status;
use wakebox_typed::Typed;

use super::{Message, read};
use crate::account::Account;

fn read_as<T: DeserializeOwned>(bytes: &[u8], is_typed: bool) -> Result<T, Status> {
    let account = Account::new(1 << 20);
    read::<T>(Message { bytes, is_typed }, &account).map(crate::account::Charged::hand_over)
}

/// What was written as one type can be read as the other.
#[track_caller]
fn fits<T: DeserializeOwned>(value: &(impl Serialize + ?Sized)) -> T {
    read_as(&postcard::to_stdvec(&Typed(value)).unwrap(), true).unwrap()
}

/// What was written as one type is refused as the other, whose bytes it could be.
#[track_caller]
fn differs<T: DeserializeOwned>(value: &(impl Serialize + ?Sized)) {
    let untyped = postcard::to_stdvec(value).unwrap();
    assert!(read_as::<T>(&untyped, false).is_ok(), "it has to be read");
    let typed = postcard::to_stdvec(&Typed(value)).unwrap();
    let refused = read_as::<T>(&typed, true).map(drop);
    assert_eq!(refused, Err(Status::InvalidData));
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    number: u32,
}

/// The same by other names, in other parts, and borrowed.
#[derive(Serialize)]
struct Borrowed<'a> {
    heading: Heading<'a>,
    #[serde(rename = "page")]
    number: &'a u32,
    #[serde(skip)]
    #[expect(dead_code, reason = "is not written")]
    unsaid: u64,
}

#[derive(Serialize)]
struct Heading<'a>(&'a str, ());

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Text(String),
    Pair(u8, u16),
    Named { page: Page, wide: Option<bool> },
}

/// One that asks for what it does not write.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::ffi::CString::deserialize(deserializer).map(|text| Self(text.into_bytes()))
    }
}

#[test]
fn a_value_is_read_as_what_it_was_written_as() {
    #[track_caller]
    fn itself<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        assert_eq!(fits::<T>(value), *value);
    }
    itself(&());
    itself(&(true, 'c', 1.5_f32, -2.5_f64, "text".to_owned()));
    itself(&(i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, isize::MIN));
    itself(&(u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX, usize::MAX));
    itself(&[[1_u8; 3]; 2]);
    itself(&vec![None, Some(Page::default())]);
    itself(&Some(Some(())));
    itself(&vec![(); 5]);
    itself(&BTreeMap::from([(1_u8, vec!["a".to_owned()]), (2, vec![])]));
    itself(&Duration::from_millis(1_500));
    itself(&"::1".parse::<IpAddr>().unwrap());
    itself(&"127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
    itself(&Raw(b"bytes".to_vec()));
    itself(&std::num::Wrapping(7_u32));
    itself(&Ok::<Page, String>(Page::default()));
    itself(&Err::<Page, String>("why".to_owned()));
    let page = Page::default();
    itself(&vec![
        Shape::Nothing,
        Shape::Text("a".to_owned()),
        Shape::Pair(1, 2),
        Shape::Named { page, wide: None },
    ]);
}

#[test]
fn types_that_mean_the_same_fit() {
    let page = Page {
        title: "One".to_owned(),
        number: 1,
    };
    let borrowed = Borrowed {
        heading: Heading("One", ()),
        number: &1,
        unsaid: 7,
    };
    assert_eq!(fits::<Page>(&borrowed), page);
    assert_eq!(fits::<Page>(&("One", 1_u32)), page);
    assert_eq!(fits::<(String, (), u32)>(&page).2, 1);
    // One argument is a tuple of one.
    assert_eq!(fits::<u32>(&(7_u32,)), 7);
    assert_eq!(fits::<String>("text"), "text");
    assert_eq!(fits::<Cow<'_, str>>(&Box::new("text")), "text");
    assert_eq!(fits::<u64>(&7_usize), 7);
    assert_eq!(fits::<Vec<u16>>(&[7_u16][..]), [7]);
    assert_eq!(fits::<VecDeque<u16>>(&vec![&7_u16]), [7]);
    assert_eq!(fits::<(u8, u8)>(&[1_u8, 2]), (1, 2));
    assert_eq!(fits::<Box<u8>>(&std::cell::Cell::new(7_u8)), Box::new(7));
    assert_eq!(fits::<Vec<u8>>(&Raw(vec![1, 2])), [1, 2]);
    assert_eq!(fits::<Raw>(&vec![1_u8, 2]), Raw(vec![1, 2]));
    let pairs = vec![(1_u8, true)];
    assert_eq!(
        fits::<HashMap<u8, bool>>(&pairs),
        HashMap::from([(1, true)])
    );
    assert_eq!(
        fits::<Vec<(u8, bool)>>(&HashMap::from([(1_u8, true)])),
        pairs
    );
    // What is absent is not compared.
    assert_eq!(fits::<Vec<Page>>(&Vec::<u32>::new()), []);
    assert_eq!(fits::<Option<Page>>(&None::<u32>), None);
    assert_eq!(fits::<String>(&format_args!("a{}", 1)), "a1");
}

#[test]
fn types_whose_bytes_happen_to_fit_differ() {
    // The text "7" is one byte and '7', and a number whatever its bytes are.
    differs::<(u8, u8)>("7");
    differs::<Vec<u8>>("7");
    differs::<String>(&vec![b'7']);
    differs::<char>("7");
    differs::<(u32, u32)>("7");
    // A page whose title is empty is a `Some` of what follows, or a `None`.
    let page = Page::default();
    differs::<(Option<u32>, u32)>(&page);
    differs::<Option<u32>>(&(1_u8, 7_u32));
    differs::<Option<u32>>(&0_u32);
    differs::<u32>(&None::<Page>);
    // A number without a type is an `i32`, and 7 is 14.
    differs::<u32>(&7);
    differs::<u64>(&7_u32);
    differs::<u8>(&7_i8);
    differs::<u8>(&true);
    differs::<bool>(&1_u32);
    differs::<[u8; 4]>(&1.0_f32);
    differs::<[u8; 8]>(&1.0_f64);
    differs::<Shape>(&(1_u8, "text"));
    differs::<u32>(&Shape::Nothing);
    differs::<Option<()>>(&Shape::Nothing);
    differs::<Result<u8, u8>>(&(0_u8, 7_u8));
    differs::<[u8; 3]>(&vec![1_u8, 2]);
    differs::<Vec<()>>(&7_u32);
    // However far behind it is.
    let long = |last: Option<u8>| (vec![7_u8; 10_000], "text", last);
    differs::<(Vec<u8>, String, (u8, u8))>(&long(Some(1)));
    let mut many = vec![None; 1_000];
    many.push(Some(true));
    differs::<Vec<Option<u8>>>(&many);
    // The same kinds in other numbers of a row, which end at the same byte.
    differs::<(u8, String)>(&(1_u8, 1_u8, ""));
}

#[test]
fn a_typed_message_has_its_record() {
    for bytes in [&[][..], &[7], &[7, 0, 0, 0, 0]] {
        assert_eq!(read_as::<u8>(bytes, true), Err(Status::InvalidData));
    }
    let mut bytes = postcard::to_stdvec(&Typed(&7_u8)).unwrap();
    assert_eq!(bytes.len(), 5);
    assert_eq!(read_as::<u8>(&bytes, true), Ok(7));
    bytes.push(0);
    assert_eq!(read_as::<u8>(&bytes, true), Err(Status::InvalidData));
}
