//! Which function an address is in, and which ones are inlined there.

use std::collections::VecDeque;

use gimli::{
    Abbreviation, Attribute, AttributeValue, DW_TAG_inlined_subroutine, DW_TAG_subprogram,
    EntriesRaw, UnitOffset,
};

use super::{Bytes, Known, Ranges, Result, Search};

/// Most inlined functions that are kept for one address: the innermost.
pub(super) const MOST_INLINED: usize = 63;

/// A function, and what is inlined at one address in it.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The function's entry, and how deep in the tree it stands.
    pub(super) offset: UnitOffset,
    depth: isize,
    /// Each is inlined into the one before it, the first into the function, if no more than
    /// [`MOST_INLINED`] were.
    pub(super) inlined: VecDeque<Inlined>,
    /// Where the function calls what is inlined into itself.
    pub(super) outermost_call: Option<Call>,
    /// The names of all of them, from the inside.
    pub(super) names: Vec<Option<String>>,
}

/// A function that is inlined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inlined {
    pub(super) offset: UnitOffset,
    depth: isize,
    pub(super) call: Call,
}

/// Where a function is called that is inlined: the number of the file in the line program's header,
/// line and column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call {
    pub(super) file: Option<u64>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

impl Call {
    /// Takes note of an attribute, if it says something about the call.
    fn see(&mut self, attribute: &Attribute<Bytes<'_>>, version: u16) {
        let number = || {
            let number = attribute.udata_value()? as u32;
            (number > 0).then_some(number)
        };
        match attribute.name() {
            gimli::DW_AT_call_line => self.line = number(),
            gimli::DW_AT_call_column => self.column = number(),
            gimli::DW_AT_call_file => {
                // Up to version 4, number 0 is no file.
                if let AttributeValue::FileIndex(file) = attribute.value()
                    && (file > 0 || version >= 5)
                {
                    self.file = Some(file);
                }
            }
            _ => {}
        }
    }
}

impl<'a> Search<'_, 'a> {
    /// Reads all entries of a unit for the functions at those addresses that are wanted.
    pub(super) fn find_calls(
        &self,
        known: &Known<'a>,
        is_wanted: &[bool],
        chains: &mut [Option<Chain>],
    ) -> Result<()> {
        let version = known.unit.header.version();
        let mut entries = known.unit.entries_raw(None)?;
        // Those addresses in whose function the next entry is.
        let mut inside: Vec<usize> = Vec::new();
        while !entries.is_empty() {
            let (offset, depth) = (entries.next_offset(), entries.next_depth());
            let Some(entry) = self.entry(&mut entries)? else {
                continue;
            };
            if !inside.is_empty() {
                self.spend(inside.len() as u64)?;
                let is_inside = |index: &usize| {
                    let chain = chains[*index].as_ref();
                    chain.is_some_and(|chain| chain.depth < depth)
                };
                inside.retain(is_inside);
            }
            let is_function = entry.tag() == DW_TAG_subprogram;
            let is_inlined = entry.tag() == DW_TAG_inlined_subroutine && !inside.is_empty();
            if !is_function && !is_inlined {
                skip(&mut entries, entry)?;
                continue;
            }
            let (mut ranges, mut call) = (Ranges::new(), Call::default());
            for spec in entry.attributes() {
                let attribute = entries.read_attribute(*spec)?;
                ranges.see(&attribute);
                call.see(&attribute, version);
            }
            // A range that cannot be read belongs to this entry alone.
            let _ = self.each_address_in(known, &ranges, |index| {
                if !is_wanted[index] {
                    return;
                }
                if is_inlined {
                    if let Some(chain) = &mut chains[index] {
                        chain.push(Inlined {
                            offset,
                            depth,
                            call,
                        });
                    }
                    return;
                }
                chains[index] = Some(Chain {
                    offset,
                    depth,
                    inlined: VecDeque::new(),
                    outermost_call: None,
                    names: Vec::new(),
                });
                if !inside.contains(&index) {
                    inside.push(index);
                }
            });
        }
        Ok(())
    }
}

impl Chain {
    /// All entries, from the inside.
    pub(super) fn offsets(&self) -> impl Iterator<Item = UnitOffset> {
        let inlined = self.inlined.iter().rev().map(|inlined| inlined.offset);
        inlined.chain([self.offset])
    }

    fn push(&mut self, inlined: Inlined) {
        // One that stands beside the last, not in it, is of a file in which ranges overlap.
        let is_beside = |last: &Inlined| last.depth >= inlined.depth;
        if inlined.depth <= self.depth || self.inlined.back().is_some_and(is_beside) {
            return;
        }
        self.outermost_call.get_or_insert(inlined.call);
        if self.inlined.len() == MOST_INLINED {
            self.inlined.pop_front();
        }
        self.inlined.push_back(inlined);
    }
}

/// Goes on behind the attributes of an entry.
fn skip(entries: &mut EntriesRaw<'_, Bytes<'_>>, entry: &Abbreviation) -> Result<()> {
    // Where a length of eight bytes can stand in the file, gimli adds it up without a look at whether
    // that overflows.
    let is_long = entry.attributes().iter().any(|spec| {
        matches!(
            spec.form(),
            gimli::DW_FORM_block | gimli::DW_FORM_exprloc | gimli::DW_FORM_indirect
        )
    });
    if !is_long {
        return entries.skip_attributes(entry.attributes());
    }
    for spec in entry.attributes() {
        entries.read_attribute(*spec)?;
    }
    Ok(())
}
