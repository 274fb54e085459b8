//! Guests' files that no compiler would write: small to describe, and as much work as a format
//! allows.
//!
//! A file is a whole guest: its code stops at once (`ud2`), so that whoever runs it wants to know
//! where it stood. Around that, [`File`] has what a test puts there: debug information
//! ([`struct@Debug`]), relocations, segments, notes, sections.

mod cases;
mod random;

use wakebox_abi::{ABI_VERSION, note};

pub use self::cases::{CASES, Case, End};
pub use self::random::any;

/// Where the code lies.
pub const CODE: u64 = 0x40_0000;
/// Bytes of the code.
pub const CODE_LEN: u64 = 0x1000;
/// Where data lies behind so many empty segments; it begins with what is at [`File::data`].
const DATA: u64 = CODE + 0x10_0000;

/// An ELF file with the strange parts that a test wants.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Segments of one byte, which is not in the file.
    pub empty_segments: usize,
    /// How many program headers name the notes.
    pub note_headers: usize,
    /// Notes before the guest's own.
    pub notes: Vec<u8>,
    /// Writable data.
    pub data: Vec<u8>,
    /// Packed relocations, behind the data.
    pub packed: Vec<u64>,
    /// Relocations of data: offset, type and symbol, addend.
    pub relocations: Vec<[u64; 3]>,
    /// Sections: name, flags, contents.
    pub sections: Vec<(String, u64, Vec<u8>)>,
}

/// Flag of a compressed section.
pub const COMPRESSED: u64 = 0x800;

impl File {
    /// A guest with nothing strange.
    #[must_use]
    pub fn new() -> Self {
        Self {
            note_headers: 1,
            data: vec![0; 4096],
            ..Self::default()
        }
    }

    /// One with this debug information.
    #[must_use]
    pub fn with(debug: Debug) -> Self {
        let sections = [
            (".debug_info", debug.info),
            (".debug_abbrev", debug.abbrev),
            (".debug_line", debug.line),
            (".debug_ranges", debug.ranges),
        ];
        let named = sections.map(|(name, bytes)| (name.to_owned(), 0, bytes));
        Self {
            sections: named.into(),
            ..Self::new()
        }
    }

    /// The address of the data.
    #[must_use]
    pub fn data_at(&self) -> u64 {
        DATA + self.empty_segments as u64 * 0x2000
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.empty_segments + self.note_headers + 3;
        let code_at = (64 + 56 * count).next_multiple_of(4096);
        let mut code = vec![0x0F, 0x0B];
        code.resize(CODE_LEN as usize, 0x90);
        let mut notes = self.notes.clone();
        notes.extend(guest_note());
        let notes_at = code_at + code.len();
        let data_at = (notes_at + notes.len()).next_multiple_of(4096);
        let (data, dynamic, dynamic_len) = self.data();

        let mut file = header(count);
        let mut segment = |kind: u32, flags: u32, offset: usize, address, len: usize, memory| {
            file.extend(kind.to_le_bytes());
            file.extend(flags.to_le_bytes());
            for word in [offset as u64, address, address, len as u64, memory, 4096] {
                file.extend(word.to_le_bytes());
            }
        };
        segment(1, 5, code_at, CODE, code.len(), CODE_LEN);
        for _ in 0..self.note_headers {
            segment(4, 4, notes_at, 0, notes.len(), notes.len() as u64);
        }
        for index in 0..self.empty_segments as u64 {
            segment(1, 4, 0, DATA + index * 0x2000, 0, 1);
        }
        let address = self.data_at();
        segment(1, 6, data_at, address, data.len(), data.len() as u64);
        segment(
            2,
            6,
            data_at + dynamic,
            address + dynamic as u64,
            dynamic_len,
            dynamic_len as u64,
        );
        for (at, part) in [(code_at, &code), (notes_at, &notes), (data_at, &data)] {
            file.resize(at, 0);
            file.extend(part);
        }
        self.add_sections(&mut file);
        file
    }

    /// Data, relocations and dynamic section, and where the latter is and how long.
    fn data(&self) -> (Vec<u8>, usize, usize) {
        let mut data = self.data.clone();
        data.resize(data.len().next_multiple_of(8), 0);
        let at = |data: &Vec<u8>| self.data_at() + data.len() as u64;
        let packed_at = at(&data);
        data.extend(self.packed.iter().flat_map(|word| word.to_le_bytes()));
        let relocations_at = at(&data);
        let words = self.relocations.as_flattened();
        data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let dynamic = data.len();
        let entries = [
            [36, packed_at],
            [35, self.packed.len() as u64 * 8],
            [7, relocations_at],
            [8, self.relocations.len() as u64 * 24],
            [0, 0],
        ];
        let words = entries.as_flattened();
        data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        (data, dynamic, entries.len() * 16)
    }

    /// Appends the sections and their headers, and names them in the file's header.
    fn add_sections(&self, file: &mut Vec<u8>) {
        if self.sections.is_empty() {
            return;
        }
        let mut names = vec![0];
        let mut headers = vec![0; 64];
        let mut section = |file: &mut Vec<u8>, name: usize, flags: u64, bytes: &[u8]| {
            let (offset, kind) = (file.len() as u64, 1_u32);
            file.extend(bytes);
            headers.extend((name as u32).to_le_bytes());
            headers.extend(kind.to_le_bytes());
            for word in [flags, 0, offset, bytes.len() as u64, 0, 1, 0] {
                headers.extend(word.to_le_bytes());
            }
        };
        for (name, flags, bytes) in &self.sections {
            section(file, names.len(), *flags, bytes);
            names.extend(name.as_bytes());
            names.push(0);
        }
        section(file, 0, 0, &names);
        let at = (file.len() as u64).to_le_bytes();
        let count = (self.sections.len() + 2) as u16;
        file.extend(headers);
        file[40..48].copy_from_slice(&at);
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&count.to_le_bytes());
        file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    }
}

/// The ELF header of a guest with so many program headers.
fn header(program_headers: usize) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend(2_u16.to_le_bytes());
    header.extend(62_u16.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    for word in [CODE, 64, 0] {
        header.extend(word.to_le_bytes());
    }
    header.extend([0; 4]);
    for half in [64, 56, program_headers as u16, 0, 0, 0] {
        header.extend(half.to_le_bytes());
    }
    header
}

/// A note: the sizes of name and description, type, then both, each padded to four bytes.
#[must_use]
pub fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, description.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, description] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn guest_note() -> Vec<u8> {
    let mut description = ABI_VERSION.to_le_bytes().to_vec();
    description.extend(1_u32.to_le_bytes());
    description.resize(note::DESC_SIZE, 0);
    note(&note::NAME, note::TYPE, &description)
}

/// Debug information (DWARF 4).
#[derive(Clone, Debug, Default)]
pub struct Debug {
    /// `.debug_info`.
    pub info: Vec<u8>,
    /// `.debug_abbrev`.
    pub abbrev: Vec<u8>,
    /// `.debug_line`.
    pub line: Vec<u8>,
    /// `.debug_ranges`.
    pub ranges: Vec<u8>,
}

/// Abbreviations that [`Debug::new`] has: an entry without and one with children, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entry {
    /// A unit of [`CODE`] with a line program.
    Unit = 1,
    /// A function of [`CODE`] with a name.
    Function,
    /// A function that is inlined, of [`CODE`], with the entry that has its name.
    Inlined,
    /// A function that is inlined, and nothing else.
    BareInlined,
    /// A block.
    Block,
    /// A namespace.
    Namespace,
    /// A function, and nothing else.
    BareFunction,
    /// A function with the entry that has its name.
    Reference,
    /// A unit with a list of ranges.
    UnitOfRanges,
    /// A variable with a block of any length.
    Variable,
}

impl Entry {
    /// All that can stand in a unit.
    pub const INSIDE: [Self; 8] = [
        Self::Function,
        Self::Inlined,
        Self::BareInlined,
        Self::Block,
        Self::Namespace,
        Self::BareFunction,
        Self::Reference,
        Self::Variable,
    ];
}

/// Tags, attributes and forms (DWARF 4, 7.5).
mod dwarf {
    pub(super) const ADDR: u16 = 0x01;
    pub(super) const DATA1: u16 = 0x0B;
    pub(super) const DATA8: u16 = 0x07;
    pub(super) const STRING: u16 = 0x08;
    pub(super) const REF4: u16 = 0x13;
    pub(super) const SEC_OFFSET: u16 = 0x17;
    pub(super) const EXPRLOC: u16 = 0x18;
    pub(super) const FLAG_PRESENT: u16 = 0x19;
    pub(super) const LOCATION: u16 = 0x02;
    pub(super) const NAME: u16 = 0x03;
    pub(super) const STMT_LIST: u16 = 0x10;
    pub(super) const LOW_PC: u16 = 0x11;
    pub(super) const HIGH_PC: u16 = 0x12;
    pub(super) const ABSTRACT_ORIGIN: u16 = 0x31;
    pub(super) const EXTERNAL: u16 = 0x3F;
    pub(super) const RANGES: u16 = 0x55;
    pub(super) const CALL_LINE: u16 = 0x59;
}

impl Debug {
    /// Abbreviations, and nothing that uses them.
    #[must_use]
    pub fn new() -> Self {
        use dwarf as d;
        let code = [(d::LOW_PC, d::ADDR), (d::HIGH_PC, d::DATA8)];
        let origin = (d::ABSTRACT_ORIGIN, d::REF4);
        let unit = [&code[..], &[(d::STMT_LIST, d::SEC_OFFSET)]].concat();
        let function = [&code[..], &[(d::NAME, d::STRING)]].concat();
        let inlined = [&code[..], &[(d::CALL_LINE, d::DATA1), origin]].concat();
        let kinds: [(u16, &[(u16, u16)]); 10] = [
            (0x11, &unit),
            (0x2E, &function),
            (0x1D, &inlined),
            (0x1D, &[]),
            (0x0B, &[]),
            (0x39, &[]),
            (0x2E, &[]),
            (0x2E, &[code[0], code[1], origin]),
            (0x11, &[(d::RANGES, d::SEC_OFFSET)]),
            (0x34, &[(d::LOCATION, d::EXPRLOC)]),
        ];
        let mut debug = Self::default();
        for (index, (tag, attributes)) in kinds.into_iter().enumerate() {
            let number = 2 * index as u64;
            debug.abbreviation(number + 1, tag, false, attributes);
            debug.abbreviation(number + 2, tag, true, attributes);
        }
        debug
    }

    /// Adds an abbreviation; a zero byte ends the table.
    pub fn abbreviation(
        &mut self,
        number: u64,
        tag: u16,
        has_children: bool,
        attributes: &[(u16, u16)],
    ) {
        leb(&mut self.abbrev, number);
        leb(&mut self.abbrev, tag.into());
        self.abbrev.push(has_children.into());
        for (name, form) in attributes {
            leb(&mut self.abbrev, (*name).into());
            leb(&mut self.abbrev, (*form).into());
        }
        self.abbrev.extend([0, 0]);
    }

    /// Adds an entry; what it refers to is at this offset of its unit.
    pub fn entry(&mut self, entry: Entry, has_children: bool, reference: u32) {
        leb(
            &mut self.info,
            2 * entry as u64 - 1 + u64::from(has_children),
        );
        match entry {
            Entry::Unit => {
                self.code();
                self.info.extend([0; 4]);
            }
            Entry::Function => {
                self.code();
                self.info.extend(b"here\0");
            }
            Entry::Inlined => {
                self.code();
                self.info.push(7);
                self.info.extend(reference.to_le_bytes());
            }
            Entry::Reference => {
                self.code();
                self.info.extend(reference.to_le_bytes());
            }
            Entry::UnitOfRanges => self.info.extend([0; 4]),
            Entry::Variable => leb(&mut self.info, reference.into()),
            Entry::BareInlined | Entry::Block | Entry::Namespace | Entry::BareFunction => {}
        }
    }

    fn code(&mut self) {
        self.info.extend(CODE.to_le_bytes());
        self.info.extend(CODE_LEN.to_le_bytes());
    }

    /// Ends the entries of so many parents.
    pub fn up(&mut self, parents: usize) {
        self.info.resize(self.info.len() + parents, 0);
    }

    /// Adds a unit with these entries.
    pub fn unit(&mut self, entries: impl FnOnce(&mut Self)) {
        let at = self.info.len();
        self.info.extend([0; 4]);
        self.info.extend(4_u16.to_le_bytes());
        self.info.extend([0, 0, 0, 0, 8]);
        entries(self);
        let len = (self.info.len() - at - 4) as u32;
        self.info[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// A unit with one function, in which so many entries stand in each other.
    #[must_use]
    pub fn nested(entry: Entry, depth: usize) -> Self {
        let mut debug = Self::new();
        debug.unit(|debug| {
            debug.entry(Entry::Unit, true, 0);
            debug.entry(Entry::Function, true, 0);
            for _ in 0..depth {
                debug.entry(entry, true, 12);
            }
            debug.up(depth + 2);
        });
        debug.line_program(&[b"a.rs"], &[]);
        debug
    }

    /// Adds a line program with these files, and operations behind one that goes to [`CODE`].
    pub fn line_program(&mut self, files: &[&[u8]], operations: &[u8]) {
        let mut tables = vec![1, 1, 0xFB, 14, 13];
        tables.extend([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0]);
        for file in files {
            tables.extend(*file);
            tables.extend([0, 0, 0, 0]);
        }
        tables.push(0);
        let mut header = vec![1];
        header.append(&mut tables);
        let mut program = vec![0, 9, 2];
        program.extend(CODE.to_le_bytes());
        program.extend(operations);
        let len = 2 + 4 + header.len() + program.len();
        self.line.extend((len as u32).to_le_bytes());
        self.line.extend(4_u16.to_le_bytes());
        self.line.extend((header.len() as u32).to_le_bytes());
        self.line.extend(header);
        self.line.extend(program);
    }
}

fn leb(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
