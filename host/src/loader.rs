//! From an ELF file to pages with rights: what is a guest, and what is refused.
//!
//! An image is a static ELF64 for x86-64, fixed (`ET_EXEC`) or position-independent
//! (`ET_DYN`), that carries the Wakebox note. Its segments are mapped with exactly the
//! rights that their headers ask for, never writable and executable at once; a range that
//! is to be read-only after relocation (`PT_GNU_RELRO`) is so from the start, because the
//! host applies the relocations before the guest runs. The interpreter that a
//! linker puts into a position-independent executable is ignored.
//!
//! The file is somebody else's. Reading it takes host memory of its own length and little besides
//! ([`MOST_HEADERS`]; no list of its relocations is made), and at most a step for every eight of its
//! bytes ([`Fuel::for_file`]): each note, entry of the dynamic section or of a relocation table, and
//! each word to relocate costs one. Loading it takes that once more, and the copy of its segments.
//!
//! (ELF gABI, chapters 4 and 5; System V ABI, AMD64 supplement, 4.4.)

mod headers;
mod mapped;
mod relocations;

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use goblin::elf::header;
use wakebox_abi::boot::Range as VirtualRange;
use wakebox_abi::layout::{IMAGE_MAX, IMAGE_PIE_BASE, PAGE_SIZE};
use wakebox_abi::note;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::Pages;
use wakebox_vmm::x86_64::paging::Rights;

use self::headers::{
    check_kinds, damaged, parse_header, parse_note, parse_program_headers, parse_read_only,
    parse_segments,
};
use self::mapped::Mapped;
use self::relocations::{DynamicSection, Parts};
use crate::elf::fuel::Fuel;
use crate::error::{Error, LoadError, Result};
use crate::interned::interned;
use crate::units;

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
    bytes: Arc<Vec<u8>>,
    /// What is mapped of the file, and not in `bytes`.
    mapped: Option<Mapped>,
    name: Arc<str>,
    segments: Arc<[Segment]>,
    read_only_after: Range<u64>,
    dynamic: DynamicSection,
    relocations: usize,
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

impl Image {
    /// Reads and checks a guest file.
    ///
    /// It blocks the thread while it reads: a millisecond for a guest as `cargo build` makes one,
    /// at most about as long as `cp` takes, and a third of a second to check what is worst. In async
    /// code with files that you do not know, call it on a thread for such, as
    /// `tokio::task::spawn_blocking` has, and give the image to any number of sandboxes.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] or [`Error::Load`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        Self::checked(&path.display().to_string(), bytes)
    }

    /// Checks a guest in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::checked("guest", bytes.into())
    }

    fn checked(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let fuel = Fuel::for_file(bytes.len());
        checked(name, Self::parse(name, bytes, &fuel))
    }

    /// Checks a guest with so much fuel.
    pub(crate) fn parse(
        name: &str,
        bytes: Vec<u8>,
        fuel: &Fuel,
    ) -> std::result::Result<Self, LoadError> {
        parse(name, bytes, fuel, interned)
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
    pub(crate) fn file(&self) -> &Arc<Vec<u8>> {
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

    /// How many processors it asks for.
    pub(crate) fn processors(&self) -> u32 {
        self.note.processors
    }

    /// How many windows it asks for.
    pub(crate) fn windows(&self) -> u32 {
        self.note.windows
    }

    /// The interface version of its note.
    #[must_use]
    pub fn abi_version(&self) -> u32 {
        self.note.version
    }

    /// The relocations that will be applied: how many.
    #[must_use]
    pub fn relocations(&self) -> usize {
        self.relocations
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

    /// Its pages, disjoint.
    pub(crate) fn pages(&self) -> Vec<Pages> {
        let mut pages = Vec::with_capacity(self.segments.len() + 1);
        // Only whole pages can be made read-only; the linker rounds the range to them.
        let relro = self.read_only_after.start / PAGE_SIZE * PAGE_SIZE
            ..self.read_only_after.end / PAGE_SIZE * PAGE_SIZE;
        let mut push = |range: Range<u64>, rights: Rights| {
            if range.start < range.end {
                pages.push(Pages {
                    start: range.start,
                    len: range.end - range.start,
                    rights,
                });
            }
        };
        for segment in &*self.segments {
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
    ///
    /// # Errors
    ///
    /// [`Error::Load`], if the segments do not go where they were checked to go.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<()> {
        let at = |address| memory.plan().image_offset(address);
        match self.mapped {
            Some(_) => self.copy_rest(memory),
            None => memory
                .place(&self.bytes, self.bias())
                .map_err(|error| Error::Load {
                    name: self.name.to_string(),
                    source: damaged(error),
                })?,
        }
        let parts = Parts {
            bytes: &self.bytes,
            segments: &self.segments,
            bias: self.bias(),
        };
        let fuel = Fuel::for_file(self.bytes.len());
        let relocate = |place, value: u64| memory.write(at(place), &value.to_le_bytes());
        let done = self.dynamic.each_relocation(&parts, &fuel, relocate);
        debug_assert!(done.is_ok(), "the same bytes were checked: {done:?}");
        Ok(())
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
    let len = regular(&metadata).map_err(read)?;
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(len as usize + 1).is_err() {
        return Err(read(std::io::ErrorKind::OutOfMemory.into()));
    }
    // No more than it had: somebody may be writing to it.
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(len).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

/// The length of a file, if it is one that has an end soon.
fn regular(metadata: &std::fs::Metadata) -> std::io::Result<u64> {
    if metadata.is_dir() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::IsADirectory,
            "it is a directory; give the binary that `cargo build` made",
        ));
    }
    if !metadata.is_file() {
        // A device or a pipe may have no end.
        return Err(std::io::Error::other(
            "it is not a regular file; give the binary that `cargo build` made",
        ));
    }
    // A guest lies below `IMAGE_MAX`; debug sections may make the file a good deal larger.
    let len = metadata.len();
    if len > 4 * IMAGE_MAX {
        return Err(std::io::Error::other(format!(
            "it is {} long, which no guest is",
            units::bytes(len)
        )));
    }
    Ok(len)
}

fn checked(name: &str, parsed: std::result::Result<Image, LoadError>) -> Result<Image> {
    parsed.map_err(|source| Error::Load {
        name: name.into(),
        source,
    })
}

/// `hold` takes the bytes of what is a guest.
fn parse(
    name: &str,
    bytes: Vec<u8>,
    fuel: &Fuel,
    hold: fn(Vec<u8>) -> Arc<Vec<u8>>,
) -> Result<Image, LoadError> {
    let header = parse_header(&bytes)?;
    let headers = parse_program_headers(&bytes, &header)?;
    let note = parse_note(&bytes, &headers, fuel)?;
    check_kinds(&headers)?;
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
    let read_only_after = parse_read_only(&headers, bias);
    let dynamic = DynamicSection::parse(&bytes, &headers, fuel)?;
    let parts = Parts {
        bytes: &bytes,
        segments: &segments,
        bias,
    };
    if let Some(name) = dynamic.needed(&parts)? {
        return Err(LoadError::SharedLibrary(name));
    }
    let mut relocations = 0;
    dynamic.each_relocation(&parts, fuel, |_, _| relocations += 1)?;
    Ok(Image {
        bytes: hold(bytes),
        mapped: None,
        name: name.into(),
        segments: segments.into(),
        read_only_after,
        dynamic,
        relocations,
        note,
        entry,
        position_independent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MOST_HEADERS;
    use crate::probe;

    /// Offsets of fields in the file of the smallest guest.
    const TYPE: usize = 16;
    const MACHINE: usize = 18;
    const ENTRY: usize = 24;
    const LOAD: usize = 64;
    const FLAGS: usize = LOAD + 4;
    const HEADERS: usize = 32;
    const ADDRESS: usize = LOAD + 16;
    const PHYSICAL: usize = LOAD + 24;
    const FILE_SIZE: usize = LOAD + 32;
    const MEMORY_SIZE: usize = LOAD + 40;
    const NOTE: usize = LOAD + 56;

    fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> LoadError {
        let mut file = probe::program();
        change(&mut file);
        parse("test", file, &Fuel::new(1000), Arc::new)
            .map(drop)
            .expect_err("this is no guest")
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
        for (at, value) in [(MEMORY_SIZE, 1), (PHYSICAL, 0x1000), (HEADERS, 8)] {
            assert!(matches!(
                refusal(|file| put(file, at, value, 8)),
                E::Damaged(_)
            ));
        }
        assert!(matches!(
            refusal(|file| put(file, FILE_SIZE, u64::MAX, 8)),
            E::Truncated { .. }
        ));
    }

    #[test]
    fn more_program_headers_than_linkers_write_are_refused_before_they_are_read() {
        const COUNT: usize = 56;
        for count in [MOST_HEADERS + 1, u16::MAX] {
            assert_eq!(
                refusal(|file| put(file, COUNT, count.into(), 2)),
                LoadError::TooManyHeaders(count)
            );
        }
        assert!(matches!(
            refusal(|file| put(file, COUNT, MOST_HEADERS.into(), 2)),
            LoadError::Truncated { .. }
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
                let _ = parse("test", changed, &Fuel::new(1000), Arc::new);
            }
        }
    }
}
