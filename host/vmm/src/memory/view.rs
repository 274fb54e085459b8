//! Guest memory by the addresses of the guest.

use std::sync::Arc;

use super::GuestMemory;
use crate::plan::Mapping;

/// Guest memory by guest-virtual addresses, as the guest itself may read it.
#[derive(Clone, Debug)]
pub struct View {
    memory: Arc<GuestMemory>,
    /// In the order of their addresses.
    mappings: Vec<Mapping>,
}

impl View {
    /// What lies at these ranges.
    pub fn new(memory: Arc<GuestMemory>, mut mappings: Vec<Mapping>) -> Self {
        mappings.sort_by_key(|mapping| mapping.start);
        Self { memory, mappings }
    }

    /// All ranges that the guest can reach, in the order of their addresses.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Copies out what lies at an address, up to the end of the range that it is in. Returns how
    /// many bytes that were.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let Some((offset, left)) = self.find(address) else {
            return 0;
        };
        let len = bytes.len().min(left as usize);
        self.memory.read(offset, &mut bytes[..len]);
        len
    }

    /// Copies in, as far, for a debugger: also where the guest itself may not write. Returns how many bytes that were.
    pub fn write(&self, address: u64, bytes: &[u8]) -> usize {
        let Some((offset, left)) = self.find(address) else {
            return 0;
        };
        let len = bytes.len().min(left as usize);
        self.memory.write(offset, &bytes[..len]);
        len
    }

    /// Where in the RAM an address lies, and how many bytes there are up to the end of its range: at least one.
    fn find(&self, address: u64) -> Option<(u64, u64)> {
        let behind = self
            .mappings
            .partition_point(|mapping| mapping.start <= address);
        let mapping = &self.mappings[behind.checked_sub(1)?];
        let into = address - mapping.start;
        let (offset, left) = (
            mapping.region.offset + into,
            mapping.region.len.saturating_sub(into),
        );
        (left > 0).then_some((offset, left))
    }
}
