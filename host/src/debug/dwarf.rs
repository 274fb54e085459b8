//! Functions, inlined functions and lines at some addresses, by debug information (DWARF, versions
//! 2 to 5).
//!
//! gimli decodes it; what is looked for is decided here, with nothing that grows with what a file
//! says. A library that keeps whole tables for later questions, and descends into inlined functions
//! by calling itself, is at home with a compiler's files. In one of 50 KB that somebody made up,
//! 20,000 functions are inlined into each other, and in one of a megabyte a list of files is named by
//! ten thousand units. So here
//!
//! * nothing recurs: entries are read in the order of the file, and of those that are open only what
//!   was asked for is known; a name is looked for through at most [`MOST_HOPS`] references;
//! * one unit is looked at after the other, and kept are the locations of units (eight bytes each, of at
//!   least eleven in the file), [`MOST_UNITS_KEPT`] units with abbreviations of at most
//!   [`LONGEST_ABBREVIATIONS`], the header of one line program of at most [`lines::LONGEST_HEADER`],
//!   and for each address at most [`calls::MOST_INLINED`] functions: a few tens of megabytes;
//! * whatever is read costs steps of [`Fuel`], and what takes time without reading is charged besides:
//!   an entry for its attributes, which may have no bytes, and a range for the addresses in it.
//!
//! Compressed sections and split debug information are not read.

mod calls;
mod lines;

use std::collections::VecDeque;
use std::rc::Rc;

use gimli::{
    Abbreviation, Attribute, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfoOffset,
    DebugLineOffset, DebugLocListsBase, DebugRngListsBase, DebugStrOffsetsBase, Dwarf,
    DwarfFileType, EntriesRaw, Range, Reader, Section, Unit, UnitHeader, UnitOffset, UnitType,
};

use self::calls::Chain;
use crate::elf::Elf;
use crate::elf::fuel::{Fuel, Metered};

/// Most references from an entry to the one that has its name.
const MOST_HOPS: usize = 16;
/// Most units that are remembered, for references into them.
const MOST_UNITS_KEPT: usize = 8;
/// Longest table of abbreviations that is read, in bytes. Compilers' have some thousands.
const LONGEST_ABBREVIATIONS: usize = 64 << 10;
/// Most units that are looked at for one address. There should be one.
const MOST_UNITS_OF_ADDRESS: usize = 4;
/// Longest string that is read, in bytes.
const LONGEST_STRING: usize = 4096;
/// Most functions in all, beyond the first of each address.
const MOST_LOCATIONS: usize = 1024;

type Bytes<'a> = Metered<'a>;
type Result<T> = gimli::Result<T>;

/// A function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceLocation {
    /// Its name as the compiler gave it.
    pub(crate) function: Option<String>,
    /// The source file.
    pub(crate) file: Option<String>,
    /// Line, from 1.
    pub(crate) line: Option<u32>,
    /// Column, from 1.
    pub(crate) column: Option<u32>,
}

/// What is at each of these link-time addresses, which are in order: the innermost function first, and
/// then those into which it is inlined.
pub(crate) fn locations<'a>(
    elf: &Elf<'a>,
    addresses: &[u64],
    fuel: &'a Fuel,
) -> Vec<Vec<SourceLocation>> {
    let load = |id: gimli::SectionId| Ok(Metered::new(elf.section(id.name()), fuel));
    let Ok::<_, gimli::Error>(dwarf) = Dwarf::load(load) else {
        return vec![Vec::new(); addresses.len()];
    };
    let mut search = Search {
        dwarf,
        fuel,
        addresses,
        units: Vec::new(),
        candidates: Vec::new(),
        kept: VecDeque::new(),
        found: vec![Vec::new(); addresses.len()],
        locations_left: MOST_LOCATIONS,
    };
    // What was found before something was wrong is as good as any.
    let _ = search.survey();
    search.look_into_units();
    search.found
}

/// A unit, and what is said of its code.
struct Known<'a> {
    unit: Unit<Bytes<'a>>,
    ranges: Ranges<'a>,
    lines: Option<DebugLineOffset>,
}

struct Search<'s, 'a> {
    dwarf: Dwarf<Bytes<'a>>,
    fuel: &'a Fuel,
    addresses: &'s [u64],
    /// Where in `.debug_info` units begin.
    units: Vec<usize>,
    /// The index of a unit in [`Self::units`], and an address that may be in it.
    candidates: Vec<(usize, usize)>,
    kept: VecDeque<(usize, Rc<Known<'a>>)>,
    found: Vec<Vec<SourceLocation>>,
    locations_left: usize,
}

impl<'a> Search<'_, 'a> {
    /// Finds out where units are, and which of them have something at the addresses.
    fn survey(&mut self) -> Result<()> {
        let mut of_address = vec![0; self.addresses.len()];
        let mut headers = self.dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            let unit = self.units.len();
            self.units.push(offset.0);
            let has_code = matches!(
                header.type_(),
                UnitType::Compilation | UnitType::Skeleton(_) | UnitType::SplitCompilation(_)
            );
            if !has_code {
                continue;
            }
            // A unit that cannot be read is passed over.
            let Ok(known) = self.keep(header) else {
                continue;
            };
            let mut at = Vec::new();
            let _ = self.each_address_in(&known, &known.ranges, |index| at.push(index));
            for index in at {
                if of_address[index] < MOST_UNITS_OF_ADDRESS
                    && self.candidates.last() != Some(&(unit, index))
                {
                    of_address[index] += 1;
                    self.candidates.push((unit, index));
                }
            }
        }
        Ok(())
    }

    /// Looks for functions and lines in the units that were found.
    fn look_into_units(&mut self) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.sort_unstable();
        for of_unit in candidates.chunk_by(|one, other| one.0 == other.0) {
            let mut chains = vec![None; self.addresses.len()];
            let mut is_wanted = vec![false; self.addresses.len()];
            for (_, index) in of_unit {
                is_wanted[*index] = self.found[*index].is_empty();
            }
            let Some(known) = self.unit_at(self.units[of_unit[0].0]) else {
                continue;
            };
            let _ = self.find_calls(&known, &is_wanted, &mut chains);
            // Before the lines: a name says more, and costs less.
            for chain in chains.iter_mut().flatten() {
                let inlined = chain.inlined.len().min(self.locations_left);
                self.locations_left -= inlined;
                chain.inlined.drain(..chain.inlined.len() - inlined);
                let offsets: Vec<_> = chain.offsets().collect();
                let names = offsets.iter().map(|offset| self.name(&known, *offset));
                chain.names = names.collect();
            }
            let lines = self.find_lines(&known, &is_wanted);
            for index in (0..is_wanted.len()).filter(|index| is_wanted[*index]) {
                let chain = chains[index].take();
                self.found[index] = self.locations_of(&known, chain, lines.as_ref(), index);
            }
        }
    }

    /// The functions of a chain, from the inside, with names and lines.
    fn locations_of(
        &self,
        known: &Known<'a>,
        chain: Option<Chain>,
        lines: Option<&lines::Lines<'a>>,
        index: usize,
    ) -> Vec<SourceLocation> {
        let file = |number| lines?.file(&self.dwarf, &known.unit, number);
        let row = lines.and_then(|lines| lines.row(index));
        let here = row.map(|row| SourceLocation {
            file: file(row.file),
            line: row.line,
            column: row.column,
            ..SourceLocation::default()
        });
        let Some(chain) = chain else {
            return here.into_iter().collect();
        };
        // A function stands where it calls the one that is inlined into it.
        let mut calls: Vec<_> = chain.inlined.iter().rev().map(|it| it.call).collect();
        if let (Some(last), Some(outermost)) = (calls.last_mut(), chain.outermost_call) {
            // They differ where inlined functions were left out.
            *last = outermost;
        }
        let calls = calls.into_iter().map(|call| SourceLocation {
            file: call.file.and_then(file),
            line: call.line,
            column: call.column,
            ..SourceLocation::default()
        });
        let locations = [here.unwrap_or_default()].into_iter().chain(calls);
        let named = locations.zip(chain.names);
        named
            .map(|(location, function)| SourceLocation {
                function,
                ..location
            })
            .collect()
    }

    /// The unit that begins at an offset of `.debug_info`.
    fn unit_at(&mut self, offset: usize) -> Option<Rc<Known<'a>>> {
        if let Some((_, known)) = self.kept.iter().find(|(at, _)| *at == offset) {
            return Some(known.clone());
        }
        let header = self
            .dwarf
            .debug_info
            .header_from_offset(DebugInfoOffset(offset))
            .ok()?;
        self.keep(header).ok()
    }

    /// Reads a unit, and remembers it.
    fn keep(&mut self, header: UnitHeader<Bytes<'a>>) -> Result<Rc<Known<'a>>> {
        let offset = header.debug_info_offset().map_or(0, |offset| offset.0);
        let known = Rc::new(self.read_unit(header)?);
        if self.kept.len() == MOST_UNITS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((offset, known.clone()));
        Ok(known)
    }

    /// Reads a unit's abbreviations and its first entry.
    fn read_unit(&self, header: UnitHeader<Bytes<'a>>) -> Result<Known<'a>> {
        let encoding = header.encoding();
        let file = DwarfFileType::Main;
        let unit = Unit {
            abbreviations: self.abbreviations(&header)?,
            name: None,
            comp_dir: None,
            low_pc: 0,
            str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, file),
            addr_base: gimli::DebugAddrBase(0),
            loclists_base: DebugLocListsBase::default_for_encoding_and_file(encoding, file),
            rnglists_base: DebugRngListsBase::default_for_encoding_and_file(encoding, file),
            line_program: None,
            dwo_id: None,
            header,
        };
        let mut known = Known {
            unit,
            ranges: Ranges::new(),
            lines: None,
        };
        let (mut name, mut folder, mut start) = (None, None, None);
        let unit = &mut known.unit;
        let abbreviations = unit.abbreviations.clone();
        let mut entries = unit.header.entries_raw(&abbreviations, None)?;
        let entry = self
            .entry(&mut entries)?
            .ok_or(gimli::Error::MissingUnitDie)?;
        for spec in entry.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match (attribute.name(), attribute.value()) {
                (gimli::DW_AT_name, value) => name = Some(value),
                (gimli::DW_AT_comp_dir, value) => folder = Some(value),
                (gimli::DW_AT_low_pc, value) => start = Some(value),
                (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                    known.lines = Some(offset);
                }
                (_, AttributeValue::DebugStrOffsetsBase(base)) => unit.str_offsets_base = base,
                (_, AttributeValue::DebugAddrBase(base)) => unit.addr_base = base,
                (_, AttributeValue::DebugRngListsBase(base)) => unit.rnglists_base = base,
                _ => {}
            }
            known.ranges.see(&attribute);
        }
        let string = |value| self.dwarf.attr_string(unit, value).ok();
        (unit.name, unit.comp_dir) = (name.and_then(string), folder.and_then(string));
        if let Some(start) = start {
            unit.low_pc = self.dwarf.attr_address(unit, start)?.unwrap_or(0);
        }
        Ok(known)
    }

    /// The abbreviations of a unit, which are often those of the unit before it.
    fn abbreviations(
        &self,
        header: &UnitHeader<Bytes<'a>>,
    ) -> Result<std::sync::Arc<gimli::Abbreviations>> {
        let offset = header.debug_abbrev_offset();
        let has_same = |known: &&Known<'_>| known.unit.header.debug_abbrev_offset() == offset;
        let mut kept = self.kept.iter().map(|(_, known)| &**known);
        if let Some(known) = kept.find(has_same) {
            return Ok(known.unit.abbreviations.clone());
        }
        let mut bytes = self.dwarf.debug_abbrev.reader().clone();
        bytes.skip(offset.0)?;
        bytes.truncate(bytes.len().min(LONGEST_ABBREVIATIONS))?;
        let table = DebugAbbrev::from(bytes).abbreviations(DebugAbbrevOffset(0))?;
        Ok(std::sync::Arc::new(table))
    }

    /// The abbreviation of the next entry, or none at the end of its siblings. Its attributes come
    /// next: they are paid for.
    fn entry<'e>(
        &self,
        entries: &mut EntriesRaw<'e, Bytes<'a>>,
    ) -> Result<Option<&'e Abbreviation>> {
        let entry = entries.read_abbreviation()?;
        let attributes = entry.map_or(0, |entry| entry.attributes().len());
        self.spend(attributes as u64 / 4)?;
        Ok(entry)
    }

    fn spend(&self, steps: u64) -> Result<()> {
        let spent = self.fuel.spend(steps);
        spent.map_err(|_| gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(0)))
    }

    /// Calls `found` with the index of each address in these ranges.
    fn each_address_in(
        &self,
        known: &Known<'a>,
        ranges: &Ranges<'a>,
        mut found: impl FnMut(usize),
    ) -> Result<()> {
        let mut see = |range: Range| {
            let first = self.addresses.partition_point(|at| *at < range.begin);
            let end = self.addresses.partition_point(|at| *at < range.end);
            self.spend(1 + end.saturating_sub(first) as u64)?;
            (first..end).for_each(&mut found);
            Ok(())
        };
        let address = |value: &Option<AttributeValue<Bytes<'a>>>| match value {
            Some(value) => self.dwarf.attr_address(&known.unit, value.clone()),
            None => Ok(None),
        };
        if let Some(list) = ranges.list.clone()
            && let Some(offset) = self.dwarf.attr_ranges_offset(&known.unit, list)?
        {
            let mut list = self.dwarf.ranges(&known.unit, offset)?;
            while let Some(range) = list.next()? {
                see(range)?;
            }
            return Ok(());
        }
        let Some(begin) = address(&ranges.start)? else {
            return Ok(());
        };
        let end = match &ranges.end {
            Some(AttributeValue::Udata(len)) => Some(begin.wrapping_add(*len)),
            other => address(other)?,
        };
        end.map_or(Ok(()), |end| see(Range { begin, end }))
    }

    /// The name of the function whose entry this is, which may stand with another one.
    fn name(&mut self, known: &Rc<Known<'a>>, offset: UnitOffset) -> Option<String> {
        let (mut known, mut offset) = (known.clone(), offset);
        for _ in 0..MOST_HOPS {
            let (mut name, mut linkage_name, mut next) = (None, None, None);
            let mut entries = known.unit.entries_raw(Some(offset)).ok()?;
            for spec in self.entry(&mut entries).ok()??.attributes() {
                let attribute = entries.read_attribute(*spec).ok()?;
                match attribute.name() {
                    gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                        linkage_name = Some(attribute.value());
                    }
                    gimli::DW_AT_name => name = Some(attribute.value()),
                    gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                        next = Some(attribute.value());
                    }
                    _ => {}
                }
            }
            let string = |value| self.dwarf.attr_string(&known.unit, value).ok();
            if let Some(name) = linkage_name.or(name).and_then(string) {
                return text(name);
            }
            match next? {
                AttributeValue::UnitRef(other) => offset = other,
                AttributeValue::DebugInfoRef(other) => {
                    let behind = self.units.partition_point(|unit| *unit <= other.0);
                    known = self.unit_at(self.units[behind.checked_sub(1)?])?;
                    offset = other.to_unit_offset(&known.unit.header)?;
                }
                _ => return None,
            }
        }
        None
    }
}

/// A string as it is shown: what is not UTF-8 replaced, and cut off if it is long.
fn text(mut bytes: Bytes<'_>) -> Option<String> {
    bytes.truncate(bytes.len().min(LONGEST_STRING)).ok()?;
    Some(bytes.to_string_lossy().ok()?.into_owned())
}

/// The attributes that say where the code of an entry is.
struct Ranges<'a> {
    start: Option<AttributeValue<Bytes<'a>>>,
    end: Option<AttributeValue<Bytes<'a>>>,
    list: Option<AttributeValue<Bytes<'a>>>,
}

impl<'a> Ranges<'a> {
    const fn new() -> Self {
        Self {
            start: None,
            end: None,
            list: None,
        }
    }

    /// Takes note of an attribute, if it is one of them.
    fn see(&mut self, attribute: &Attribute<Bytes<'a>>) {
        let to = match attribute.name() {
            gimli::DW_AT_low_pc => &mut self.start,
            gimli::DW_AT_high_pc => &mut self.end,
            gimli::DW_AT_ranges => &mut self.list,
            _ => return,
        };
        *to = Some(attribute.value());
    }
}
