//! What the host needs of a guest's ELF file besides its segments: notes, unwind tables, debug sections,
//! symbols, build ID; and a [budget](fuel) for reading it.
//!
//! Any bytes will do: what is not there, or leads out of the file, is as if it was absent. So is what
//! goes beyond what a linker writes ([`MOST_SECTIONS`], [`MOST_HEADERS`]): parsing takes constant
//! memory, and finding a section or what lies at an address takes microseconds.

pub(crate) mod fuel;

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::Header;
use goblin::elf::program_header::{PF_X, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::section_header::{SHF_COMPRESSED, SHT_NOBITS, SectionHeader};

use self::fuel::{Fuel, OutOfFuel};
use crate::error::MOST_HEADERS;

/// Most sections of a file that are looked at. Linked programs have about forty.
pub(crate) const MOST_SECTIONS: usize = 1024;

/// Longest name of a symbol that is read, in bytes.
const LONGEST_NAME: usize = 4096;

const CTX: Ctx = Ctx {
    container: Container::Big,
    le: Endian::Little,
};

/// An ELF file, parsed as far as its tables of headers.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    header: Header,
    segments: Vec<ProgramHeader>,
    sections: Vec<SectionHeader>,
    /// Link-time addresses of what can be executed, in order.
    code: Vec<Range<u64>>,
}

/// The unwind tables of a file, at the addresses for which it was linked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EhFrameHdr<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) address: u64,
}

/// A function by the symbol table.
#[derive(Clone, Debug)]
pub(crate) struct Symbol<'a> {
    pub(crate) addresses: Range<u64>,
    /// What begins with its name, and a zero byte behind that.
    name: &'a [u8],
}

#[cfg(test)]
impl<'a> Symbol<'a> {
    /// Its name.
    pub(crate) fn name(&self) -> &'a [u8] {
        string(self.name, 0)
    }
}

impl<'a> Elf<'a> {
    /// Parses the headers, unless the file is something else.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        const HEADER: usize = goblin::elf::header::header64::SIZEOF_EHDR;
        if bytes.len() < HEADER || bytes[4..6] != [2, 1] {
            return None;
        }
        let header = goblin::elf::Elf::parse_header(bytes).ok()?;
        let fits = |offset: u64, count: usize, size: usize| {
            offset
                .checked_add((count * size) as u64)
                .is_some_and(|end| end <= bytes.len() as u64)
        };
        let count = usize::from(header.e_phnum.min(MOST_HEADERS));
        let size = usize::from(header.e_phentsize);
        let segments = if size == 56 && fits(header.e_phoff, count, size) {
            ProgramHeader::parse(bytes, header.e_phoff as usize, count, CTX).ok()?
        } else {
            Vec::new()
        };
        let count = usize::from(header.e_shnum).min(MOST_SECTIONS);
        let size = usize::from(header.e_shentsize);
        let sections = if count > 0 && size == 64 && fits(header.e_shoff, count, size) {
            SectionHeader::parse(bytes, header.e_shoff as usize, count, CTX).ok()?
        } else {
            Vec::new()
        };
        Some(Self {
            bytes,
            header,
            code: code(&segments),
            segments,
            sections,
        })
    }

    fn range(&self, offset: u64, len: u64) -> &'a [u8] {
        let end = offset.checked_add(len);
        end.and_then(|end| self.bytes.get(offset as usize..end as usize))
            .unwrap_or_default()
    }

    /// The contents of a section; empty if it is not there.
    pub(crate) fn section(&self, name: &str) -> &'a [u8] {
        let names = self
            .sections
            .get(usize::from(self.header.e_shstrndx))
            .map_or(&[][..], |names| self.range(names.sh_offset, names.sh_size));
        self.sections
            .iter()
            .filter(|section| is_called(names, section.sh_name, name))
            .find(|section| {
                section.sh_type != SHT_NOBITS && section.sh_flags & u64::from(SHF_COMPRESSED) == 0
            })
            .map_or(&[], |section| {
                self.range(section.sh_offset, section.sh_size)
            })
    }

    /// The file's bytes from a link-time address to the end of its segment.
    pub(crate) fn at(&self, address: u64) -> Option<&'a [u8]> {
        let loads = self
            .segments
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD);
        for segment in loads {
            if let Some(offset) = address.checked_sub(segment.p_vaddr)
                && offset < segment.p_filesz
            {
                return self
                    .range(segment.p_offset, segment.p_filesz)
                    .get(offset as usize..);
            }
        }
        None
    }

    /// Whether there is code at a link-time address.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        let behind = self.code.partition_point(|code| code.start <= address);
        behind > 0 && self.code[behind - 1].contains(&address)
    }

    /// The header of the unwind tables.
    pub(crate) fn eh_frame_hdr(&self) -> Option<EhFrameHdr<'a>> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.p_type == PT_GNU_EH_FRAME)?;
        Some(EhFrameHdr {
            bytes: self.range(segment.p_offset, segment.p_filesz),
            address: segment.p_vaddr,
        })
    }

    /// The link-time address of the program headers in memory, and how many there are.
    pub(crate) fn program_headers(&self) -> Option<(u64, usize)> {
        let at = self.header.e_phoff;
        let segment = self.segments.iter().find(|segment| {
            segment.p_type == PT_LOAD
                && at
                    .checked_sub(segment.p_offset)
                    .is_some_and(|into| into < segment.p_filesz)
        })?;
        Some((
            segment.p_vaddr.wrapping_add(at - segment.p_offset),
            self.segments.len(),
        ))
    }

    /// What the linker computed over the contents, to find the debug information of a stripped
    /// file by.
    pub(crate) fn build_id(&self) -> Option<&'a [u8]> {
        const NT_GNU_BUILD_ID: u32 = 3;
        let fuel = Fuel::for_file(self.bytes.len());
        let from_segments = self
            .segments
            .iter()
            .filter(|segment| segment.p_type == PT_NOTE)
            .map(|segment| self.range(segment.p_offset, segment.p_filesz));
        // In a file of debug information alone, segments have no contents.
        from_segments
            .chain([self.section(".note.gnu.build-id")])
            .find_map(|notes| find_note(notes, b"GNU\0", NT_GNU_BUILD_ID, &fuel).ok()?)
    }

    /// Whether it has names of functions or lines.
    pub(crate) fn has_symbols(&self) -> bool {
        !self.section(".debug_info").is_empty() || !self.section(".symtab").is_empty()
    }

    /// Functions by the symbol table, in no order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        const FUNCTION: u8 = 2;
        let names = self.section(".strtab");
        let entries = self.section(".symtab").as_chunks::<24>().0.iter();
        entries
            .filter(|entry| entry[4] & 0xF == FUNCTION)
            .filter_map(move |entry| {
                let word = |at: usize| {
                    let bytes = entry
                        .get(at..at + 8)
                        .and_then(|bytes| bytes.try_into().ok());
                    bytes.map_or(0, u64::from_le_bytes)
                };
                let (name, start, size) = (word(0) as u32 as usize, word(8), word(16));
                Some(Symbol {
                    addresses: start..start.checked_add(size)?,
                    name: names.get(name..)?,
                })
            })
    }

    /// The names of the functions at these link-time addresses, which are in order, by the symbol
    /// table. It is read once: a symbol costs a step, and another for each address in it.
    pub(crate) fn names_at(&self, addresses: &[u64], fuel: &Fuel) -> Vec<Option<&'a [u8]>> {
        let mut found: Vec<Option<Symbol<'a>>> = vec![None; addresses.len()];
        // Symbols of hand-written code often have no size: they end where the next one begins.
        let mut open: Vec<Option<Symbol<'a>>> = vec![None; addresses.len()];
        let later = |old: &Option<Symbol<'_>>, new: &Symbol<'_>| {
            old.as_ref()
                .is_none_or(|old| old.addresses.start <= new.addresses.start)
        };
        for symbol in self.functions() {
            let first = addresses.partition_point(|at| *at < symbol.addresses.start);
            let end = addresses.partition_point(|at| *at < symbol.addresses.end);
            if fuel.spend(1 + end.saturating_sub(first) as u64).is_err() {
                break;
            }
            for place in found.get_mut(first..end).unwrap_or_default() {
                if later(place, &symbol) {
                    *place = Some(symbol.clone());
                }
            }
            if let Some(place) = open.get_mut(first)
                && later(place, &symbol)
            {
                *place = Some(symbol);
            }
        }
        // The last symbol that begins before an address also does so before all that follow.
        for index in 1..open.len() {
            if open[index].is_none() {
                open[index] = open[index - 1].clone();
            }
        }
        let has_no_end = |symbol: &Symbol<'_>| symbol.addresses.is_empty();
        let both = found.into_iter().zip(open);
        both.map(|(found, open)| open.filter(has_no_end).or(found))
            .map(|symbol| Some(string(symbol?.name, 0)).filter(|name| !name.is_empty()))
            .collect()
    }
}

/// What can be executed of these segments, in order and without overlaps.
fn code(segments: &[ProgramHeader]) -> Vec<Range<u64>> {
    let mut code: Vec<Range<u64>> = segments
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD && segment.p_flags & PF_X != 0)
        .map(|segment| segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_memsz))
        .collect();
    code.sort_by_key(|range| range.start);
    code.dedup_by(|next, last| {
        let overlaps = next.start <= last.end;
        if overlaps {
            last.end = last.end.max(next.end);
        }
        overlaps
    });
    code
}

/// Whether the string at an offset of a string table is this one.
fn is_called(table: &[u8], offset: usize, name: &str) -> bool {
    table
        .get(offset..)
        .and_then(|tail| tail.strip_prefix(name.as_bytes()))
        .is_some_and(|rest| rest.first() == Some(&0))
}

/// The string at an offset of a string table, without its end; empty if it has none soon.
fn string(table: &[u8], offset: usize) -> &[u8] {
    let tail = table.get(offset..).unwrap_or_default();
    let mut some = tail.iter().take(LONGEST_NAME);
    let end = some.position(|byte| *byte == 0).unwrap_or(0);
    &tail[..end]
}

/// The description of the first note of that name and type. Each note costs a step.
pub(crate) fn find_note<'a>(
    mut notes: &'a [u8],
    name: &[u8],
    kind: u32,
    fuel: &Fuel,
) -> Result<Option<&'a [u8]>, OutOfFuel> {
    // Three words (sizes of name and description, type), then both, each padded to four bytes.
    while let Some((head, tail)) = notes.split_first_chunk::<12>() {
        fuel.spend(1)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (name_len, desc_len) = (word(0) as usize, word(4) as usize);
        let name_end = name_len.next_multiple_of(4);
        if tail.get(..name_len) == Some(name) && word(8) == kind {
            return Ok(tail.get(name_end..name_end + desc_len));
        }
        let Some(behind) = tail.get(name_end + desc_len.next_multiple_of(4)..) else {
            break;
        };
        notes = behind;
    }
    Ok(None)
}
