//! The memory of a module: what is asked of it lies anywhere, also where there is none.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Errno, Outcome, Process};

/// Most pieces of memory that a call names.
const PIECES: u32 = 1024;

/// A piece of memory: where it lies, and its length.
type Piece = (u32, u32);

impl Process<'_> {
    fn memory(&mut self) -> Result<&mut [u8], Errno> {
        let memory = self.0.get_export("memory").and_then(|it| it.into_memory());
        Ok(memory.ok_or(Errno::Fault)?.data_mut(&mut self.0))
    }

    pub(super) fn slice(&mut self, at: u32, count: u32) -> Result<&mut [u8], Errno> {
        let (at, count) = (at as usize, count as usize);
        let slice = self.memory()?.get_mut(at..at + count);
        slice.ok_or(Errno::Fault)
    }

    pub(super) fn put(&mut self, at: u32, bytes: &[u8]) -> Outcome {
        let count = u32::try_from(bytes.len()).map_err(|_| Errno::Fault)?;
        self.slice(at, count)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u32(&mut self, at: u32, word: u32) -> Outcome {
        self.put(at, &word.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: u32, word: u64) -> Outcome {
        self.put(at, &word.to_le_bytes())
    }

    pub(super) fn text(&mut self, at: u32, count: u32) -> Result<String, Errno> {
        let text = core::str::from_utf8(self.slice(at, count)?);
        text.map(String::from).map_err(|_| Errno::Ilseq)
    }

    /// The pieces that lie one behind the other in a list.
    pub(super) fn pieces(&mut self, list: u32, count: u32) -> Result<Vec<Piece>, Errno> {
        if count > PIECES {
            return Err(Errno::Inval);
        }
        let (words, _) = self.slice(list, 8 * count)?.as_chunks::<4>();
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let (pairs, _) = words.as_chunks::<2>();
        Ok(pairs.iter().map(|[at, length]| (*at, *length)).collect())
    }

    /// Up to `most` bytes of pieces.
    pub(super) fn gather(&mut self, pieces: &[Piece], most: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        for (at, length) in pieces {
            let piece = self.slice(*at, *length)?;
            let left = most - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(left)]);
        }
        Ok(bytes)
    }

    /// Puts bytes into pieces, for which there is room in them.
    pub(super) fn scatter(&mut self, pieces: &[Piece], mut bytes: &[u8]) -> Outcome {
        for (at, length) in pieces {
            let (part, rest) = bytes.split_at(bytes.len().min(*length as usize));
            self.put(*at, part)?;
            bytes = rest;
        }
        Ok(())
    }
}
