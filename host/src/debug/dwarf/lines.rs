//! Which line of the source an address is of.

use gimli::{ColumnType, DebugLineOffset, Dwarf, LineProgramHeader, Reader, Section, Unit};

use super::{Bytes, Known, Result, Search, text};

/// Longest header of a line program that is read, in bytes: each takes as much as a file in it, about
/// a hundred bytes of memory. Compilers write some twenty bytes a file.
pub(super) const LONGEST_HEADER: usize = 128 << 10;
/// Longest path that is shown, in bytes.
const LONGEST_PATH: usize = 512;

/// What a line program says of the addresses.
pub(super) struct Lines<'a> {
    header: LineProgramHeader<Bytes<'a>>,
    rows: Vec<Option<Row>>,
}

/// A row of a line program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Number of the file in the program's header.
    pub(super) file: u64,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

impl<'a> Search<'_, 'a> {
    /// Runs the line program of a unit for those addresses that are wanted.
    pub(super) fn find_lines(&self, known: &Known<'a>, is_wanted: &[bool]) -> Option<Lines<'a>> {
        let offset = known.lines.filter(|_| is_wanted.contains(&true))?;
        if self.header_len(offset).ok()? > LONGEST_HEADER {
            return None;
        }
        let unit = &known.unit;
        let program = self
            .dwarf
            .debug_line
            .program(
                offset,
                unit.header.address_size(),
                unit.comp_dir.clone(),
                unit.name.clone(),
            )
            .ok()?;
        let mut lines = Lines {
            header: program.header().clone(),
            rows: vec![None; self.addresses.len()],
        };
        // What was found before something was wrong is as good as any.
        let _ = self.run(program, is_wanted, &mut lines.rows);
        Some(lines)
    }

    /// The length of a line program's header, by the words before it.
    fn header_len(&self, offset: DebugLineOffset) -> Result<usize> {
        let mut bytes = self.dwarf.debug_line.reader().clone();
        bytes.skip(offset.0)?;
        let (_, format) = bytes.read_initial_length()?;
        if bytes.read_u16()? >= 5 {
            bytes.skip(2)?;
        }
        bytes.read_length(format)
    }

    /// Each row holds for the addresses up to the next one; of those at the same address the last.
    fn run(
        &self,
        program: gimli::IncompleteLineProgram<Bytes<'a>>,
        is_wanted: &[bool],
        rows: &mut [Option<Row>],
    ) -> Result<()> {
        let mut last: Option<(u64, Row)> = None;
        let mut program = program.rows();
        while let Some((_, row)) = program.next_row()? {
            if let Some((start, last)) = last {
                let first = self.addresses.partition_point(|at| *at < start);
                let end = self.addresses.partition_point(|at| *at < row.address());
                self.spend(1 + end.saturating_sub(first) as u64)?;
                for index in first..end {
                    if is_wanted[index] {
                        rows[index].get_or_insert(last);
                    }
                }
            }
            let line = row.line().map(|line| line.get() as u32);
            let here = Row {
                file: row.file_index(),
                line: line.filter(|line| *line > 0),
                column: match row.column() {
                    ColumnType::LeftEdge => None,
                    ColumnType::Column(column) => Some(column.get() as u32),
                },
            };
            last = (!row.end_sequence()).then_some((row.address(), here));
        }
        Ok(())
    }
}

impl<'a> Lines<'a> {
    /// The row of the address with this index.
    pub(super) fn row(&self, index: usize) -> Option<Row> {
        self.rows[index]
    }

    /// The path of a file, by its number in the header.
    pub(super) fn file(
        &self,
        dwarf: &Dwarf<Bytes<'a>>,
        unit: &Unit<Bytes<'a>>,
        number: u64,
    ) -> Option<String> {
        let file = self.header.file(number)?;
        let string = |value| text(dwarf.attr_string(unit, value).ok()?);
        let mut path = unit.comp_dir.clone().and_then(text).unwrap_or_default();
        // Folder 0 is that of the unit.
        if file.directory_index() != 0
            && let Some(folder) = file.directory(&self.header)
        {
            append(&mut path, &string(folder)?);
        }
        append(&mut path, &string(file.path_name())?);
        if path.len() > LONGEST_PATH {
            path.truncate(path.floor_char_boundary(LONGEST_PATH));
            path.push('…');
        }
        Some(path)
    }
}

/// Appends a path to another, unless it begins at the root.
fn append(path: &mut String, next: &str) {
    if next.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(next);
}
