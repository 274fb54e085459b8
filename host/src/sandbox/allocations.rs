//! Who has asked for the largest blocks of a guest's heap, as the guest says ([`wakebox_abi::heap`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wakebox_abi::heap::{Large, PLACES, STACK};
use wakebox_abi::memory::{Control as _, Word};
use wakebox_trace::units;
use wakebox_vmm::memory::View;
use wakebox_vmm::x86_64::registers::Registers;

use super::Sandbox;
use crate::debug::backtrace::Backtrace;
use crate::debug::unwind::{Calls, Memory, unwind_with};
use crate::elf::fuel::{Fuel, limits};

/// Blocks of a guest's heap that were asked for by the same calls: of [`Sandbox::largest_allocations`].
///
/// `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocation {
    /// Bytes of all of them together.
    pub bytes: u64,
    /// How many they are.
    pub blocks: u32,
    /// The calls that asked for them, as far as what was kept of the stack goes.
    pub backtrace: Backtrace,
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::bytes(self.bytes))?;
        if self.blocks > 1 {
            write!(f, " in {}", units::count(self.blocks.into()))?;
        }
        match self.backtrace.location() {
            Some(frame) => write!(f, " by {frame}"),
            None => Ok(()),
        }
    }
}

impl Sandbox {
    /// Who has asked for the largest blocks of the guest's heap, the most bytes first. A guest keeps that while it is
    /// traced, of its 32 largest blocks from 4 KiB on; of one that was not, nothing is known, and this is empty.
    ///
    /// It is the guest's own statement, and takes no longer than a backtrace of a guest that has made up its stack.
    #[must_use]
    pub fn largest_allocations(&self) -> Vec<Allocation> {
        let control = self.memory.control_of(0);
        let told = control.load_address(Word::Large, Word::LargeHigh, Ordering::Relaxed);
        let view = self.memory.view_of(0);
        let records = view.word(told).filter(|records| told != 0 && *records != 0);
        let fuel = Fuel::new(limits::UNWIND);
        let (elf, bias) = (self.symbols.elf(), self.symbols.bias());
        let mut found: Vec<(u64, u32, Calls)> = Vec::new();
        for place in records.iter().flat_map(|records| {
            let size = (Large::WORDS * 8) as u64;
            (0..PLACES as u64).map(move |place| records.wrapping_add(place * size))
        }) {
            let Some(record) = Record::read(&view, place) else {
                continue;
            };
            let calls = unwind_with(&fuel, &record.registers(), &record, elf.as_ref(), bias);
            match found.iter_mut().find(|(_, _, other)| *other == calls) {
                Some((bytes, blocks, _)) => {
                    *bytes = bytes.saturating_add(record.large.len);
                    *blocks += 1;
                }
                None => found.push((record.large.len, 1, calls)),
            }
        }
        found.sort_by_key(|(bytes, _, _)| std::cmp::Reverse(*bytes));
        let allocation = |(bytes, blocks, calls)| Allocation {
            bytes,
            blocks,
            backtrace: Backtrace::new(calls, Arc::clone(&self.symbols)),
        };
        found.into_iter().map(allocation).collect()
    }
}

/// What a guest has kept of a block. Its memory, for who follows its calls, is what it has kept of the stack.
struct Record {
    large: Large,
}

impl Record {
    /// What lies there, if it is a block.
    fn read(view: &View, at: u64) -> Option<Self> {
        let mut bytes = [0; Large::WORDS * 8];
        if view.read(at, &mut bytes) < bytes.len() {
            return None;
        }
        let words: &[[u8; 8]] = bytes.as_chunks().0;
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let mut large = Large::of_head(std::array::from_fn(word));
        for (at, place) in large.stack.iter_mut().enumerate() {
            *place = word(Large::HEAD + at);
        }
        (large.len > 0).then_some(Self { large })
    }

    fn registers(&self) -> Registers {
        let [rip, rsp, rbp, rbx, r12, r13, r14, r15] = self.large.registers;
        Registers {
            rip,
            rsp,
            rbp,
            rbx,
            r12,
            r13,
            r14,
            r15,
            ..Registers::default()
        }
    }
}

impl Memory for Record {
    fn word(&self, address: u64) -> Option<u64> {
        let [_, top, ..] = self.large.registers;
        let offset = address.checked_sub(top)?;
        let depth = self.large.depth.min(STACK as u64);
        let is_kept = offset.is_multiple_of(8) && offset / 8 < depth;
        is_kept.then(|| self.large.stack[(offset / 8) as usize])
    }
}
