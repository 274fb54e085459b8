//! Four-level page tables (Intel SDM vol. 3A, 4.5; AMD APM vol. 2, 5.3), written once
//! before the start and never changed, but for those of windows (`windows.rs`).
//!
//! The accessed and dirty bits are set from the start, so that the processor never
//! writes to a table either.

use wakebox_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page. There is no value for "write and execute".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// Ring 3 reads.
    pub const READ: Self = Self(USER | NO_EXECUTE);
    /// Ring 3 reads and writes.
    pub const WRITE: Self = Self(USER | WRITABLE | NO_EXECUTE);
    /// Ring 3 reads and executes.
    pub const EXECUTE: Self = Self(USER);
    /// Ring 0 reads.
    pub const SUPERVISOR_READ: Self = Self(NO_EXECUTE);
    /// Ring 0 reads and writes.
    pub const SUPERVISOR_WRITE: Self = Self(WRITABLE | NO_EXECUTE);
    /// Ring 0 reads and executes.
    pub const SUPERVISOR_EXECUTE: Self = Self(0);

    /// `r--`, `rw-` or `r-x`, as in `/proc/self/maps`.
    pub fn letters(self) -> &'static str {
        match (self.is_writable(), self.is_executable()) {
            (false, false) => "r--",
            (true, _) => "rw-",
            (false, true) => "r-x",
        }
    }

    /// Whether ring 3 may write, where it may do anything.
    pub fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether it may execute.
    pub fn is_executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }
}

/// Page tables under construction. The first page is the root.
#[derive(Debug)]
pub struct Tables {
    base: u64,
    pages: Vec<[u64; 512]>,
}

impl Tables {
    /// Empty tables that will lie at the guest-physical address `base`.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            pages: vec![[0; 512]],
        }
    }

    /// Most pages that the tables of a guest take, from the sizes of what is mapped in
    /// small pages and of what can be mapped in large ones.
    pub fn most_pages(image: u64, stack: u64, memory: u64) -> u64 {
        let small = |bytes: u64| bytes / LARGE_PAGE_SIZE + 2;
        // Root, one level-3 table, level-2 tables for the image's and the system's gigabyte;
        // supervisor and boot, control and rings (four), ends of arena and heap.
        4 + 9 + small(image) + small(stack) + (memory >> 30) + 2
    }

    /// Maps `len` bytes, in large pages where both addresses allow it.
    pub fn map(&mut self, mut virt: u64, mut phys: u64, mut len: u64, rights: Rights) {
        debug_assert!(
            virt.is_multiple_of(PAGE_SIZE)
                && phys.is_multiple_of(PAGE_SIZE)
                && len.is_multiple_of(PAGE_SIZE)
        );
        while len > 0 {
            let large = (virt | phys).is_multiple_of(LARGE_PAGE_SIZE) && len >= LARGE_PAGE_SIZE;
            let (level, step) = if large {
                (1, LARGE_PAGE_SIZE)
            } else {
                (0, PAGE_SIZE)
            };
            let entry =
                phys | rights.0 | PRESENT | ACCESSED | DIRTY | if large { LARGE } else { 0 };
            let table = self.table(virt, level);
            self.pages[table][index(virt, level)] = entry;
            virt += step;
            phys += step;
            len -= step;
        }
    }

    /// Has the root lead to a table of the level below it that lies at a physical address, for the half tebibyte that begins
    /// with an address of which nothing is mapped.
    pub(crate) fn link(&mut self, virt: u64, table: u64) {
        self.pages[0][index(virt, 3)] = to_table(table);
    }

    /// Finds or makes the table of a level (0: 4 KiB entries, 1: 2 MiB entries) for an address.
    fn table(&mut self, virt: u64, level: u32) -> usize {
        let mut table = 0;
        for upper in (level + 1..4).rev() {
            let at = index(virt, upper);
            let entry = self.pages[table][at];
            table = if entry & PRESENT == 0 {
                self.pages.push([0; 512]);
                let made = self.pages.len() - 1;
                // Rights are the leaves' to restrict.
                self.pages[table][at] = to_table(self.base + made as u64 * PAGE_SIZE);
                made
            } else {
                ((entry & ADDRESS) - self.base) as usize / PAGE_SIZE as usize
            };
        }
        table
    }

    /// The tables, in the order of their addresses.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pages
            .as_flattened()
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect()
    }
}

/// Which entry lies at a byte of the tables.
pub fn name(at: usize) -> String {
    let (table, entry) = (at / PAGE_SIZE as usize, at % PAGE_SIZE as usize / 8);
    format!("entry {entry} of page table {table}")
}

/// An entry that leads to a table.
pub(crate) const fn to_table(at: u64) -> u64 {
    at | PRESENT | WRITABLE | USER | ACCESSED
}

/// An entry for a page that ring 3 reads and writes.
pub(crate) const fn to_page(at: u64) -> u64 {
    at | Rights::WRITE.0 | PRESENT | ACCESSED | DIRTY
}

/// Where an entry leads, if it does.
pub(crate) const fn led_to(entry: u64) -> Option<u64> {
    match entry & PRESENT {
        0 => None,
        _ => Some(entry & ADDRESS),
    }
}

pub(crate) const fn index(virt: u64, level: u32) -> usize {
    (virt >> (12 + 9 * level)) as usize & 511
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the processor does.
    fn translate(tables: &Tables, virt: u64) -> Option<(u64, u64)> {
        let mut table = 0;
        for level in (0..4).rev() {
            let entry = tables.pages[table][index(virt, level)];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                let mask = (1 << (12 + 9 * level)) - 1;
                return Some((entry & ADDRESS & !mask | virt & mask, entry & !ADDRESS));
            }
            table = ((entry & ADDRESS) - tables.base) as usize / 4096;
        }
        None
    }

    #[test]
    fn addresses_translate_with_the_rights_given() {
        let mut tables = Tables::new(0x10_0000);
        tables.map(0x20_0000, 0x7000, 0x2000, Rights::EXECUTE);
        tables.map(0x1_0000_0000, 0x40_0000, 0x60_1000, Rights::WRITE);
        let flags = PRESENT | ACCESSED | DIRTY;
        assert_eq!(translate(&tables, 0x20_1234), Some((0x8234, flags | USER)));
        assert_eq!(translate(&tables, 0x20_2000), None);
        assert_eq!(translate(&tables, 0x1f_ffff), None);
        let write = flags | USER | WRITABLE | NO_EXECUTE;
        assert_eq!(
            translate(&tables, 0x1_0030_0005),
            Some((0x70_0005, write | LARGE))
        );
        assert_eq!(translate(&tables, 0x1_0060_0fff), Some((0xa0_0fff, write)));
        assert_eq!(translate(&tables, 0x1_0060_1000), None);
    }

    #[test]
    fn large_pages_keep_the_tables_few() {
        let mut tables = Tables::new(0);
        tables.map(0x1_0000_0000, 0x20_0000, 64 << 20, Rights::WRITE);
        assert_eq!(tables.pages.len(), 3);
    }
}
