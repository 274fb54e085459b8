//! Numbers and bytes one after the other, little-endian.

use crate::error::TemplateFileError;

/// What is left to be read of something.
pub(super) struct Fields<'a> {
    left: &'a [u8],
    /// What it is, for errors.
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { left: bytes, what }
    }

    pub(super) fn damaged(&self, why: &str) -> TemplateFileError {
        TemplateFileError::Damaged(format!("{} {why}", self.what))
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], TemplateFileError> {
        let (bytes, left) = self
            .left
            .split_at_checked(len)
            .ok_or_else(|| self.damaged("is shorter than it says"))?;
        self.left = left;
        Ok(bytes)
    }

    pub(super) fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], TemplateFileError> {
        let mut array = [0; LEN];
        array.copy_from_slice(self.bytes(LEN)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, TemplateFileError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TemplateFileError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, TemplateFileError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things of `size` bytes each, which must all be there: nothing is reserved for more.
    pub(super) fn count(&mut self, size: usize) -> Result<usize, TemplateFileError> {
        let count = self.u32()? as usize;
        match count.checked_mul(size) {
            Some(len) if len <= self.left.len() => Ok(count),
            _ => Err(self.damaged("is shorter than it says")),
        }
    }

    /// A value that is zero or one.
    pub(super) fn flag(&mut self) -> Result<bool, TemplateFileError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("has a flag that is neither set nor not")),
        }
    }

    /// All has been read.
    pub(super) fn end(self) -> Result<(), TemplateFileError> {
        match self.left {
            [] => Ok(()),
            _ => Err(self.damaged("is longer than it says")),
        }
    }
}

/// Appends numbers and bytes.
#[derive(Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// A count, of at most 2³² things.
    pub(super) fn count(&mut self, count: usize) {
        self.u32(count as u32);
    }
}
