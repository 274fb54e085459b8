//! A guest's memory and registers as an ELF core file, for debuggers (ELF gABI, chapters 4 and 5;
//! the notes are those of Linux: `linux/elfcore.h`, `binfmt_elf.c`).

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::Path;

use wakebox_abi::layout::PAGE_SIZE;
use wakebox_vmm::memory::View;
use wakebox_vmm::x86_64::descriptors::{RING3_CODE, RING3_DATA};
use wakebox_vmm::x86_64::paging::Rights;
use wakebox_vmm::x86_64::registers::Registers;

use crate::elf::Elf;
use crate::error::{Error, Result};
use crate::loader::Image;

/// Bytes that are copied out of the guest at a time.
const PIECE: usize = 64 << 10;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Types of notes.
mod note {
    pub(super) const PRSTATUS: u32 = 1;
    pub(super) const FPREGSET: u32 = 2;
    pub(super) const PRPSINFO: u32 = 3;
    pub(super) const AUXV: u32 = 6;
    pub(super) const FILE: u32 = 0x4649_4C45;
}

/// The number that the guest has as a process, to a debugger.
const PID: u32 = 1;

/// A guest as it stopped, ready to be written as an ELF core file:
/// [`Sandbox::crash_dump`](crate::Sandbox::crash_dump).
///
/// `gdb GUEST CORE` opens it with registers, memory and backtrace; each processor that has begun is a thread,
/// and the first is the one that has ended the guest. It holds all that the guest could
/// read, secrets included; of the host it holds nothing. It keeps the guest's memory as long as it
/// exists, and shows it as it is when it is written.
#[derive(Debug)]
pub struct CrashDump {
    memory: View,
    image: Image,
    /// Of the processor that has ended the guest.
    first: Thread,
    /// Of the others.
    others: Vec<Thread>,
    signal: i32,
}

/// A processor, which a debugger takes for a thread.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its number, from 0.
    pub(crate) processor: u32,
    pub(crate) registers: Registers,
    pub(crate) floating_point: Option<[u8; 512]>,
}

impl CrashDump {
    pub(crate) fn new(
        memory: View,
        image: Image,
        first: Thread,
        others: Vec<Thread>,
        signal: i32,
    ) -> Self {
        Self {
            memory,
            image,
            first,
            others,
            signal,
        }
    }

    /// The guest's registers, on the processor that has ended it.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.first.registers
    }

    /// Writes the file, readable by its owner alone. An existing one is replaced. It is as long as
    /// the guest's memory, but pages of zeroes take no room on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Dump`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.try_write(path).map_err(|source| Error::Dump {
            path: path.into(),
            source,
        })
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        // One that was there before had rights of its own.
        if file.metadata()?.is_file() {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        self.write_to(&mut file)
    }

    /// Writes all of it into an open file that is empty, for a process that may open none by then,
    /// as in a jail. Pages of zeroes are left out, so the file has to be a regular one.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn write_to(&self, file: &mut File) -> io::Result<()> {
        let mappings = self.memory.mappings();
        let notes = self.notes();
        let program_headers = mappings.len() as u64 + 1;
        let behind = HEADER + PROGRAM_HEADER * program_headers;
        let section = section_for_count(program_headers);
        let notes_at = behind + section.len() as u64;
        let mut offset = (notes_at + notes.len() as u64).next_multiple_of(PAGE_SIZE);

        let mut head = header(program_headers);
        program_header(&mut head, PT_NOTE, 0, notes_at, 0, notes.len() as u64);
        let mut places = Vec::with_capacity(mappings.len());
        for mapping in mappings {
            let (start, len) = (mapping.start, mapping.region.len);
            program_header(
                &mut head,
                PT_LOAD,
                elf_flags(mapping.rights),
                offset,
                start,
                len,
            );
            places.push((offset, start, len));
            offset += len;
        }
        head.extend(section);
        head.extend(notes);
        file.write_all(&head)?;
        let mut piece = vec![0; PIECE];
        for (at, start, len) in places {
            self.write_memory(file, at, start, len, &mut piece)?;
        }
        // What was skipped at the end is part of the file.
        file.set_len(offset)
    }

    /// Writes what is not zero of a range of guest memory.
    fn write_memory(
        &self,
        file: &mut File,
        at: u64,
        start: u64,
        len: u64,
        piece: &mut [u8],
    ) -> io::Result<()> {
        for into in (0..len).step_by(PIECE) {
            let wanted = PIECE.min((len - into) as usize);
            let copied = self.memory.read(start + into, &mut piece[..wanted]);
            for (index, page) in piece[..copied].chunks(PAGE_SIZE as usize).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    let page_at = at + into + index as u64 * PAGE_SIZE;
                    file.seek(SeekFrom::Start(page_at))?;
                    file.write_all(page)?;
                }
            }
        }
        Ok(())
    }

    fn notes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        push_note(&mut notes, note::PRSTATUS, &self.first.status(self.signal));
        push_note(&mut notes, note::PRPSINFO, &self.process());
        push_note(&mut notes, note::AUXV, &self.auxiliary_vector());
        self.first.push_floating_point(&mut notes);
        push_note(&mut notes, note::FILE, &self.files());
        // Another thread begins with its status.
        for thread in &self.others {
            push_note(&mut notes, note::PRSTATUS, &thread.status(0));
            thread.push_floating_point(&mut notes);
        }
        notes
    }

    /// `struct elf_prpsinfo`.
    fn process(&self) -> Vec<u8> {
        let mut info = vec![0; 136];
        put(&mut info, 24, &PID.to_le_bytes());
        let path = self.image.name();
        let name = path.rsplit('/').next().unwrap_or(path).as_bytes();
        put(&mut info, 40, &name[..name.len().min(15)]);
        put(&mut info, 56, &path.as_bytes()[..path.len().min(79)]);
        info
    }

    /// What tells a debugger where a position-independent guest lies.
    fn auxiliary_vector(&self) -> Vec<u8> {
        const AT_PHDR: u64 = 3;
        const AT_PHENT: u64 = 4;
        const AT_PHNUM: u64 = 5;
        const AT_PAGESZ: u64 = 6;
        const AT_ENTRY: u64 = 9;
        let mut vector = vec![(AT_PAGESZ, PAGE_SIZE), (AT_ENTRY, self.image.entry())];
        let elf = Elf::parse(self.image.file());
        if let Some((at, count)) = elf.and_then(|elf| elf.program_headers()) {
            vector.push((AT_PHDR, at.wrapping_add(self.image.bias())));
            vector.push((AT_PHENT, PROGRAM_HEADER));
            vector.push((AT_PHNUM, count as u64));
        }
        vector.push((0, 0));
        let words = vector.iter().flat_map(|(kind, value)| [*kind, *value]);
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Which part of the guest's file is mapped where.
    fn files(&self) -> Vec<u8> {
        let segments = self.image.segments();
        let mut words = vec![segments.len() as u64, PAGE_SIZE];
        for segment in segments {
            let start = segment.addresses.start / PAGE_SIZE * PAGE_SIZE;
            let end = segment.addresses.end.next_multiple_of(PAGE_SIZE);
            words.extend([start, end, segment.file.start as u64 / PAGE_SIZE]);
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for _ in segments {
            bytes.extend(self.image.name().as_bytes());
            bytes.push(0);
        }
        bytes
    }
}

impl Thread {
    fn push_floating_point(&self, notes: &mut Vec<u8>) {
        if let Some(state) = &self.floating_point {
            push_note(notes, note::FPREGSET, state);
        }
    }

    /// `struct elf_prstatus`.
    fn status(&self, signal: i32) -> Vec<u8> {
        let mut status = vec![0; 336];
        put(&mut status, 0, &signal.to_le_bytes());
        put(&mut status, 12, &(signal as u16).to_le_bytes());
        put(&mut status, 32, &(PID + self.processor).to_le_bytes());
        let r = &self.registers;
        let (code, data) = (u64::from(RING3_CODE), u64::from(RING3_DATA));
        // `struct user_regs_struct`; there is no system call to restart (-1), and no base in `fs`
        // or `gs`.
        let registers = [
            r.r15,
            r.r14,
            r.r13,
            r.r12,
            r.rbp,
            r.rbx,
            r.r11,
            r.r10,
            r.r9,
            r.r8,
            r.rax,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            u64::MAX,
            r.rip,
            code,
            r.rflags,
            r.rsp,
            data,
            0,
            0,
            data,
            data,
            data,
            data,
        ];
        let bytes: Vec<u8> = registers
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        put(&mut status, 112, &bytes);
        put(
            &mut status,
            328,
            &u32::from(self.floating_point.is_some()).to_le_bytes(),
        );
        status
    }
}

/// What the header says when there are more program headers than its field can count.
const PN_XNUM: u16 = 0xFFFF;

const SECTION_HEADER: u16 = 64;

/// The ELF header of a core file with so many program headers, which follow it. If they are too
/// many for its field, the section header behind them has their number (ELF gABI, "ELF Header",
/// `e_phnum`).
fn header(program_headers: u64) -> Vec<u8> {
    const ET_CORE: u16 = 4;
    const EM_X86_64: u16 = 62;
    let fits = u16::try_from(program_headers).ok();
    let fits = fits.filter(|count| *count < PN_XNUM);
    let sections_at = match fits {
        Some(_) => 0,
        None => HEADER + PROGRAM_HEADER * program_headers,
    };
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [ET_CORE, EM_X86_64, 1, 0] {
        header.extend(half.to_le_bytes());
    }
    for word in [0, HEADER, sections_at] {
        header.extend(word.to_le_bytes());
    }
    header.extend(0_u32.to_le_bytes());
    for half in [
        HEADER as u16,
        PROGRAM_HEADER as u16,
        fits.unwrap_or(PN_XNUM),
        SECTION_HEADER,
        u16::from(fits.is_none()),
        0,
    ] {
        header.extend(half.to_le_bytes());
    }
    header
}

/// The section header with the number of program headers in `sh_info`, if they are so many that
/// one is needed.
fn section_for_count(program_headers: u64) -> Vec<u8> {
    const INFO: usize = 44;
    if program_headers < u64::from(PN_XNUM) {
        return Vec::new();
    }
    let mut section = vec![0; usize::from(SECTION_HEADER)];
    put(&mut section, INFO, &(program_headers as u32).to_le_bytes());
    section
}

fn program_header(bytes: &mut Vec<u8>, kind: u32, flags: u32, offset: u64, address: u64, len: u64) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    let (in_memory, align) = if kind == PT_LOAD {
        (len, PAGE_SIZE)
    } else {
        (0, 4)
    };
    for word in [offset, address, 0, len, in_memory, align] {
        bytes.extend(word.to_le_bytes());
    }
}

/// Appends a note: three words (sizes of name and description, type), then both, each padded to
/// four bytes.
fn push_note(notes: &mut Vec<u8>, kind: u32, description: &[u8]) {
    const NAME: &[u8; 5] = b"CORE\0";
    for word in [NAME.len() as u32, description.len() as u32, kind] {
        notes.extend(word.to_le_bytes());
    }
    for part in [NAME, description] {
        notes.extend(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The flags of a program header that stand for what a guest may do with pages.
fn elf_flags(rights: Rights) -> u32 {
    use goblin::elf::program_header::{PF_R, PF_W, PF_X};
    let may = |may: bool, flag| if may { flag } else { 0 };
    PF_R | may(rights.is_writable(), PF_W) | may(rights.is_executable(), PF_X)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use wakebox_vmm::memory::{GuestMemory, View};
    use wakebox_vmm::plan::{Mapping, Plan, Region, Sizes};

    /// A core file of a guest with so many ranges of memory: all show the same page.
    fn core_of(mappings: u64) -> File {
        let image = Image::from_bytes(crate::probe::program()).unwrap();
        let sizes = Sizes {
            processors: 1,
            memory: 8 << 20,
            arena: PAGE_SIZE,
            stack: PAGE_SIZE,
            in_flight: 64,
            instance: PAGE_SIZE,
            trace_records: 0,
            windows: 0,
        };
        let memory = GuestMemory::new(Plan::new(&image.pages(), &sizes).unwrap()).unwrap();
        let mapping = |index| Mapping {
            start: 0x10_0000 + index * 2 * PAGE_SIZE,
            region: Region {
                offset: 0,
                len: PAGE_SIZE,
            },
            rights: Rights::READ,
        };
        let dump = CrashDump::new(
            View::new(memory, (0..mappings).map(mapping).collect()),
            image,
            Thread {
                processor: 0,
                registers: Registers::default(),
                floating_point: None,
            },
            Vec::new(),
            0,
        );
        let mut file = tempfile::tempfile().unwrap();
        dump.write_to(&mut file).unwrap();
        file
    }

    fn number<const BYTES: usize>(file: &File, at: u64) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    #[test]
    fn more_mappings_than_a_header_can_count_are_counted_by_a_section() {
        const SECTIONS_AT: u64 = 40;
        const COUNT: u64 = 56;
        const SECTIONS: u64 = 60;
        let most = header(u64::from(PN_XNUM) - 1);
        assert_eq!(most[COUNT as usize..][..2], (PN_XNUM - 1).to_le_bytes());
        assert_eq!(most[SECTIONS_AT as usize..][..8], [0; 8]);
        // With the one for the notes, this is one more.
        let headers = u64::from(PN_XNUM);
        let core = core_of(headers - 1);
        assert_eq!(u16::from_le_bytes(number(&core, COUNT)), PN_XNUM);
        assert_eq!(u16::from_le_bytes(number(&core, SECTIONS)), 1);
        let sections_at = u64::from_le_bytes(number(&core, SECTIONS_AT));
        assert_eq!(sections_at, 64 + 56 * headers);
        let info = u32::from_le_bytes(number(&core, sections_at + 44));
        assert_eq!(u64::from(info), headers);
        // The last program header, and where its page is.
        let last = sections_at - 56;
        let [offset, address] =
            [8, 16].map(|field| u64::from_le_bytes(number(&core, last + field)));
        assert_eq!(address, 0x10_0000 + (headers - 2) * 2 * PAGE_SIZE);
        assert_eq!(offset + PAGE_SIZE, core.metadata().unwrap().len());
    }
}
