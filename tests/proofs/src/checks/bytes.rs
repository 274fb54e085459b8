//! Forms that are read out of bytes which somebody else has written.

use wakebox_abi::file::{DirectoryEntry, FileStat};
use wakebox_abi::note::{self, Description};
use wakebox_abi::op::{CallHeader, SocketAddress};
use wakebox_abi::report;

use super::run;
use crate::any::Any;

/// Any bytes, up to so many.
fn bytes<const MOST: usize, A: Any>(any: &mut A, telling: &[u8]) -> ([u8; MOST], usize) {
    let len = any.below(MOST as u32 + 1) as usize;
    let mut bytes = [0; MOST];
    for byte in &mut bytes[..len] {
        *byte = any.u8(telling);
    }
    (bytes, len)
}

/// A call's header takes 16 bytes if there are that many, and is written as it was read.
pub fn a_call_header_is_read_whole_or_not<A: Any>(any: &mut A) {
    const SIZE: usize = CallHeader::SIZE;
    let mut whole = [0; SIZE + 1];
    let len = any.one_of(&[0, 7, 8, 11, 12, 15, SIZE, SIZE + 1]);
    for at in [0, 7, 8, 9, 11, 12, 15] {
        whole[at] = any.u8(&[0, 2, 0xFF]);
    }
    match CallHeader::split(&whole[..len]) {
        Some((header, rest)) => {
            assert_eq!(rest.len(), len - SIZE);
            assert_eq!(header.to_bytes(), whole[..SIZE]);
        }
        None => assert!(len < SIZE || !matches!(whole[8..12], [0..=2, 0, 0, 0])),
    }
}

/// An entry of a listing and what follows it are the bytes that there were.
pub fn a_listing_is_read_entry_by_entry<A: Any>(any: &mut A) {
    let (bytes, len) = bytes::<6, A>(any, &[0, 1, 3, 0xFF]);
    let mut rest = &bytes[..len];
    while let Some((entry, behind)) = DirectoryEntry::split(rest) {
        assert_eq!(3 + entry.name.len() + behind.len(), rest.len());
        rest = behind;
    }
}

/// A socket's address and a file's metadata are read from any bytes, and written as read.
pub fn fixed_forms_are_read_from_any_bytes<A: Any>(any: &mut A) {
    let mut address = [0; SocketAddress::SIZE];
    for at in [0, 2, 4, 23] {
        address[at] = any.u8(&[0, 4, 6, 0xFF]);
    }
    if let Some(read) = SocketAddress::from_bytes(&address) {
        assert_eq!(SocketAddress::from_bytes(&read.to_bytes()), Some(read));
    }
    let mut stat = [0; FileStat::SIZE];
    for at in [0, 2, 7, 8, 63] {
        stat[at] = any.u8(&[0, 3, 4, 0xFF]);
    }
    let read = FileStat::from_bytes(&stat);
    assert_eq!(FileStat::from_bytes(&read.to_bytes()), read);
}

/// A note says something if it is long enough.
pub fn a_note_is_read_whole_or_not<A: Any>(any: &mut A) {
    const MOST: usize = note::DESC_SIZE + 1;
    let mut desc = [0; MOST];
    let len = any.below(MOST as u32 + 1) as usize;
    for at in [0, 4, 8, 15] {
        desc[at] = any.u8(&[0, 1, 0xFF]);
    }
    let read = Description::parse(&desc[..len]);
    assert_eq!(read.is_some(), len >= note::DESC_LEAST);
}

/// Last words are never longer than their places.
pub fn last_words_stay_in_their_page<A: Any>(any: &mut A) {
    let mut page = [0xA5; report::SIZE];
    let lengths = [0, 1, 96, 97, 512, 513, 3200, 3201, u32::MAX];
    for at in [0, 4, 12] {
        let length = any.u32(&lengths);
        page[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    let reader = report::Reader::new(&page);
    let length = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte: usize| page[at + byte]));
    assert_eq!(reader.message().len(), length(0).min(3200) as usize);
    assert_eq!(reader.file().len(), length(4).min(512) as usize);
    assert_eq!(reader.task().len(), length(12).min(96) as usize);
}

run! {
    #[kani::unwind(18)]
    a_call_header_is_read_whole_or_not,
    #[kani::unwind(8)]
    a_listing_is_read_entry_by_entry,
    #[kani::unwind(41)]
    fixed_forms_are_read_from_any_bytes,
    #[kani::unwind(18)]
    a_note_is_read_whole_or_not,
    #[kani::unwind(5)]
    last_words_stay_in_their_page,
}
