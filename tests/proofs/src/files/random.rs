//! Files of which no two are strange in the same way.

use super::{CODE, CODE_LEN, COMPRESSED, Debug, Entry, File, note};
use crate::{Any, Random};

/// A guest with some of everything that [`File`] can have.
#[must_use]
pub fn any(random: &mut Random) -> Vec<u8> {
    let mut file = if random.below(8) == 0 {
        File::new()
    } else {
        File::with(debug(random))
    };
    if random.below(4) == 0 {
        file.empty_segments = random.below(300) as usize;
    }
    if random.below(4) == 0 {
        let len = random.below(40) as usize;
        file.notes = note(b"GNU\0", 3, &vec![7; len]).repeat(random.below(50) as usize);
        file.note_headers = random.below(20) as usize;
    }
    if random.below(3) == 0 {
        relocate(random, &mut file);
    }
    if random.below(3) == 0 {
        symbols(random, &mut file);
    }
    if random.below(8) == 0 && !file.sections.is_empty() {
        let which = random.below(file.sections.len() as u32) as usize;
        file.sections[which].1 = COMPRESSED;
    }
    if random.below(8) == 0 {
        frames(random, &mut file);
    }
    let mut bytes = file.to_bytes();
    // Mostly what is made up above has to be read, so little is broken besides.
    for _ in 0..random.below(8).saturating_sub(4) {
        let at = random.below(bytes.len() as u32) as usize;
        bytes[at] = random.u8(&[0, 1, 0x7F, 0x80, 0xFF]);
    }
    bytes
}

/// A word that is in the data, or near it, or anywhere.
fn address(random: &mut Random, file: &File) -> u64 {
    let at = file.data_at();
    let end = at + file.data.len() as u64;
    match random.below(6) {
        0 => random.u64(&[0, CODE, CODE + CODE_LEN, at, end - 8, end, u64::MAX]),
        _ => at + u64::from(random.below(file.data.len() as u32 / 8)) * 8,
    }
}

fn relocate(random: &mut Random, file: &mut File) {
    let mut last = file.data_at();
    for _ in 0..random.below(20) {
        let word = match random.below(4) {
            0 => address(random, file) & !1,
            1 => {
                last += u64::from(random.below(8)) * 8;
                last
            }
            _ => random.word() | 1,
        };
        file.packed.push(word);
    }
    for _ in 0..random.below(20) {
        let place = address(random, file);
        let kind = random.u64(&[0, 1, 6, 7, 8, 1 << 32 | 6]);
        file.relocations.push([place, kind, random.u64(&[0, CODE])]);
    }
}

fn symbols(random: &mut Random, file: &mut File) {
    let names = random.one_of(&[
        &b"\0plain\0_ZN4main1f17h0123456789abcdefE\0"[..],
        b"\0_RMC0TB5_TB5_TB5_TB5_\0_RNvC3a_b1f\0",
        b"no end",
    ]);
    let mut table = Vec::new();
    for _ in 0..random.below(40) {
        let name = random.below(names.len() as u32 + 2);
        table.extend(name.to_le_bytes());
        table.extend([2, 0, 0, 0]);
        table.extend(random.u64(&[0, CODE, CODE + 1, CODE - 1]).to_le_bytes());
        table.extend(random.u64(&[0, 1, CODE_LEN, u64::MAX]).to_le_bytes());
    }
    let mut add = |name: &str, bytes| file.sections.push((name.to_owned(), 0, bytes));
    add(".strtab", names.to_vec());
    add(".symtab", table);
}

fn frames(random: &mut Random, file: &mut File) {
    let at = file.data_at();
    let frames = u64::from(random.below(5000));
    let step = 16 * u64::from(random.below(3));
    file.data = (0..=frames)
        .flat_map(|index| [at + index * 16 + step, CODE + u64::from(random.below(200))])
        .flat_map(u64::to_le_bytes)
        .collect();
}

/// Units with trees of entries that refer to each other.
fn debug(random: &mut Random) -> Debug {
    let mut debug = Debug::new();
    for _ in 0..random.below(6) {
        debug.unit(|debug| {
            let kind = random.one_of(&[Entry::Unit, Entry::Unit, Entry::UnitOfRanges]);
            debug.entry(kind, true, 0);
            entries(random, debug);
        });
    }
    for _ in 0..random.below(20) {
        let range = [CODE, CODE + CODE_LEN, 0, u64::MAX];
        debug.ranges.extend(random.one_of(&range).to_le_bytes());
        debug.ranges.extend(random.one_of(&range).to_le_bytes());
    }
    let files = vec![random.one_of(&[&b"a.rs"[..], b"/", b"\xFF\xFE"]); random.below(6) as usize];
    let operations: Vec<u8> = (0..random.below(200))
        .map(|_| random.u8(&[0, 1, 2, 3, 4, 9, 20, 0xFF]))
        .collect();
    debug.line_program(&files, &operations);
    debug
}

fn entries(random: &mut Random, debug: &mut Debug) {
    let mut depth = 1;
    let most = random.one_of(&[3, 30, 300, 3000]);
    for _ in 0..random.below(most) {
        match random.below(8) {
            0 if depth > 0 => {
                debug.up(1);
                depth -= 1;
            }
            1 => {
                // A chain straight down.
                let entry = random.one_of(&Entry::INSIDE);
                let more = random.below(most);
                for _ in 0..more {
                    debug.entry(entry, true, 12);
                }
                depth += more as usize;
            }
            _ => {
                let entry = random.one_of(&Entry::INSIDE);
                let has_children = random.bool();
                let reference = random.below(debug.info.len() as u32 + 8);
                debug.entry(entry, has_children, reference);
                depth += usize::from(has_children);
            }
        }
    }
    debug.up(depth);
}
