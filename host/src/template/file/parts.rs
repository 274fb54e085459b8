//! A part on its way into a file and out of one.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use wakebox_vmm::frozen::Frozen;

use super::header::{HASH, Part};
use crate::error::TemplateFileError as E;

/// Bytes that are read at once.
pub(super) const PIECE: usize = 256 << 10;

/// The largest window of compressed data, in bytes: what the library's own levels use and a little more.
#[cfg(feature = "zstd")]
const WINDOW: u64 = 16 << 20;

/// A part that is read, and hashed on the way.
pub(super) struct Reading<'a, R> {
    from: &'a mut R,
    part: &'a Part,
    left: u64,
    hasher: Sha256,
}

impl<'a, R: Read> Reading<'a, R> {
    pub(super) fn new(from: &'a mut R, part: &'a Part) -> Self {
        Self {
            from,
            part,
            left: part.stored,
            hasher: Sha256::new(),
        }
    }

    fn name(&self) -> &'static str {
        self.part.kind.name()
    }

    /// Fills a buffer.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), E> {
        let len = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(len) else {
            return Err(E::Damaged(format!(
                "{} is shorter than it says",
                self.name()
            )));
        };
        fill(self.from, bytes, self.name())?;
        self.left = left;
        self.hasher.update(bytes);
        Ok(())
    }

    /// It has been read to its end: sees that it is what was written.
    pub(super) fn end(self) -> Result<(), E> {
        if self.left > 0 {
            return Err(E::Damaged(format!(
                "{} is longer than it says",
                self.name()
            )));
        }
        let name = self.name();
        if self.hasher.finalize()[..] != self.part.hash {
            return Err(E::Altered(name));
        }
        Ok(())
    }

    /// All of its bytes as they are stored. No more memory is taken than there are bytes.
    pub(super) fn stored(mut self, most: u64) -> Result<Vec<u8>, E> {
        if self.left > most {
            let asked = self.left;
            return Err(E::TooLarge { asked, most });
        }
        let mut bytes = Vec::new();
        while self.left > 0 {
            let start = bytes.len();
            bytes.resize(start + self.left.min(PIECE as u64) as usize, 0);
            self.fill(&mut bytes[start..])?;
        }
        self.end()?;
        Ok(bytes)
    }

    /// All of it, which is no more than `most` bytes.
    pub(super) fn whole(self, most: u64) -> Result<Vec<u8>, E> {
        let part = self.part;
        if part.len > most {
            let asked = part.len;
            return Err(E::TooLarge { asked, most });
        }
        let stored = self.stored(most)?;
        if !part.is_compressed {
            return Ok(stored);
        }
        let mut bytes = Vec::new();
        let mut unpacked = unpacked(&stored, part.kind.name())?;
        while (bytes.len() as u64) < part.len {
            let start = bytes.len();
            let piece = (part.len - start as u64).min(PIECE as u64) as usize;
            bytes.resize(start + piece, 0);
            unpack(&mut unpacked, &mut bytes[start..], part.kind.name())?;
        }
        unpacked_to_end(&mut unpacked, part.kind.name())?;
        Ok(bytes)
    }
}

/// Fills a buffer from a file.
pub(super) fn fill(from: &mut impl Read, bytes: &mut [u8], what: &'static str) -> Result<(), E> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => E::Truncated(what),
        _ => E::Read(error),
    })
}

/// What compressed bytes stand for.
#[cfg(feature = "zstd")]
pub(super) fn unpacked<'a>(stored: &'a [u8], what: &'static str) -> Result<impl Read + use<'a>, E> {
    use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW);
    StreamingDecoder::new_with_decoder(stored, decoder)
        .map_err(|error| E::Damaged(format!("{what} cannot be unpacked: {error}")))
}

/// The same, where nothing can be unpacked.
#[cfg(not(feature = "zstd"))]
pub(super) fn unpacked(_: &[u8], _: &'static str) -> Result<io::Empty, E> {
    Err(E::Compressed)
}

/// Fills a buffer with what compressed bytes stand for.
pub(super) fn unpack(
    unpacked: &mut impl Read,
    bytes: &mut [u8],
    what: &'static str,
) -> Result<(), E> {
    unpacked
        .read_exact(bytes)
        .map_err(|error| E::Damaged(format!("{what} cannot be unpacked: {error}")))
}

/// Sees that compressed bytes stand for nothing more.
pub(super) fn unpacked_to_end(unpacked: &mut impl Read, what: &'static str) -> Result<(), E> {
    match unpacked.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(E::Damaged(format!("{what} is longer than it says"))),
        Err(error) => Err(E::Damaged(format!("{what} cannot be unpacked: {error}"))),
    }
}

/// Bytes, compressed.
#[cfg(feature = "zstd")]
pub(super) fn packed(bytes: impl Read) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The same, where nothing can be compressed, and nobody can ask for it.
#[cfg(not(feature = "zstd"))]
pub(super) fn packed(_: impl Read) -> Vec<u8> {
    Vec::new()
}

pub(super) fn hash(bytes: &[u8]) -> [u8; HASH] {
    Sha256::digest(bytes).into()
}

/// A range of memory, in bytes: start and length.
pub(super) type Range = (u64, u64);

/// The pages of ranges, one behind the other.
pub(super) struct Pages<'a> {
    memory: &'a Frozen,
    ranges: std::slice::Iter<'a, Range>,
    /// What is left of the range that is being read.
    range: Range,
    /// What could not be read.
    pub(super) failed: Option<wakebox_vmm::Error>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(memory: &'a Frozen, ranges: &'a [Range]) -> Self {
        Self {
            memory,
            ranges: ranges.iter(),
            range: (0, 0),
            failed: None,
        }
    }
}

impl Read for Pages<'_> {
    /// At its end also if memory could not be read: who compresses has no other way to be told.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.range.1 == 0 {
            match self.ranges.next() {
                Some(range) => self.range = *range,
                None => return Ok(0),
            }
        }
        let (start, len) = self.range;
        let piece = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
        if let Err(error) = self.memory.read(start, &mut bytes[..piece]) {
            self.failed = Some(error);
            return Ok(0);
        }
        self.range = (start + piece as u64, len - piece as u64);
        Ok(piece)
    }
}
