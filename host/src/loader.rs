//! From an ELF file to pages with rights: what is a guest, and what is refused.
//!
//! An image is a static ELF64 for x86-64, fixed (`ET_EXEC`) or position-independent
//! (`ET_DYN`), that carries the Wakebox note. Its segments are mapped with exactly the
//! rights that their headers ask for, never writable and executable at once; a range that
//! is to be read-only after relocation (`PT_GNU_RELRO`) is so from the start, because the
//! host applies the relocations before the guest runs. The interpreter that a
//! linker puts into a position-independent executable is ignored.
//!
//! (ELF gABI, chapters 4 and 5; System V ABI, AMD64 supplement, 4.4.)

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::Header;
use goblin::elf::program_header::ProgramHeader;
use goblin::elf::{dynamic, header, program_header as ph, reloc};
use wakebox_abi::boot::{Features, Range as VirtualRange};
use wakebox_abi::layout::{IMAGE_MAX, IMAGE_MIN, IMAGE_PIE_BASE, PAGE_SIZE};
use wakebox_abi::{ABI_VERSION, note};

use crate::error::{Error, Result};
use crate::interned::interned;
use crate::units;
use crate::vm::memory::GuestMemory;
use crate::vm::paging::Rights;

/// Why a file is not a guest that can be loaded, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant is")]
pub enum LoadError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "not an ELF file: a guest is what `cargo build` makes of a crate with `#[wakebox_guest::main]`"
    )]
    NotElf,
    #[error("a 32-bit or big-endian ELF file; guests are 64-bit, little endian")]
    WrongClass,
    #[error("an ELF file for another machine ({0}); guests are for x86-64")]
    WrongMachine(&'static str),
    #[error("an ELF file that is not a program ({0}); give the binary that `cargo build` made")]
    WrongType(&'static str),
    #[error("cut off: its headers speak of {needed} bytes and there are {present}")]
    Truncated { needed: u64, present: u64 },
    #[error("damaged: {0}")]
    Damaged(String),
    #[error(
        "a program for this host, not a guest: it carries no Wakebox note (a guest is `no_std` and \
         has `#[wakebox_guest::main]`; `wakebox new NAME` writes one)"
    )]
    NoNote,
    #[error(
        "built for version {guest} of the Wakebox interface, and this host speaks version {host}: \
         use the same release of `wakebox` and `wakebox-guest`"
    )]
    WrongVersion { guest: u32, host: u32 },
    #[error("it needs features that this host does not have (bits {0:#x}): use a newer `wakebox`")]
    MissingFeatures(u64),
    #[error(
        "it needs the shared library {0}, and there is none in a guest: some dependency uses `std` \
         or `libc`; look for it with `cargo tree`, and switch its `std` feature off"
    )]
    SharedLibrary(String),
    #[error("it uses thread-local storage, which guests do not have: some dependency uses `std`")]
    ThreadLocal,
    #[error("the segment at {0:#x} is writable and executable at once: a page is one or the other")]
    WritableCode(u64),
    #[error("the segments at {0:#x} and {1:#x} overlap or share a page: link with separate pages")]
    Overlap(u64, u64),
    #[error(
        "the segment at {start:#x} to {end:#x} is outside the image window, \
         {IMAGE_MIN:#x} to {IMAGE_MAX:#x}"
    )]
    OutsideWindow { start: u64, end: u64 },
    #[error("it has no segment to load")]
    NoSegments,
    #[error("its entry point {0:#x} is not in an executable segment")]
    BadEntry(u64),
    #[error("it refers to the symbol `{0}`, which nothing defines: a guest stands alone")]
    Undefined(String),
    #[error(
        "it has a relocation of type {0} at {1:#x}, which is not one that a static guest needs"
    )]
    Relocation(u32, u64),
    #[error("it asks for executable stack: remove the flag (`-z noexecstack`)")]
    ExecutableStack,
}

/// A segment of an image.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Guest-virtual addresses, as they will be.
    pub addresses: Range<u64>,
    /// Bytes of the file.
    pub file: Range<usize>,
    /// `r--`, `rw-` or `r-x`.
    pub letters: &'static str,
    rights: Rights,
}

/// A guest, parsed and checked, ready to be loaded any number of times.
#[derive(Clone)]
pub struct Image {
    bytes: Arc<[u8]>,
    name: String,
    segments: Vec<Segment>,
    read_only_after: Range<u64>,
    relocations: Vec<(u64, u64)>,
    note: note::Description,
    entry: u64,
    position_independent: bool,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("name", &self.name)
            .field("segments", &self.segments)
            .field("entry", &format_args!("{:#x}", self.entry))
            .finish_non_exhaustive()
    }
}

const CTX: Ctx = Ctx {
    container: Container::Big,
    le: Endian::Little,
};

fn damaged(error: impl std::fmt::Display) -> LoadError {
    LoadError::Damaged(error.to_string())
}

impl Image {
    /// Reads and checks a guest file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] or [`Error::Load`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        Self::parse(&path.display().to_string(), bytes)
    }

    /// Checks a guest in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::parse("guest", bytes.into())
    }

    fn parse(name: &str, bytes: Vec<u8>) -> Result<Self> {
        parse(name, bytes).map_err(|source| Error::Load {
            name: name.into(),
            source,
        })
    }

    /// The file's name, or "guest" for bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_len(&self) -> usize {
        self.bytes.len()
    }

    /// The file.
    pub(crate) fn file(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// How far above its link-time addresses it is loaded.
    pub(crate) fn bias(&self) -> u64 {
        if self.position_independent {
            IMAGE_PIE_BASE
        } else {
            0
        }
    }

    /// The segments, in the order of their addresses.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Whether it can lie anywhere.
    #[must_use]
    pub fn is_position_independent(&self) -> bool {
        self.position_independent
    }

    /// The interface version of its note.
    #[must_use]
    pub fn abi_version(&self) -> u32 {
        self.note.version
    }

    /// The relocations that will be applied: how many.
    #[must_use]
    pub fn relocations(&self) -> usize {
        self.relocations.len()
    }

    /// The addresses that it takes, in whole pages.
    pub(crate) fn span(&self) -> VirtualRange {
        let start = self
            .segments
            .first()
            .map_or(0, |first| first.addresses.start);
        let end = self.segments.last().map_or(0, |last| last.addresses.end);
        let start = start / PAGE_SIZE * PAGE_SIZE;
        VirtualRange {
            start,
            len: end.next_multiple_of(PAGE_SIZE) - start,
        }
    }

    /// Its pages: address, length and rights, disjoint.
    pub(crate) fn pages(&self) -> Vec<(u64, u64, Rights)> {
        let mut pages = Vec::with_capacity(self.segments.len() + 1);
        // Only whole pages can be made read-only; the linker rounds the range to them.
        let relro = self.read_only_after.start / PAGE_SIZE * PAGE_SIZE
            ..self.read_only_after.end / PAGE_SIZE * PAGE_SIZE;
        let mut push = |range: Range<u64>, rights: Rights| {
            if range.start < range.end {
                pages.push((range.start, range.end - range.start, rights));
            }
        };
        for segment in &self.segments {
            let start = segment.addresses.start / PAGE_SIZE * PAGE_SIZE;
            let end = segment.addresses.end.next_multiple_of(PAGE_SIZE);
            if segment.rights == Rights::WRITE && relro.start < end && start < relro.end {
                let (from, to) = (relro.start.max(start), relro.end.min(end));
                push(start..from, Rights::WRITE);
                push(from..to, Rights::READ);
                push(to..end, Rights::WRITE);
            } else {
                push(start..end, segment.rights);
            }
        }
        pages
    }

    /// Copies the segments into the RAM that was planned for them and relocates them.
    pub(crate) fn load(&self, memory: &GuestMemory) {
        let space = memory.space();
        let at = |virt: u64| space.image.offset + (virt - space.image_start);
        for segment in &self.segments {
            memory.write(
                at(segment.addresses.start),
                &self.bytes[segment.file.clone()],
            );
        }
        for (place, value) in &self.relocations {
            memory.write(at(*place), &value.to_le_bytes());
        }
    }
}

/// Reads an ELF file, if it is one that has an end soon.
///
/// # Errors
///
/// [`Error::Read`].
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        return Err(read(std::io::Error::new(
            std::io::ErrorKind::IsADirectory,
            "it is a directory; give the binary that `cargo build` made",
        )));
    }
    if !metadata.is_file() {
        // A device or a pipe may have no end.
        return Err(read(std::io::Error::other(
            "it is not a regular file; give the binary that `cargo build` made",
        )));
    }
    // A guest lies below `IMAGE_MAX`; debug sections may make the file a good deal larger.
    if metadata.len() > 4 * IMAGE_MAX {
        return Err(read(std::io::Error::other(format!(
            "it is {} long, which no guest is",
            units::bytes(metadata.len())
        ))));
    }
    std::fs::read(path).map_err(read)
}

fn parse(name: &str, bytes: Vec<u8>) -> Result<Image, LoadError> {
    let header = parse_header(&bytes)?;
    let headers = parse_program_headers(&bytes, &header)?;
    let note = find_note(&bytes, &headers)?.ok_or(LoadError::NoNote)?;
    if note.version != ABI_VERSION {
        return Err(LoadError::WrongVersion {
            guest: note.version,
            host: ABI_VERSION,
        });
    }
    if note.features & !Features::KNOWN != 0 {
        return Err(LoadError::MissingFeatures(note.features & !Features::KNOWN));
    }
    if headers
        .iter()
        .any(|header| header.p_type == ph::PT_TLS && header.p_memsz > 0)
    {
        return Err(LoadError::ThreadLocal);
    }
    if headers
        .iter()
        .any(|header| header.p_type == ph::PT_GNU_STACK && header.is_executable())
    {
        return Err(LoadError::ExecutableStack);
    }

    let position_independent = header.e_type == header::ET_DYN;
    let bias = if position_independent {
        IMAGE_PIE_BASE
    } else {
        0
    };
    let segments = parse_segments(&headers, bias)?;
    let entry = header.e_entry.wrapping_add(bias);
    let executable = |segment: &Segment| segment.rights == Rights::EXECUTE;
    if !segments
        .iter()
        .any(|segment| executable(segment) && segment.addresses.contains(&entry))
    {
        return Err(LoadError::BadEntry(entry));
    }
    let read_only_after = headers
        .iter()
        .find(|header| header.p_type == ph::PT_GNU_RELRO)
        .and_then(|header| {
            let start = header.p_vaddr.checked_add(bias)?;
            Some(start..start.checked_add(header.p_memsz)?)
        })
        .unwrap_or_default();
    let relocations = relocations(&bytes, &headers, &segments, bias)?;
    Ok(Image {
        bytes: interned(bytes),
        name: name.into(),
        segments,
        read_only_after,
        relocations,
        note,
        entry,
        position_independent,
    })
}

fn parse_header(bytes: &[u8]) -> Result<Header, LoadError> {
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
    if !matches!(header.e_type, header::ET_EXEC | header::ET_DYN) {
        return Err(LoadError::WrongType(header::et_to_str(header.e_type)));
    }
    Ok(header)
}

fn parse_program_headers(bytes: &[u8], header: &Header) -> Result<Vec<ProgramHeader>, LoadError> {
    let size = ph::program_header64::SIZEOF_PHDR as u64;
    if u64::from(header.e_phentsize) != size || header.e_phnum == 0 {
        return Err(LoadError::NoSegments);
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
fn contents<'a>(bytes: &'a [u8], header: &ProgramHeader) -> &'a [u8] {
    let start = header.p_offset as usize;
    bytes
        .get(start..start + header.p_filesz as usize)
        .unwrap_or_default()
}

fn find_note(
    bytes: &[u8],
    headers: &[ProgramHeader],
) -> Result<Option<note::Description>, LoadError> {
    for header in headers.iter().filter(|header| header.p_type == ph::PT_NOTE) {
        let mut rest = contents(bytes, header);
        // A note: three words (sizes of name and description, type), then both, each padded to
        // four bytes.
        while let Some((head, tail)) = rest.split_first_chunk::<12>() {
            let word = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
            };
            let (name_len, desc_len, kind) = (word(0), word(4), word(8));
            let padded = |len: usize| len.checked_next_multiple_of(4);
            let ends = padded(name_len)
                .and_then(|name_end| Some((name_end, name_end.checked_add(padded(desc_len)?)?)));
            let Some((name_end, end)) = ends.filter(|(_, end)| *end <= tail.len()) else {
                break;
            };
            if tail[..name_len] == note::NAME && kind == note::TYPE as usize {
                return note::Description::parse(&tail[name_end..name_end + desc_len])
                    .map(Some)
                    .ok_or_else(|| damaged("its Wakebox note is too short"));
            }
            rest = &tail[end..];
        }
    }
    Ok(None)
}

fn parse_segments(headers: &[ProgramHeader], bias: u64) -> Result<Vec<Segment>, LoadError> {
    let mut segments = Vec::new();
    for header in headers
        .iter()
        .filter(|header| header.p_type == ph::PT_LOAD && header.p_memsz > 0)
    {
        let start = header.p_vaddr.wrapping_add(bias);
        let end = start.saturating_add(header.p_memsz);
        if header.p_vaddr > IMAGE_MAX || start < IMAGE_MIN || end > IMAGE_MAX {
            return Err(LoadError::OutsideWindow { start, end });
        }
        if header.p_filesz > header.p_memsz {
            return Err(damaged(
                "a segment has more bytes in the file than in memory",
            ));
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

/// A table of the dynamic section, found by its address.
struct Table<'a> {
    bytes: &'a [u8],
    headers: &'a [ProgramHeader],
}

impl<'a> Table<'a> {
    /// The file's bytes from a link-time address to the end of its segment.
    fn at(&self, address: u64) -> Result<&'a [u8], LoadError> {
        let loads = self
            .headers
            .iter()
            .filter(|header| header.p_type == ph::PT_LOAD);
        for header in loads {
            if let Some(offset) = address.checked_sub(header.p_vaddr)
                && offset < header.p_filesz
            {
                return Ok(&contents(self.bytes, header)[offset as usize..]);
            }
        }
        Err(damaged(format!(
            "its dynamic section names {address:#x}, where no segment is"
        )))
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
        let end = bytes
            .iter()
            .take(200)
            .position(|byte| *byte == 0)
            .unwrap_or(0);
        Ok(String::from_utf8_lossy(&bytes[..end])
            .escape_debug()
            .to_string())
    }
}

/// What the dynamic section says, if there is one.
#[derive(Default)]
struct DynamicSection {
    needed: Vec<u64>,
    strings: u64,
    symbols: u64,
    rela: (u64, u64),
    jump: (u64, u64),
    relr: (u64, u64),
}

impl DynamicSection {
    fn parse(bytes: &[u8], headers: &[ProgramHeader]) -> Self {
        let mut section = Self::default();
        let Some(header) = headers
            .iter()
            .find(|header| header.p_type == ph::PT_DYNAMIC)
        else {
            return section;
        };
        for entry in contents(bytes, header).as_chunks::<16>().0 {
            let (tag, value) = (word(entry, 0), word(entry, 8));
            match tag {
                dynamic::DT_NULL => break,
                dynamic::DT_NEEDED => section.needed.push(value),
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
        section
    }
}

/// Packed relative relocations (ELF gABI, "Relative Relocation Table").
const DT_RELR: u64 = 36;
const DT_RELRSZ: u64 = 35;

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// The words to write before the start: address and value, all inside writable segments.
fn relocations(
    bytes: &[u8],
    headers: &[ProgramHeader],
    segments: &[Segment],
    bias: u64,
) -> Result<Vec<(u64, u64)>, LoadError> {
    let section = DynamicSection::parse(bytes, headers);
    let table = Table { bytes, headers };
    if let Some(name) = section.needed.first() {
        return Err(LoadError::SharedLibrary(
            table.string(section.strings, *name)?,
        ));
    }
    let mut words = Vec::new();
    let mut place = |address: u64, value: u64| {
        let end = address.checked_add(8);
        let inside = |segment: &&Segment| {
            segment.rights == Rights::WRITE
                && segment.addresses.start <= address
                && end.is_some_and(|end| end <= segment.addresses.end)
        };
        if segments.iter().find(inside).is_none() {
            return Err(damaged(format!(
                "a relocation at {address:#x}, which is not writable data"
            )));
        }
        words.push((address, value));
        Ok(())
    };
    for (start, len) in [section.rela, section.jump] {
        for entry in table.range(start, len)?.as_chunks::<24>().0 {
            let (offset, info, addend) = (word(entry, 0), word(entry, 8), word(entry, 16));
            let address = offset.wrapping_add(bias);
            let (kind, symbol) = (info as u32, info >> 32);
            match kind {
                reloc::R_X86_64_NONE => {}
                reloc::R_X86_64_RELATIVE => place(address, addend.wrapping_add(bias))?,
                reloc::R_X86_64_64 | reloc::R_X86_64_GLOB_DAT | reloc::R_X86_64_JUMP_SLOT => {
                    let addend = if kind == reloc::R_X86_64_64 {
                        addend
                    } else {
                        0
                    };
                    let value = symbol_value(&table, &section, symbol, bias)?;
                    place(address, value.wrapping_add(addend))?;
                }
                other => return Err(LoadError::Relocation(other, address)),
            }
        }
    }
    // An even word is an address, relocated by itself; an odd one is a bitmap of the 63 words
    // that follow the last address.
    let mut next = 0_u64;
    for entry in table
        .range(section.relr.0, section.relr.1)?
        .as_chunks::<8>()
        .0
    {
        let entry = u64::from_le_bytes(*entry);
        let first = if entry & 1 == 0 { entry } else { next };
        let bits = if entry & 1 == 0 { 1 } else { entry >> 1 };
        for bit in (0..63).filter(|bit| bits >> bit & 1 != 0) {
            let at = first.wrapping_add(bit * 8);
            let value = word(table.range(at, 8)?, 0);
            place(at.wrapping_add(bias), value.wrapping_add(bias))?;
        }
        next = first.wrapping_add(if entry & 1 == 0 { 8 } else { 63 * 8 });
    }
    Ok(words)
}

/// The value of a dynamic symbol: its address, or zero for a weak one that nothing defines.
fn symbol_value(
    table: &Table<'_>,
    section: &DynamicSection,
    symbol: u64,
    bias: u64,
) -> Result<u64, LoadError> {
    const SIZE: u64 = 24;
    const WEAK: u8 = 2;
    if symbol == 0 {
        return Ok(0);
    }
    let entry = table.range(
        section.symbols.wrapping_add(symbol.wrapping_mul(SIZE)),
        SIZE,
    )?;
    let defined = entry[6] != 0 || entry[7] != 0;
    if defined {
        return Ok(word(entry, 8).wrapping_add(bias));
    }
    if entry[4] >> 4 == WEAK {
        return Ok(0);
    }
    let name = u64::from(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
    Err(LoadError::Undefined(table.string(section.strings, name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe;

    /// Offsets of fields in the file of the smallest guest.
    const TYPE: usize = 16;
    const MACHINE: usize = 18;
    const ENTRY: usize = 24;
    const LOAD: usize = 64;
    const FLAGS: usize = LOAD + 4;
    const ADDRESS: usize = LOAD + 16;
    const FILE_SIZE: usize = LOAD + 32;
    const MEMORY_SIZE: usize = LOAD + 40;
    const NOTE: usize = LOAD + 56;

    fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> LoadError {
        let mut file = probe::program();
        change(&mut file);
        parse("test", file).map(drop).expect_err("this is no guest")
    }

    fn put(file: &mut [u8], at: usize, value: u64, len: usize) {
        file[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    #[test]
    fn what_is_not_a_guest_is_refused_by_name() {
        use LoadError as E;
        assert_eq!(refusal(Vec::clear), E::Empty);
        assert_eq!(refusal(|file| file[0] = b'#'), E::NotElf);
        assert!(matches!(
            refusal(|file| file.truncate(40)),
            E::Truncated { .. }
        ));
        assert!(matches!(
            refusal(|file| file.truncate(100)),
            E::Truncated { .. }
        ));
        assert!(matches!(
            refusal(|file| {
                file.pop();
            }),
            E::Truncated { .. }
        ));
        assert_eq!(refusal(|file| file[4] = 1), E::WrongClass);
        assert!(matches!(
            refusal(|file| put(file, MACHINE, 183, 2)),
            E::WrongMachine(_)
        ));
        assert!(matches!(
            refusal(|file| put(file, TYPE, 1, 2)),
            E::WrongType(_)
        ));
        assert_eq!(refusal(|file| put(file, NOTE, 0, 4)), E::NoNote);
        assert_eq!(
            refusal(|file| put(file, FLAGS, 7, 4)),
            E::WritableCode(IMAGE_PIE_BASE)
        );
        assert!(matches!(
            refusal(|file| put(file, FLAGS, 4, 4)),
            E::BadEntry(_)
        ));
        assert!(matches!(
            refusal(|file| put(file, ENTRY, 0, 8)),
            E::BadEntry(0)
        ));
        assert!(matches!(
            refusal(|file| put(file, ADDRESS, 0, 8)),
            E::OutsideWindow { .. }
        ));
        assert!(matches!(
            refusal(|file| put(file, ADDRESS, u64::MAX, 8)),
            E::OutsideWindow { .. }
        ));
        assert!(matches!(
            refusal(|file| put(file, MEMORY_SIZE, u64::MAX, 8)),
            E::OutsideWindow { .. }
        ));
        assert!(matches!(
            refusal(|file| put(file, MEMORY_SIZE, 1, 8)),
            E::Damaged(_)
        ));
        assert!(matches!(
            refusal(|file| put(file, FILE_SIZE, u64::MAX, 8)),
            E::Truncated { .. }
        ));
    }

    #[test]
    fn no_byte_of_a_guest_can_make_the_loader_panic() {
        let file = probe::program();
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] = value;
                // Either answer will do; so will any error. What counts is that there is one.
                let _ = parse("test", changed);
            }
        }
    }
}
