//! The words of an image that depend on where it lies, and its dynamic section, which says where
//! they are (ELF gABI, chapter 5; System V ABI, AMD64 supplement, 4.4).
//!
//! A list of them could be many times as long as their tables: a packed table says "the next 63
//! words" in eight bytes. So there is no list. The tables are read whenever the image is loaded,
//! and were checked, every entry, when it was parsed.

use goblin::elf::program_header::{PT_DYNAMIC, ProgramHeader};
use goblin::elf::{dynamic, reloc};
use wakebox_vmm::x86_64::paging::Rights;

use super::Segment;
use super::headers::{contents, damaged};
use crate::elf::fuel::Fuel;
use crate::error::LoadError;

/// Packed relative relocations (ELF gABI, "Relative Relocation Table").
const DT_RELR: u64 = 36;
const DT_RELRSZ: u64 = 35;

/// Longest name in a message, in bytes.
const LONGEST_NAME: usize = 200;

/// A file and its segments, which are in the order of their addresses and do not overlap.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) segments: &'a [Segment],
    /// What is added to link-time addresses.
    pub(super) bias: u64,
}

impl<'a> Parts<'a> {
    /// The segment at an address in the guest.
    fn segment(&self, address: u64) -> Option<&'a Segment> {
        let behind = self
            .segments
            .partition_point(|segment| segment.addresses.start <= address);
        let segment = &self.segments[behind.checked_sub(1)?];
        segment.addresses.contains(&address).then_some(segment)
    }

    /// The file's bytes from a link-time address to the end of its segment.
    fn at(&self, address: u64) -> Result<&'a [u8], LoadError> {
        let virt = address.wrapping_add(self.bias);
        let found = self.segment(virt).and_then(|segment| {
            let bytes = self.bytes.get(segment.file.clone())?;
            let from = bytes.get((virt - segment.addresses.start) as usize..)?;
            (!from.is_empty()).then_some(from)
        });
        found.ok_or_else(|| {
            damaged(format!(
                "its dynamic section names {address:#x}, where no segment is"
            ))
        })
    }

    /// `len` bytes at a link-time address.
    fn range(&self, address: u64, len: u64) -> Result<&'a [u8], LoadError> {
        let bytes = if len == 0 { &[] } else { self.at(address)? };
        usize::try_from(len)
            .ok()
            .and_then(|len| bytes.get(..len))
            .ok_or_else(|| damaged(format!("its table at {address:#x} runs past its segment")))
    }

    /// The string at an offset of a string table.
    fn string(&self, table: u64, offset: u64) -> Result<String, LoadError> {
        let bytes = self.at(table.wrapping_add(offset))?;
        let mut some = bytes.iter().take(LONGEST_NAME);
        let end = some.position(|byte| *byte == 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..end]);
        Ok(text.escape_debug().to_string())
    }

    /// Sees that a word at an address in the guest is the guest's data.
    fn check_data(&self, address: u64) -> Result<(), LoadError> {
        let is_inside = |segment: &Segment| {
            let end = address.checked_add(8);
            segment.rights == Rights::WRITE && end.is_some_and(|end| end <= segment.addresses.end)
        };
        if self.segment(address).is_some_and(is_inside) {
            return Ok(());
        }
        Err(damaged(format!(
            "a relocation at {address:#x}, which is not writable data"
        )))
    }
}

/// A table of the dynamic section: its link-time address and its length in bytes.
type Table = (u64, u64);

/// What the dynamic section says; nothing, if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DynamicSection {
    needed: Option<u64>,
    strings: u64,
    symbols: u64,
    rela: Table,
    jump: Table,
    relr: Table,
}

impl DynamicSection {
    /// Reads it. What it says is then not yet checked: [`Self::each_relocation`] does that.
    pub(super) fn parse(
        bytes: &[u8],
        headers: &[ProgramHeader],
        fuel: &Fuel,
    ) -> Result<Self, LoadError> {
        let mut section = Self::default();
        let Some(header) = headers.iter().find(|header| header.p_type == PT_DYNAMIC) else {
            return Ok(section);
        };
        for entry in contents(bytes, header).as_chunks::<16>().0 {
            fuel.spend(1)?;
            let (tag, value) = (word(entry, 0), word(entry, 8));
            match tag {
                dynamic::DT_NULL => break,
                dynamic::DT_NEEDED => section.needed = section.needed.or(Some(value)),
                dynamic::DT_STRTAB => section.strings = value,
                dynamic::DT_SYMTAB => section.symbols = value,
                dynamic::DT_RELA => section.rela.0 = value,
                dynamic::DT_RELASZ => section.rela.1 = value,
                dynamic::DT_JMPREL => section.jump.0 = value,
                dynamic::DT_PLTRELSZ => section.jump.1 = value,
                DT_RELR => section.relr.0 = value,
                DT_RELRSZ => section.relr.1 = value,
                _ => {}
            }
        }
        Ok(section)
    }

    /// The shared library that it asks for, if it does for one.
    pub(super) fn needed(&self, parts: &Parts<'_>) -> Result<Option<String>, LoadError> {
        let name = |name| parts.string(self.strings, name);
        self.needed.map(name).transpose()
    }

    /// Calls `place` with the address in the guest and the value of each word that is to be
    /// written before the start; all lie in writable segments. Each table entry costs a step, and
    /// each word.
    pub(super) fn each_relocation(
        &self,
        parts: &Parts<'_>,
        fuel: &Fuel,
        mut place: impl FnMut(u64, u64),
    ) -> Result<(), LoadError> {
        let mut checked = |address: u64, value: u64| {
            parts.check_data(address)?;
            place(address, value);
            Ok(())
        };
        for table in [self.rela, self.jump] {
            self.each_of_table(table, parts, fuel, &mut checked)?;
        }
        self.each_packed(parts, fuel, &mut checked)
    }

    /// Those of a table of type `DT_RELA`.
    fn each_of_table(
        &self,
        (start, len): Table,
        parts: &Parts<'_>,
        fuel: &Fuel,
        place: &mut impl FnMut(u64, u64) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        for entry in parts.range(start, len)?.as_chunks::<24>().0 {
            fuel.spend(1)?;
            let (offset, info, addend) = (word(entry, 0), word(entry, 8), word(entry, 16));
            let address = offset.wrapping_add(parts.bias);
            let (kind, symbol) = (info as u32, info >> 32);
            match kind {
                reloc::R_X86_64_NONE => {}
                reloc::R_X86_64_RELATIVE => place(address, addend.wrapping_add(parts.bias))?,
                reloc::R_X86_64_64 => {
                    place(address, self.symbol(parts, symbol)?.wrapping_add(addend))?;
                }
                reloc::R_X86_64_GLOB_DAT | reloc::R_X86_64_JUMP_SLOT => {
                    place(address, self.symbol(parts, symbol)?)?;
                }
                other => return Err(LoadError::Relocation(other, address)),
            }
        }
        Ok(())
    }

    /// Those of the table of type `DT_RELR`. An even word is an address, relocated by itself; an odd
    /// one is a bitmap of the 63 words that follow the last address. Linkers write them in
    /// ascending order, so there are no more than the data has words.
    fn each_packed(
        &self,
        parts: &Parts<'_>,
        fuel: &Fuel,
        place: &mut impl FnMut(u64, u64) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let mut next = 0_u64;
        let mut last = None;
        let (start, len) = self.relr;
        for entry in parts.range(start, len)?.as_chunks::<8>().0 {
            fuel.spend(1)?;
            let entry = u64::from_le_bytes(*entry);
            let is_address = entry & 1 == 0;
            let first = if is_address { entry } else { next };
            let mut bits = if is_address { 1 } else { entry >> 1 };
            while bits != 0 {
                fuel.spend(1)?;
                let at = first.wrapping_add(u64::from(bits.trailing_zeros()) * 8);
                bits &= bits - 1;
                if last.is_some_and(|last| at <= last) {
                    return Err(damaged(format!(
                        "its packed relocations are not in the order of their addresses at {at:#x}"
                    )));
                }
                last = Some(at);
                let value = word(parts.range(at, 8)?, 0).wrapping_add(parts.bias);
                place(at.wrapping_add(parts.bias), value)?;
            }
            next = first.wrapping_add(if is_address { 8 } else { 63 * 8 });
        }
        Ok(())
    }

    /// The value of a dynamic symbol: its address, or zero for a weak one that nothing defines.
    fn symbol(&self, parts: &Parts<'_>, symbol: u64) -> Result<u64, LoadError> {
        const SIZE: u64 = 24;
        const WEAK: u8 = 2;
        if symbol == 0 {
            return Ok(0);
        }
        let at = self.symbols.wrapping_add(symbol.wrapping_mul(SIZE));
        let entry = parts.range(at, SIZE)?;
        let defined = entry[6] != 0 || entry[7] != 0;
        if defined {
            return Ok(word(entry, 8).wrapping_add(parts.bias));
        }
        if entry[4] >> 4 == WEAK {
            return Ok(0);
        }
        let name = u64::from(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
        Err(LoadError::Undefined(parts.string(self.strings, name)?))
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}
