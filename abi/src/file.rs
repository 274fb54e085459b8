//! Files: how they are opened, what is told of them, and how a directory is listed.

use crate::op::{Malformed, Param};

/// Longest path, in bytes. Paths are absolute, UTF-8 and without NUL.
pub const PATH_MAX: usize = 4096;

/// How a file is opened: bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// For reading.
    pub const READ: u32 = 1;
    /// For writing.
    pub const WRITE: u32 = 1 << 1;
    /// For writing at its end, wherever an operation says to write.
    pub const APPEND: u32 = 1 << 2;
    /// Made if it does not exist. Wants `WRITE` or `APPEND`.
    pub const CREATE: u32 = 1 << 3;
    /// Made, and an error if it exists. Wants `WRITE` or `APPEND`.
    pub const CREATE_NEW: u32 = 1 << 4;
    /// Emptied. Wants `WRITE` without `APPEND`.
    pub const TRUNCATE: u32 = 1 << 5;

    const ALL: u32 = (1 << 6) - 1;

    /// Whether any of these bits is set.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Whether the bits make sense together.
    #[must_use]
    pub const fn is_consistent(self) -> bool {
        let writes = self.has(Self::WRITE | Self::APPEND);
        let makes = self.has(Self::CREATE | Self::CREATE_NEW);
        let empties = self.has(Self::TRUNCATE);
        let reads_only = self.has(Self::READ) && !makes;
        (writes || reads_only) && (!empties || self.has(Self::WRITE) && !self.has(Self::APPEND))
    }
}

impl Param for OpenFlags {
    #[inline]
    fn to_word(self) -> u64 {
        u64::from(self.0)
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        match u32::from_word(word) {
            Ok(bits) if bits & !Self::ALL == 0 && Self(bits).is_consistent() => Ok(Self(bits)),
            _ => Err(Malformed),
        }
    }
}

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// Something else: a socket, a pipe, a device.
    Other = 0,
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
}

impl FileKind {
    /// The kind of a number; [`FileKind::Other`] for one that this version does not know.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// What is told of a file: 40 bytes in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Unix permission bits, the low twelve.
    pub permissions: u32,
    /// Length in bytes.
    pub len: u64,
    /// Last change of its bytes, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last access, in nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Creation, in nanoseconds since 1970, or zero if the file system does not tell.
    pub created_ns: i64,
}

impl FileStat {
    /// Bytes of an encoded one.
    pub const SIZE: usize = 40;

    /// `permissions | kind << 16, 0, len, modified, accessed, created`, little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let head = self.permissions & 0xFFFF | (self.kind as u32) << 16;
        let words = [
            u64::from(head),
            self.len,
            self.modified_ns.cast_unsigned(),
            self.accessed_ns.cast_unsigned(),
            self.created_ns.cast_unsigned(),
        ];
        let mut bytes = [0; Self::SIZE];
        for (to, byte) in bytes
            .iter_mut()
            .zip(words.into_iter().flat_map(u64::to_le_bytes))
        {
            *to = byte;
        }
        bytes
    }

    /// The one in these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let mut words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        let head = next() as u32;
        Self {
            kind: FileKind::from_code((head >> 16) as u8),
            permissions: head & 0xFFFF,
            len: next(),
            modified_ns: next().cast_signed(),
            accessed_ns: next().cast_signed(),
            created_ns: next().cast_signed(),
        }
    }
}

/// One entry of a directory, as it stands in a batch: `kind, length of the name (2 bytes, little
/// endian), name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// What it is.
    pub kind: FileKind,
    /// Its name: not empty, no slash, no NUL, perhaps not UTF-8.
    pub name: &'a [u8],
}

impl<'a> DirectoryEntry<'a> {
    /// Bytes before the name.
    pub const HEAD: usize = 3;

    /// Least bytes of a buffer for a batch: room for the longest name, as the host reads it.
    pub const BATCH_MIN: usize = 512;

    /// What stands before the name.
    #[must_use]
    pub fn head(self) -> [u8; 3] {
        let [low, high] = (self.name.len() as u16).to_le_bytes();
        [self.kind as u8, low, high]
    }

    /// The first entry of a batch and what follows it, or `None` at its end.
    #[must_use]
    pub fn split(batch: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([kind, low, high], rest) = batch.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        let kind = FileKind::from_code(*kind);
        Some((Self { kind, name }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn flags_that_contradict_each_other_are_malformed() {
        use OpenFlags as F;
        for good in [
            F::READ,
            F::READ | F::WRITE,
            F::APPEND | F::CREATE,
            F::WRITE | F::TRUNCATE | F::CREATE_NEW,
        ] {
            assert_eq!(F::from_word(good.into()), Ok(F(good)), "{good:b}");
        }
        for bad in [
            0,
            F::CREATE,
            F::READ | F::CREATE,
            F::READ | F::TRUNCATE,
            F::APPEND | F::TRUNCATE,
            F::READ | 1 << 6,
        ] {
            assert_eq!(F::from_word(bad.into()), Err(Malformed), "{bad:b}");
        }
        assert_eq!(F::from_word(1 << 32 | 1), Err(Malformed));
    }

    #[test]
    fn what_is_told_of_a_file_survives_the_round_trip() {
        let stat = FileStat {
            kind: FileKind::Symlink,
            permissions: 0o7777,
            len: u64::MAX,
            modified_ns: -1,
            accessed_ns: i64::MAX,
            created_ns: 0,
        };
        assert_eq!(FileStat::from_bytes(&stat.to_bytes()), stat);
    }

    #[test]
    fn a_batch_is_read_entry_by_entry_and_not_past_its_end() {
        let entries = [
            (FileKind::File, &b"a"[..]),
            (FileKind::Directory, b"\xFF\xFE"),
        ];
        let mut batch = Vec::new();
        for (kind, name) in entries {
            batch.extend(DirectoryEntry { kind, name }.head());
            batch.extend(name);
        }
        let mut rest = &batch[..];
        for (kind, name) in entries {
            let (entry, behind) = DirectoryEntry::split(rest).unwrap();
            assert_eq!(entry, DirectoryEntry { kind, name });
            rest = behind;
        }
        assert_eq!(DirectoryEntry::split(rest), None);
        for cut in 1..4 {
            assert_eq!(
                DirectoryEntry::split(batch.get(..cut - 1).unwrap_or_default()),
                None
            );
        }
    }
}
