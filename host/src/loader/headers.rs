//! What the headers of a guest's file say: which machine it is for, its segments, its note.
//!
//! (ELF gABI, chapters 4 and 5.)

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{self, Header};
use goblin::elf::program_header::{self as ph, ProgramHeader};
use wakebox_abi::boot::Features;
use wakebox_abi::layout::{IMAGE_MAX, IMAGE_MIN, PAGE_SIZE};
use wakebox_abi::{ABI_OLDEST, ABI_VERSION, layout, note};
use wakebox_vmm::x86_64::paging::Rights;

use super::Segment;
use crate::elf::find_note;
use crate::elf::fuel::Fuel;
use crate::error::{LoadError, MOST_HEADERS};

const CTX: Ctx = Ctx {
    container: Container::Big,
    le: Endian::Little,
};

pub(super) fn damaged(error: impl std::fmt::Display) -> LoadError {
    LoadError::Damaged(error.to_string())
}

pub(super) fn parse_header(bytes: &[u8]) -> Result<Header, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if !bytes.starts_with(header::ELFMAG) {
        return Err(LoadError::NotElf);
    }
    let present = bytes.len() as u64;
    let Some(ident) = bytes.first_chunk::<{ header::header64::SIZEOF_EHDR }>() else {
        return Err(LoadError::Truncated {
            needed: header::header64::SIZEOF_EHDR as u64,
            present,
        });
    };
    if ident[header::EI_CLASS] != header::ELFCLASS64
        || ident[header::EI_DATA] != header::ELFDATA2LSB
    {
        return Err(LoadError::WrongClass);
    }
    let header = goblin::elf::Elf::parse_header(bytes).map_err(damaged)?;
    if header.e_machine != header::EM_X86_64 {
        return Err(LoadError::WrongMachine(header::machine_to_str(
            header.e_machine,
        )));
    }
    if header.e_phoff < header::header64::SIZEOF_EHDR as u64 {
        return Err(damaged("its program headers begin in its header"));
    }
    if !matches!(header.e_type, header::ET_EXEC | header::ET_DYN) {
        return Err(LoadError::WrongType(header::et_to_str(header.e_type)));
    }
    Ok(header)
}

pub(super) fn parse_program_headers(
    bytes: &[u8],
    header: &Header,
) -> Result<Vec<ProgramHeader>, LoadError> {
    let size = ph::program_header64::SIZEOF_PHDR as u64;
    if u64::from(header.e_phentsize) != size || header.e_phnum == 0 {
        return Err(LoadError::NoSegments);
    }
    if header.e_phnum > MOST_HEADERS {
        return Err(LoadError::TooManyHeaders(header.e_phnum));
    }
    let present = bytes.len() as u64;
    let needed = header
        .e_phoff
        .saturating_add(size * u64::from(header.e_phnum));
    if needed > present {
        return Err(LoadError::Truncated { needed, present });
    }
    let headers = ProgramHeader::parse(bytes, header.e_phoff as usize, header.e_phnum.into(), CTX)
        .map_err(damaged)?;
    for header in &headers {
        let needed = header.p_offset.saturating_add(header.p_filesz);
        if header.p_type != ph::PT_NULL && needed > present {
            return Err(LoadError::Truncated { needed, present });
        }
    }
    Ok(headers)
}

/// The bytes of the file that a program header names; they were seen to be there.
pub(super) fn contents<'a>(bytes: &'a [u8], header: &ProgramHeader) -> &'a [u8] {
    let start = header.p_offset as usize;
    bytes
        .get(start..start + header.p_filesz as usize)
        .unwrap_or_default()
}

/// The note of a guest that this host can run.
pub(super) fn parse_note(
    bytes: &[u8],
    headers: &[ProgramHeader],
    fuel: &Fuel,
) -> Result<note::Description, LoadError> {
    let note = find_description(bytes, headers, fuel)?.ok_or(LoadError::NoNote)?;
    if !(ABI_OLDEST..=ABI_VERSION).contains(&note.version) {
        return Err(LoadError::WrongVersion {
            guest: note.version,
            host: ABI_VERSION,
        });
    }
    if note.features & !Features::KNOWN != 0 {
        return Err(LoadError::MissingFeatures(note.features & !Features::KNOWN));
    }
    if !(1..=layout::PROCESSORS_MAX).contains(&note.processors) {
        return Err(LoadError::Processors(note.processors));
    }
    Ok(note)
}

fn find_description(
    bytes: &[u8],
    headers: &[ProgramHeader],
    fuel: &Fuel,
) -> Result<Option<note::Description>, LoadError> {
    for header in headers.iter().filter(|header| header.p_type == ph::PT_NOTE) {
        let notes = contents(bytes, header);
        if let Some(description) = find_note(notes, &note::NAME, note::TYPE, fuel)? {
            return note::Description::parse(description)
                .map(Some)
                .ok_or_else(|| damaged("its Wakebox note is too short"));
        }
    }
    Ok(None)
}

/// Sees that nothing is wanted that guests do not have.
pub(super) fn check_kinds(headers: &[ProgramHeader]) -> Result<(), LoadError> {
    let has = |kind: u32, matters: fn(&ProgramHeader) -> bool| {
        headers
            .iter()
            .any(|header| header.p_type == kind && matters(header))
    };
    if has(ph::PT_TLS, |header| header.p_memsz > 0) {
        return Err(LoadError::ThreadLocal);
    }
    if has(ph::PT_GNU_STACK, ProgramHeader::is_executable) {
        return Err(LoadError::ExecutableStack);
    }
    Ok(())
}

/// The addresses that are to be read-only after relocation; an empty range, if there are none.
pub(super) fn parse_read_only(headers: &[ProgramHeader], bias: u64) -> Range<u64> {
    headers
        .iter()
        .find(|header| header.p_type == ph::PT_GNU_RELRO)
        .and_then(|header| {
            let start = header.p_vaddr.checked_add(bias)?;
            Some(start..start.checked_add(header.p_memsz)?)
        })
        .unwrap_or_default()
}

pub(super) fn parse_segments(
    headers: &[ProgramHeader],
    bias: u64,
) -> Result<Vec<Segment>, LoadError> {
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == ph::PT_LOAD) {
        if header.p_filesz > header.p_memsz {
            return Err(damaged(
                "a segment has more bytes in the file than in memory",
            ));
        }
        if header.p_memsz == 0 {
            continue;
        }
        let start = header.p_vaddr.wrapping_add(bias);
        let end = start.saturating_add(header.p_memsz);
        if header.p_vaddr > IMAGE_MAX || start < IMAGE_MIN || end > IMAGE_MAX {
            return Err(LoadError::OutsideWindow { start, end });
        }
        if header.p_paddr != header.p_vaddr {
            return Err(damaged(format!(
                "the segment at {start:#x} has another physical address, {:#x}",
                header.p_paddr
            )));
        }
        let rights = match (header.is_write(), header.is_executable()) {
            (true, true) => return Err(LoadError::WritableCode(start)),
            (true, false) => Rights::WRITE,
            (false, true) => Rights::EXECUTE,
            (false, false) => Rights::READ,
        };
        let file = header.p_offset as usize..(header.p_offset + header.p_filesz) as usize;
        segments.push(Segment {
            addresses: start..end,
            file,
            letters: rights.letters(),
            rights,
        });
    }
    segments.sort_by_key(|segment| segment.addresses.start);
    for pair in segments.windows(2) {
        let (first, second) = (&pair[0].addresses, &pair[1].addresses);
        if first.end.next_multiple_of(PAGE_SIZE) > second.start / PAGE_SIZE * PAGE_SIZE {
            return Err(LoadError::Overlap(first.start, second.start));
        }
    }
    if segments.is_empty() {
        return Err(LoadError::NoSegments);
    }
    Ok(segments)
}
