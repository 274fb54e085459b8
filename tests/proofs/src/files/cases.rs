//! Files that once ended or stalled a host, and their siblings, each with how it is to end.

use super::{CODE, CODE_LEN, COMPRESSED, Debug, Entry, File, dwarf, note};

/// How the host is to answer a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is refused, with a sentence that has these words.
    Refused(&'static str),
    /// It is run, and where it stops has a frame with this name, if any.
    Stops(Option<&'static str>),
}

/// A file, and its end.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, as a test calls it.
    pub name: &'static str,
    /// How it is to end.
    pub end: End,
    /// Makes the file.
    pub file: fn() -> Vec<u8>,
}

const fn case(name: &'static str, end: End, file: fn() -> Vec<u8>) -> Case {
    Case { name, end, file }
}

const HERE: End = End::Stops(Some("here"));
const UNNAMED: End = End::Stops(None);

/// Bytes of a large part.
const LARGE: usize = 4 << 20;
/// Bytes of the largest.
const LARGEST: usize = 16 << 20;
const DEEP: usize = 20_000;

/// All of them.
pub const CASES: [Case; 27] = [
    case("nothing-strange", HERE, || nested(Entry::Block, 1)),
    case("nested-inlined", HERE, || nested(Entry::BareInlined, DEEP)),
    case("nested-inlined-everywhere", HERE, || {
        nested(Entry::Inlined, DEEP)
    }),
    case("nested-blocks", HERE, || nested(Entry::Block, 1_000_000)),
    case("nested-namespaces", HERE, || {
        nested(Entry::Namespace, 1_000_000)
    }),
    case("nested-functions", HERE, || {
        nested(Entry::BareFunction, 1_000_000)
    }),
    case("nested-functions-everywhere", UNNAMED, || {
        nested(Entry::Reference, 100_000)
    }),
    case("name-of-itself", UNNAMED, name_of_itself),
    case("name-through-many", UNNAMED, name_through_many),
    case("units-of-one-list", UNNAMED, units_of_one_list),
    case(
        "units-of-one-line-program",
        UNNAMED,
        units_of_one_line_program,
    ),
    case("entries-of-no-bytes", UNNAMED, entries_of_no_bytes),
    case("many-abbreviations", UNNAMED, many_abbreviations),
    case("block-of-all-bytes", HERE, block_of_all_bytes),
    case("long-line-program", HERE, long_line_program),
    case("many-source-files", HERE, many_source_files),
    case("compressed-sections", UNNAMED, compressed_sections),
    case("long-symbol", UNNAMED, || symbol(&vec![b'x'; LARGE])),
    case("symbol-that-expands", End::Stops(Some("_")), || {
        symbol(format!("_RMC0{}", "TB5_".repeat(1000)).as_bytes())
    }),
    case("many-symbols", End::Stops(Some("f")), many_symbols),
    case("many-sections-of-long-names", UNNAMED, many_sections),
    case("many-segments", End::Refused("program headers"), || {
        File {
            empty_segments: 60_000,
            ..File::new()
        }
        .to_bytes()
    }),
    case(
        "packed-relocations-of-one-word",
        End::Refused("order"),
        || packed(&[0, u64::MAX].repeat(LARGEST / 16)),
    ),
    case("packed-relocations-of-all-words", UNNAMED, all_packed),
    case("many-relocations", UNNAMED, many_relocations),
    case(
        "notes-of-many-headers",
        End::Refused("steps"),
        notes_of_many_headers,
    ),
    case("stack-without-end", UNNAMED, stack_without_end),
];

fn nested(entry: Entry, depth: usize) -> Vec<u8> {
    File::with(Debug::nested(entry, depth)).to_bytes()
}

fn name_of_itself() -> Vec<u8> {
    let mut debug = Debug::new();
    debug.unit(|debug| {
        debug.entry(Entry::Unit, true, 0);
        let at = debug.info.len() as u32;
        debug.entry(Entry::Reference, false, at);
        debug.up(1);
    });
    File::with(debug).to_bytes()
}

fn name_through_many() -> Vec<u8> {
    let mut debug = Debug::new();
    debug.unit(|debug| {
        debug.entry(Entry::Unit, true, 0);
        for _ in 0..100_000 {
            let next = debug.info.len() as u32 + 21;
            debug.entry(Entry::Reference, false, next);
        }
        debug.entry(Entry::BareFunction, false, 0);
        debug.up(1);
    });
    File::with(debug).to_bytes()
}

fn units_of_one_list() -> Vec<u8> {
    let mut debug = Debug::new();
    for _ in 0..100_000 {
        debug.unit(|debug| debug.entry(Entry::UnitOfRanges, false, 0));
    }
    for _ in 0..100_000 {
        debug.ranges.extend(CODE.to_le_bytes());
        debug.ranges.extend((CODE + CODE_LEN).to_le_bytes());
    }
    debug.ranges.extend([0; 16]);
    File::with(debug).to_bytes()
}

fn units_of_one_line_program() -> Vec<u8> {
    let mut debug = Debug::new();
    for _ in 0..100_000 {
        debug.unit(|debug| debug.entry(Entry::Unit, false, 0));
    }
    debug.line_program(&vec![&b"a"[..]; 20_000], &vec![0x20; 1 << 20]);
    File::with(debug).to_bytes()
}

/// Each entry is one byte, and has thousands of attributes.
fn entries_of_no_bytes() -> Vec<u8> {
    let mut debug = Debug::new();
    let none = [(dwarf::EXTERNAL, dwarf::FLAG_PRESENT)].repeat(10_000);
    debug.abbreviation(100, 0x34, false, &none);
    debug.unit(|debug| {
        debug.entry(Entry::Unit, true, 0);
        debug.info.resize(debug.info.len() + LARGE, 100);
        debug.entry(Entry::Function, false, 0);
        debug.up(1);
    });
    File::with(debug).to_bytes()
}

fn many_abbreviations() -> Vec<u8> {
    let mut debug = Debug::new();
    for number in 100..1_000_000 {
        debug.abbreviation(number, 0x34, false, &[]);
    }
    for _ in 0..1000 {
        debug.unit(|debug| {
            debug.entry(Entry::Unit, true, 0);
            debug.info.extend([0xBF, 0x84, 0x3D]);
            debug.entry(Entry::Function, false, 0);
            debug.up(1);
        });
    }
    File::with(debug).to_bytes()
}

/// The length of a block, and of what follows it, is as much as there can be.
fn block_of_all_bytes() -> Vec<u8> {
    let mut debug = Debug::new();
    let attributes = [
        (dwarf::LOCATION, dwarf::EXPRLOC),
        (dwarf::LOW_PC, dwarf::ADDR),
    ];
    debug.abbreviation(100, 0x34, false, &attributes);
    debug.unit(|debug| {
        debug.entry(Entry::Unit, true, 0);
        debug.entry(Entry::Function, true, 0);
        debug.info.push(100);
        debug.info.extend([0xFF; 9]);
        debug.info.push(1);
        debug.up(16);
    });
    File::with(debug).to_bytes()
}

fn long_line_program() -> Vec<u8> {
    let mut debug = Debug::nested(Entry::Block, 1);
    debug.line.clear();
    // Each is a line further, at the same address.
    debug.line_program(&[b"a.rs"], &vec![19; LARGE]);
    File::with(debug).to_bytes()
}

fn many_source_files() -> Vec<u8> {
    let mut debug = Debug::nested(Entry::Block, 1);
    debug.line.clear();
    debug.line_program(&vec![&b"a"[..]; LARGE / 5], &[]);
    File::with(debug).to_bytes()
}

fn compressed_sections() -> Vec<u8> {
    let mut file = File::with(Debug::nested(Entry::Block, 1));
    for (_, flags, _) in &mut file.sections {
        *flags = COMPRESSED;
    }
    file.to_bytes()
}

fn symbol_entry(name: u32, address: u64, len: u64) -> [u8; 24] {
    let mut entry = [0; 24];
    entry[..4].copy_from_slice(&name.to_le_bytes());
    entry[4] = 2;
    entry[8..16].copy_from_slice(&address.to_le_bytes());
    entry[16..].copy_from_slice(&len.to_le_bytes());
    entry
}

fn with_symbols(names: &[u8], symbols: Vec<u8>) -> Vec<u8> {
    let mut file = File::new();
    let mut add = |name: &str, bytes| file.sections.push((name.to_owned(), 0, bytes));
    add(".strtab", names.to_vec());
    add(".symtab", symbols);
    file.to_bytes()
}

fn symbol(name: &[u8]) -> Vec<u8> {
    let names = [&[0], name, &[0]].concat();
    with_symbols(&names, symbol_entry(1, CODE, CODE_LEN).to_vec())
}

fn many_symbols() -> Vec<u8> {
    let symbols = (0..LARGE as u64 / 24).flat_map(|_| symbol_entry(1, CODE, CODE_LEN));
    with_symbols(b"\0f\0", symbols.collect())
}

fn many_sections() -> Vec<u8> {
    let mut file = File::new();
    let name = format!(".debug_{}", "x".repeat(200));
    file.sections = vec![(name, 0, Vec::new()); 65_000];
    file.to_bytes()
}

fn packed(words: &[u64]) -> Vec<u8> {
    let mut file = File::new();
    let at = file.data_at();
    file.packed = words
        .iter()
        .map(|word| if *word == 0 { at } else { *word })
        .collect();
    file.to_bytes()
}

/// One for each word of 16 MiB, in the fewest bytes.
fn all_packed() -> Vec<u8> {
    let mut file = File::new();
    file.data = vec![0; LARGE];
    file.packed = vec![u64::MAX; LARGE / 8 / 63];
    file.packed.insert(0, file.data_at());
    file.to_bytes()
}

fn many_relocations() -> Vec<u8> {
    const RELATIVE: u64 = 8;
    let mut file = File {
        empty_segments: 200,
        ..File::new()
    };
    let at = file.data_at();
    file.relocations = (0..LARGE as u64 / 24)
        .map(|index| [at + index % 512 * 8, RELATIVE, CODE])
        .collect();
    file.to_bytes()
}

fn notes_of_many_headers() -> Vec<u8> {
    let mut file = File::new();
    file.notes = note(b"", 0, b"").repeat(LARGE / 12);
    file.note_headers = 200;
    // Only the guest's own is looked for: nobody finds it.
    let mut bytes = file.to_bytes();
    let own = bytes.windows(8).rposition(|part| part == b"Wakebox\0");
    if let Some(at) = own {
        bytes[at] = b'w';
    }
    bytes
}

/// Frames that lead to each other as far as the data goes, to be found with the frame pointer at
/// its beginning.
fn stack_without_end() -> Vec<u8> {
    let mut file = File {
        empty_segments: 200,
        ..File::new()
    };
    let at = file.data_at();
    file.data = (0..LARGE as u64 / 16)
        .flat_map(|index| [at + 16 * (index + 1), CODE + 16 + index % 64])
        .flat_map(u64::to_le_bytes)
        .collect();
    file.to_bytes()
}
