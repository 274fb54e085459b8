//! A budget of steps for reading what a guest brings, and a reader of debug information that keeps
//! to one.
//!
//! Tables refer to each other. A file of a few megabytes can have a hundred thousand units that all
//! name the same long list of ranges, and whoever reads it faithfully never comes to an end.
//! Whatever the host does with a guest's file or stack therefore costs steps of [`Fuel`]: a record of
//! a table, a word of guest memory, a read of debug information (a string as many as it is long).
//! A step takes some nanoseconds, and no more than a few tens; what is given out at once is in
//! [`limits`]. When there is none left, reads fail as at the end of the data, and what is known by
//! then is the result.

use std::borrow::Cow;
use std::cell::Cell;

use gimli::{EndianSlice, Error, LittleEndian, Reader, ReaderOffsetId, Result};

use crate::error::LoadError;

/// How many steps there are for what.
pub(crate) mod limits {
    /// Notes and relocations of a file, whatever its length: 128 MiB of pointers.
    pub(crate) const LOAD: u64 = 1 << 24;
    /// What a file may have however short it is.
    pub(crate) const LOAD_LEAST: u64 = 1 << 16;
    /// The calls on a stopped guest's stack, which are looked for before its outcome is known: some
    /// milliseconds. A stack of 1 MiB holds no more calls than these find.
    pub(crate) const UNWIND: u64 = 1 << 18;
    /// As many of them as are looked for on the thread that ran the guest: some tenths of a millisecond.
    /// A stack that nobody made up needs no more.
    pub(crate) const UNWIND_AT_ONCE: u64 = 1 << 13;
    /// Names and lines of one backtrace, which are looked up by whoever asks for them: a tenth of
    /// a second. A release build with 10 MB of debug information takes a quarter of that.
    pub(crate) const SYMBOLS: u64 = 1 << 24;
}

/// What is left to spend.
#[derive(Debug)]
pub(crate) struct Fuel {
    given: u64,
    left: Cell<u64>,
}

/// There is none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfFuel {
    /// How many steps there were.
    pub(crate) given: u64,
}

impl From<OutOfFuel> for LoadError {
    fn from(out: OutOfFuel) -> Self {
        Self::TooMuchWork(out.given)
    }
}

impl Fuel {
    /// So many steps.
    pub(crate) fn new(steps: u64) -> Self {
        Self {
            given: steps,
            left: Cell::new(steps),
        }
    }

    /// For loading a file of this length: a step for every eight bytes, which suffices whatever its
    /// tables hold if no byte is in two of them.
    pub(crate) fn for_file(len: usize) -> Self {
        Self::new((limits::LOAD_LEAST + len as u64 / 8).min(limits::LOAD))
    }

    /// Takes so many steps.
    ///
    /// # Errors
    ///
    /// There are not as many left. Then there are none.
    pub(crate) fn spend(&self, steps: u64) -> std::result::Result<(), OutOfFuel> {
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(OutOfFuel { given: self.given })
    }

    /// Whether all of it was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.get() == 0
    }

    /// How many steps were taken.
    #[cfg(any(test, feature = "proof"))]
    pub(crate) fn spent(&self) -> u64 {
        self.given - self.left.get()
    }
}

/// Bytes that are read as long as the fuel lasts.
#[derive(Clone, Debug)]
pub(crate) struct Metered<'a> {
    bytes: EndianSlice<'a, LittleEndian>,
    fuel: &'a Fuel,
}

impl<'a> Metered<'a> {
    /// A reader of these bytes.
    pub(crate) fn new(bytes: &'a [u8], fuel: &'a Fuel) -> Self {
        let bytes = EndianSlice::new(bytes, LittleEndian);
        Self { bytes, fuel }
    }

    fn spend(&self, amount: usize) -> Result<()> {
        let spent = self.fuel.spend(amount as u64);
        spent.map_err(|_| Error::UnexpectedEof(self.bytes.offset_id()))
    }
}

impl Reader for Metered<'_> {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn empty(&mut self) {
        self.bytes.empty();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.bytes.truncate(len)
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.bytes.offset_from(base.bytes)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        self.bytes.offset_id()
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        self.bytes.lookup_offset_id(id)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let at = Reader::find(&self.bytes, byte)?;
        // The search is vectorized; it costs less than as many reads.
        self.spend(1 + at / 16)?;
        Ok(at)
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        self.spend(1)?;
        self.bytes.skip(len)
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        self.spend(1)?;
        let bytes = self.bytes.split(len)?;
        let fuel = self.fuel;
        Ok(Self { bytes, fuel })
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.spend(self.bytes.len())?;
        self.bytes.to_slice()
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.spend(self.bytes.len())?;
        Reader::to_string(&self.bytes)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.spend(self.bytes.len())?;
        Reader::to_string_lossy(&self.bytes)
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.spend(buf.len().div_ceil(8))?;
        Reader::read_slice(&mut self.bytes, buf)
    }

    fn read_u8(&mut self) -> Result<u8> {
        self.spend(1)?;
        self.bytes.read_u8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fail_when_the_fuel_is_used_up() {
        let bytes = [7; 100];
        let fuel = Fuel::new(3);
        let mut reader = Metered::new(&bytes, &fuel);
        assert_eq!(reader.read_u8(), Ok(7));
        let mut part = reader.split(50).unwrap();
        assert_eq!(part.read_u32(), Ok(0x0707_0707));
        assert!(part.read_u8().is_err());
        assert!(reader.clone().skip(1).is_err(), "all readers share it");
        assert!(reader.to_string_lossy().is_err());
        assert_eq!(fuel.spent(), 3);
    }
}
