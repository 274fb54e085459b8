//! What stands before a call.

use super::{CallKind, Param};

/// What stands before the name and the arguments of a call: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHeader {
    /// Which call, for its reply.
    pub call: u64,
    /// Whether it is made or taken back.
    pub kind: CallKind,
    /// Length of the function's name, in bytes; its arguments follow.
    pub name_len: u32,
}

impl CallHeader {
    /// Bytes of an encoded header.
    pub const SIZE: usize = 16;

    /// `call, kind, length of the name`, little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = self.call.to_le_bytes().into_iter();
        let words = words.chain((self.kind as u32).to_le_bytes());
        for (to, byte) in bytes
            .iter_mut()
            .zip(words.chain(self.name_len.to_le_bytes()))
        {
            *to = byte;
        }
        bytes
    }

    /// The header at the beginning of these bytes and what follows it, or `None` if there is none.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (call, rest) = bytes.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (name_len, rest) = rest.split_first_chunk()?;
        let kind = CallKind::from_word(u64::from(u32::from_le_bytes(*kind))).ok()?;
        let name_len = u32::from_le_bytes(*name_len);
        Some((
            Self {
                call: u64::from_le_bytes(*call),
                kind,
                name_len,
            },
            rest,
        ))
    }
}
