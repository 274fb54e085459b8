//! Tells the host of tasks, and of the largest blocks of a heap, that are where nothing is, or without end.
//!
//! The guest sets the address that one of these words has, and sleeps for ever: then the host looks for what the
//! tasks of a guest that is stuck wait for, and the tests ask it for the largest blocks.

use wakebox_abi::heap::{LEAST, Large, PLACES};
use wakebox_abi::layout;
use wakebox_abi::memory::Word;
use wakebox_abi::port;
use wakebox_abi::wake::Sleep;

use crate::case::{Args, Case, End};
use crate::guest::Guest;

const WORDS: [(Word, Word, &str); 3] = [
    (Word::Tasks, Word::TasksHigh, "tasks"),
    (Word::MoreTasks, Word::MoreTasksHigh, "more-tasks"),
    (Word::Large, Word::LargeHigh, "blocks"),
];

/// Where the arena's words are that the addresses lead to.
const HERE: u64 = layout::ARENA + 0x1000;

const ADDRESSES: [(u64, &str); 8] = [
    (1, "one"),
    (HERE, "here"),
    (HERE + 1, "not-aligned"),
    (layout::ARENA - 8, "before-the-arena"),
    (layout::CONTROL, "control-page"),
    (0x8000_0000_0000, "not-canonical"),
    (u64::MAX - 7, "last-word"),
    (u64::MAX, "max"),
];

/// What lies there: words, over and over.
const FILLS: [(u64, &str); 4] = [
    (0, "zeros"),
    (HERE, "itself"),
    (u64::MAX, "ones"),
    (0x0001_0000_0001, "small"),
];

fn lie(guest: &mut Guest, [word, address, fill, ..]: Args) {
    for offset in 0..0x8000 {
        let bytes = FILLS[fill as usize].0.to_le_bytes();
        guest.poke(0x1000 + offset, bytes[offset as usize % 8]);
    }
    let (low, high, _) = WORDS[word as usize];
    let address = ADDRESSES[address as usize].0;
    guest.set(low, address as u32);
    guest.set(high, (address >> 32) as u32);
    sleep_for_ever(guest);
}

/// Blocks as long as can be, whose calls lead from frame to frame without end.
fn blocks(guest: &mut Guest, [step, ..]: Args) {
    let place = |guest: &Guest, at: u64, word: u64| {
        for (index, byte) in word.to_le_bytes().into_iter().enumerate() {
            guest.poke((at - layout::ARENA) as u32 + index as u32, byte);
        }
    };
    // The word that has the records' address, and the first of them behind it.
    place(guest, HERE, HERE + 8);
    let fits = (guest.boot.arena.len - 0x2000) / (Large::WORDS as u64 * 8);
    for record in 0..fits.min(PLACES as u64) {
        let at = HERE + 8 + record * Large::WORDS as u64 * 8;
        let head = [u64::MAX - record, u64::MAX - LEAST, u64::MAX, u64::MAX];
        let registers = [layout::IMAGE_PIE_BASE, HERE, HERE];
        for (index, word) in head.into_iter().chain(registers).enumerate() {
            place(guest, at + index as u64 * 8, word);
        }
        for word in 0..64 {
            let at = at + (Large::HEAD as u64 + word) * 8;
            place(guest, at, HERE + (word + 1) * step);
        }
    }
    guest.set(Word::Large, HERE as u32);
    guest.set(Word::LargeHigh, (HERE >> 32) as u32);
    sleep_for_ever(guest);
}

fn sleep_for_ever(guest: &Guest) {
    guest.set(Word::Sleep, Sleep::Out as u32);
    guest.ring(port::WAIT);
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (word, (_, _, what)) in WORDS.iter().enumerate() {
        for (address, (_, place)) in ADDRESSES.iter().enumerate() {
            for (fill, (_, words)) in FILLS.iter().enumerate() {
                if fill > 0 && !matches!(*place, "here" | "not-aligned") {
                    continue;
                }
                let name = format_args!("{what}-{place}-{words}");
                let case = Case::new("told", name, lie, End::Deadlock);
                visit(case.with([word as u64, address as u64, fill as u64, 0]));
            }
        }
    }
    for (step, name) in [(0, "same"), (8, "up"), (u64::MAX - 7, "down")] {
        let name = format_args!("blocks-frames-{name}");
        let case = Case::new("told", name, blocks, End::Deadlock);
        visit(case.with([step, 0, 0, 0]));
    }
}
