//! Guests made by hand, byte by byte: against [`wakebox_abi`] alone, and as broken as a
//! test wants them.

use wakebox_abi::ABI_VERSION;
use wakebox_abi::note;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PT_GNU_STACK: u32 = 0x6474_E551;

/// Right to execute a segment.
pub const X: u32 = 1;
/// Right to write a segment.
pub const W: u32 = 2;
/// Right to read a segment.
pub const R: u32 = 4;

/// Where the code of a hand-made guest starts.
pub const CODE: u64 = 0x10_0000;
/// Where its dynamic section lies, if it has one.
const DYNAMIC: u64 = 0x50_0000;

/// A range of memory that the file asks for.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Address in the guest.
    pub address: u64,
    /// Of [`R`], [`W`] and [`X`].
    pub rights: u32,
    /// What the file has of it.
    pub bytes: Vec<u8>,
    /// Length in memory, in bytes.
    pub memory: u64,
}

impl Segment {
    /// A segment that lies in the file from end to end.
    pub fn new(address: u64, rights: u32, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            address,
            rights,
            memory: bytes.len() as u64,
            bytes,
        }
    }
}

/// An ELF file; [`Elf::guest`] is a good one, and each field can make it a bad one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names of the ELF header's fields")]
pub struct Elf {
    pub class: u8,
    pub machine: u16,
    pub kind: u16,
    pub entry: u64,
    /// The interface version in the Wakebox note, if there is to be one.
    pub version: Option<u32>,
    /// The features that the note requires.
    pub features: u64,
    pub segments: Vec<Segment>,
    /// A shared library that it says it needs.
    pub needed: Option<&'static str>,
    /// Whether it has thread-local storage.
    pub tls: bool,
    /// Whether it asks for an executable stack.
    pub executable_stack: bool,
}

impl Elf {
    /// A guest that runs this machine code.
    pub fn guest(code: &[u8]) -> Self {
        Self {
            class: 2,
            machine: 62,
            kind: 2,
            entry: CODE,
            version: Some(ABI_VERSION),
            features: 0,
            segments: vec![Segment::new(CODE, R | X, code)],
            needed: None,
            tls: false,
            executable_stack: false,
        }
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Type, rights, address, bytes in the file, bytes in memory.
        let mut parts: Vec<(u32, u32, u64, Vec<u8>, u64)> = Vec::new();
        let mut part = |kind, rights, address, bytes: Vec<u8>| {
            let memory = bytes.len() as u64;
            parts.push((kind, rights, address, bytes, memory));
        };
        if let Some(version) = self.version {
            part(PT_NOTE, R, 0, note_bytes(version, self.features));
        }
        if self.tls {
            part(PT_TLS, R, 0, vec![0; 8]);
        }
        if self.executable_stack {
            part(PT_GNU_STACK, R | W | X, 0, Vec::new());
        }
        if let Some(library) = self.needed {
            let section = dynamic_section(library);
            part(PT_DYNAMIC, R, DYNAMIC, section.clone());
            part(PT_LOAD, R, DYNAMIC, section);
        }
        parts.extend(self.segments.iter().map(|segment| {
            let Segment {
                address,
                rights,
                bytes,
                memory,
            } = segment.clone();
            (PT_LOAD, rights, address, bytes, memory)
        }));

        let mut file = self.header(parts.len());
        let mut offset = HEADER + parts.len() * PROGRAM_HEADER;
        for (kind, rights, address, bytes, memory) in &parts {
            file.extend(kind.to_le_bytes());
            file.extend(rights.to_le_bytes());
            for word in [
                offset as u64,
                *address,
                *address,
                bytes.len() as u64,
                *memory,
                8,
            ] {
                file.extend(word.to_le_bytes());
            }
            offset += bytes.len();
        }
        file.extend(parts.iter().flat_map(|(_, _, _, bytes, _)| bytes));
        file
    }

    /// The ELF header (ELF gABI, "ELF Header").
    fn header(&self, program_headers: usize) -> Vec<u8> {
        let mut header = vec![0x7F, b'E', b'L', b'F', self.class, 1, 1];
        header.resize(16, 0);
        header.extend(self.kind.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend(self.entry.to_le_bytes());
        header.extend((HEADER as u64).to_le_bytes());
        header.extend(0_u64.to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        let sizes = [HEADER, PROGRAM_HEADER, program_headers, 64, 0, 0];
        header.extend(sizes.iter().flat_map(|size| (*size as u16).to_le_bytes()));
        header
    }
}

fn note_bytes(version: u32, features: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sizes = [note::NAME.len() as u32, note::DESC_LEAST as u32, note::TYPE];
    bytes.extend(sizes.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(note::NAME);
    bytes.extend(version.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(features.to_le_bytes());
    bytes
}

/// `DT_NEEDED` with its string behind it (ELF gABI, "Dynamic Section").
fn dynamic_section(library: &str) -> Vec<u8> {
    const ENTRIES: [(u64, u64); 3] = [(5, DYNAMIC + 48), (1, 0), (0, 0)];
    let mut bytes: Vec<u8> = ENTRIES
        .iter()
        .flat_map(|(tag, value)| [*tag, *value])
        .flat_map(u64::to_le_bytes)
        .collect();
    bytes.extend(library.as_bytes());
    bytes.push(0);
    bytes
}

/// Machine code, piece by piece.
pub mod code {
    use wakebox_abi::entry::{Completion, Entry, Submission};
    use wakebox_abi::memory::Word;
    use wakebox_abi::wake::Sleep;
    use wakebox_abi::{layout, port};

    /// `out port, al`, with the port in `dx`.
    pub fn out(port: u16) -> Vec<u8> {
        let mut code = vec![0xBA];
        code.extend(u32::from(port).to_le_bytes());
        code.push(0xEE);
        code
    }

    /// `mov dword [address], value`, for an address below 2 GiB.
    pub fn store(address: u64, value: u32) -> Vec<u8> {
        let mut code = vec![0xC7, 0x04, 0x25];
        code.extend((address as u32).to_le_bytes());
        code.extend(value.to_le_bytes());
        code
    }

    /// `mov eax, [address]`, for an address below 2 GiB.
    pub fn load(address: u64) -> Vec<u8> {
        let mut code = vec![0x8B, 0x04, 0x25];
        code.extend((address as u32).to_le_bytes());
        code
    }

    /// `mov rax, address; jmp rax`.
    pub fn jump(address: u64) -> Vec<u8> {
        let mut code = vec![0x48, 0xB8];
        code.extend(address.to_le_bytes());
        code.extend([0xFF, 0xE0]);
        code
    }

    /// Writes a word of the control page.
    pub fn set(word: Word, value: u32) -> Vec<u8> {
        store(layout::CONTROL + word.offset() as u64, value)
    }

    /// Writes entries into the submission ring, from its first place on, and publishes them.
    pub fn submit(entries: &[Submission]) -> Vec<u8> {
        let mut code = Vec::new();
        let words = entries.iter().flat_map(|entry| entry.to_words());
        for (word, at) in words.zip((layout::SUBMISSIONS..).step_by(8)) {
            code.extend(store(at, word as u32));
            code.extend(store(at + 4, (word >> 32) as u32));
        }
        code.extend(set(Word::SubmissionTail, entries.len() as u32));
        code
    }

    /// Sleeps until the tail of the completion ring is not `seen`.
    pub fn wait(seen: u32) -> Vec<u8> {
        [
            set(Word::Seen, seen),
            set(Word::Sleep, Sleep::Out as u32),
            out(port::WAIT),
            set(Word::Sleep, Sleep::Awake as u32),
        ]
        .concat()
    }

    /// Ends with the status of the completion at this place of its ring as exit code.
    pub fn exit_with_status_of(place: u64) -> Vec<u8> {
        let status = layout::COMPLETIONS + place * Completion::SIZE as u64 + 8;
        let mut code = load(status);
        // `mov [address], eax`.
        code.extend([0x89, 0x04, 0x25]);
        let exit_code = layout::CONTROL + Word::ExitCode.offset() as u64;
        code.extend((exit_code as u32).to_le_bytes());
        code.extend(out(port::EXIT));
        code.extend(spin());
        code
    }

    /// Jumps to itself.
    pub fn spin() -> Vec<u8> {
        vec![0xEB, 0xFE]
    }

    /// Ends with an exit code.
    pub fn exit(code: u32) -> Vec<u8> {
        [set(Word::ExitCode, code), out(port::EXIT), spin()].concat()
    }
}
