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

    /// Each write waits until its bytes, and what is needed to read them, are on the disk. Wants `WRITE`
    /// or `APPEND`.
    pub const SYNC_DATA: u32 = 1 << 6;
    /// Each write waits until all of the file is on the disk. Wants `WRITE` or `APPEND`.
    pub const SYNC_ALL: u32 = 1 << 7;

    const ALL: u32 = (1 << 8) - 1;

    /// Whether any of these bits is set.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Whether the bits make sense together.
    #[must_use]
    pub const fn is_consistent(self) -> bool {
        let writes = self.has(Self::WRITE | Self::APPEND);
        let wants_writes = Self::CREATE | Self::CREATE_NEW | Self::SYNC_DATA | Self::SYNC_ALL;
        let empties = self.has(Self::TRUNCATE);
        let reads_only = self.has(Self::READ) && !self.has(wants_writes);
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

/// What a time of a file is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTime {
    /// What it is.
    Keep,
    /// The host's time, as the file system has it.
    Now,
    /// Nanoseconds since 1970. The two earliest that there could be stand for the other variants.
    At(i64),
}

impl FileTime {
    const KEEP: i64 = i64::MIN;
    const NOW: i64 = i64::MIN + 1;
}

impl Param for FileTime {
    #[inline]
    fn to_word(self) -> u64 {
        let ns = match self {
            Self::Keep => Self::KEEP,
            Self::Now => Self::NOW,
            Self::At(ns) => ns,
        };
        ns.cast_unsigned()
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        Ok(match word.cast_signed() {
            Self::KEEP => Self::Keep,
            Self::NOW => Self::Now,
            ns => Self::At(ns),
        })
    }
}

/// What is told of a file: 64 bytes in the arena, or the first of them in less room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Unix permission bits, the low twelve.
    pub permissions: u32,
    /// How many names it has.
    pub links: u32,
    /// The file system on which it is, as a number that means nothing else.
    pub device: u64,
    /// Which of that file system's files it is: two paths with the same two numbers lead to one file.
    pub inode: u64,
    /// Length in bytes.
    pub len: u64,
    /// Last change of its bytes, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last access, in nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Creation, in nanoseconds since 1970, or zero if the file system does not tell.
    pub created_ns: i64,
    /// Last change of its bytes, names or rights, in nanoseconds since 1970.
    pub changed_ns: i64,
}

impl FileStat {
    /// Bytes of an encoded one.
    pub const SIZE: usize = 64;

    /// Least bytes that are asked for: all up to the creation.
    pub const LEAST: usize = 40;

    /// `permissions | kind << 16 | links << 32, len, modified, accessed, created, changed, device,
    /// inode`, words of eight bytes, little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let head = self.permissions & 0xFFFF | (self.kind as u32) << 16;
        let words = [
            u64::from(self.links) << 32 | u64::from(head),
            self.len,
            self.modified_ns.cast_unsigned(),
            self.accessed_ns.cast_unsigned(),
            self.created_ns.cast_unsigned(),
            self.changed_ns.cast_unsigned(),
            self.device,
            self.inode,
        ];
        let mut bytes = [0; Self::SIZE];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
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
        let head = next();
        Self {
            kind: FileKind::from_code((head >> 16) as u8),
            permissions: head as u32 & 0xFFFF,
            links: (head >> 32) as u32,
            len: next(),
            modified_ns: next().cast_signed(),
            accessed_ns: next().cast_signed(),
            created_ns: next().cast_signed(),
            changed_ns: next().cast_signed(),
            device: next(),
            inode: next(),
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
            F::WRITE | F::SYNC_DATA,
            F::APPEND | F::SYNC_ALL,
        ] {
            assert_eq!(F::from_word(good.into()), Ok(F(good)), "{good:b}");
        }
        for bad in [
            0,
            F::CREATE,
            F::READ | F::CREATE,
            F::READ | F::TRUNCATE,
            F::APPEND | F::TRUNCATE,
            F::READ | F::SYNC_ALL,
            F::WRITE | 1 << 8,
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
            links: u32::MAX,
            device: 1,
            inode: u64::MAX - 1,
            len: u64::MAX,
            modified_ns: -1,
            accessed_ns: i64::MAX,
            created_ns: 0,
            changed_ns: 7,
        };
        assert_eq!(FileStat::from_bytes(&stat.to_bytes()), stat);
    }

    #[test]
    fn a_batch_is_read_entry_by_entry_and_not_past_its_end() {
        let entries = [
            (FileKind::File, &b"a"[..]),
            (FileKind::Directory, b"\xFF\xFE"),
        ]
        .map(|(kind, name)| DirectoryEntry { kind, name });
        let mut batch = Vec::new();
        for entry in entries {
            batch.extend(entry.head());
            batch.extend(entry.name);
        }
        let mut rest = &batch[..];
        for expected in entries {
            let (entry, behind) = DirectoryEntry::split(rest).unwrap();
            assert_eq!(entry, expected);
            rest = behind;
        }
        assert_eq!(DirectoryEntry::split(rest), None);
        for cut in 0..=DirectoryEntry::HEAD {
            assert_eq!(DirectoryEntry::split(batch.get(..cut).unwrap()), None);
        }
    }
}
