//! A reader of debug information that runs out of fuel.
//!
//! DWARF's tables refer to each other. A file of a few megabytes can have a hundred thousand
//! units that all name the same long list of ranges, and whoever reads it faithfully never comes to
//! an end. Every read costs fuel here, a string as much as it is long. When there is none left, reads
//! fail as at the end of the data, and the library above gives up.

use std::borrow::Cow;
use std::cell::Cell;

use gimli::{EndianSlice, Error, LittleEndian, Reader, ReaderOffsetId, Result};

/// What is left to spend.
#[derive(Debug)]
pub(crate) struct Fuel(Cell<u64>);

impl Fuel {
    /// So many reads.
    pub(crate) fn new(reads: u64) -> Self {
        Self(Cell::new(reads))
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
        match self.fuel.0.get().checked_sub(amount as u64) {
            Some(left) => {
                self.fuel.0.set(left);
                Ok(())
            }
            None => {
                self.fuel.0.set(0);
                Err(Error::UnexpectedEof(self.bytes.offset_id()))
            }
        }
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
    }
}
