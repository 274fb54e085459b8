//! A guest without a machine.
//!
//! A guest that sleeps needs no machine: what its processors hold is a
//! [state](crate::machine::MachineState), and what sets its memory apart from what that was made of is
//! some pages, which are taken out here. Its machine is another guest's meanwhile.
//!
//! Pages are copied and not mapped elsewhere. The guests of one template write mostly the same pages, so
//! those of the machine stay where they are, and neither the kernel nor the machine has anything to look
//! up again. Whoever has more pages of its own than is cheap to copy keeps its machine.

use std::io;

use wakebox_abi::layout::PAGE_SIZE;

use crate::memory::GuestMemory;
use crate::pages;

/// Most bytes by which the memory of a guest may differ from what it was made of.
const MOST: u64 = 1 << 20;

/// Most bytes that are compared for it: guests before it may have left theirs, and a huge page may have
/// been touched in a single place.
const MOST_COMPARED: u64 = 4 * MOST;

/// Bytes that are compared in one go.
const PIECE: u64 = 64 << 10;

/// Pages by which memory differs from what it was made of.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Which, counted from the first of the memory.
    numbers: Vec<u32>,
    bytes: Vec<u8>,
}

/// How memory differs from what it was made of.
#[derive(Default)]
struct Difference {
    /// The pages that differ, and what they were.
    own: Pages,
    former: Pages,
    /// Bytes of all pages that might have differed.
    compared: u64,
}

impl Pages {
    /// Bytes of pages.
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn push(&mut self, number: u64, page: &[u8]) -> io::Result<()> {
        let full = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        self.bytes.try_reserve(page.len()).map_err(full)?;
        self.numbers.try_reserve(1).map_err(full)?;
        self.bytes.extend_from_slice(page);
        self.numbers.push(number as u32);
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let offsets = self
            .numbers
            .iter()
            .map(|number| u64::from(*number) * PAGE_SIZE);
        offsets.zip(self.bytes.chunks(PAGE_SIZE as usize))
    }
}

impl GuestMemory {
    /// Takes out the pages by which it differs from what it was made of: it then is that again, where it
    /// lies. The guest must not run, and nobody else write, meanwhile. `None`, and nothing has changed, if
    /// they are more than is kept, or cannot be found out.
    pub(crate) fn unload(&self) -> Option<Pages> {
        let Difference {
            mut own,
            former,
            compared,
        } = self.difference().ok()??;
        let is_discarded = compared > MOST && self.discard();
        if !is_discarded {
            for (offset, page) in former.iter() {
                self.write(offset, page);
            }
        }
        own.numbers.shrink_to_fit();
        own.bytes.shrink_to_fit();
        Some(own)
    }

    /// Puts back pages that were [taken out](Self::unload) of memory that was made of the same.
    pub(crate) fn load(&self, pages: &Pages) {
        for (offset, page) in pages.iter() {
            self.write(offset, page);
        }
    }

    /// How it differs from what it was made of. `None` if in too many pages.
    fn difference(&self) -> io::Result<Option<Difference>> {
        let (start, len) = self.host_range();
        let written = pages::own(start, len)?;
        let mut found = Difference {
            compared: written.iter().map(|range| range.len).sum(),
            ..Difference::default()
        };
        if found.compared > MOST_COMPARED {
            return Ok(None);
        }
        let (mut now, mut then) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
        for range in written {
            let mut at = range.offset;
            while at < range.offset + range.len {
                let count = PIECE.min(range.offset + range.len - at) as usize;
                let (now, then) = (&mut now[..count], &mut then[..count]);
                self.read(at, now);
                self.backing().read(at, then)?;
                let pages = now
                    .chunks(PAGE_SIZE as usize)
                    .zip(then.chunks(PAGE_SIZE as usize));
                for (number, (now, then)) in (at / PAGE_SIZE..).zip(pages) {
                    if now != then {
                        found.own.push(number, now)?;
                        found.former.push(number, then)?;
                    }
                }
                if found.own.len() > MOST {
                    return Ok(None);
                }
                at += count as u64;
            }
        }
        Ok(Some(found))
    }
}
