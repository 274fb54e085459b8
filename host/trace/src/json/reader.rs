//! Reads a trace from a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::{EVENT, FORMAT, FORMAT_OF_ONE};
use crate::event::Event;

/// Most bytes of a line: far beyond what is written.
const LINE_MAX: u64 = 1 << 20;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the trace is empty: not even its first line was written")]
    Empty,
    /// It is something else.
    #[error("this is no trace of Wakebox: {0}; `wakebox run --trace FILE` writes one")]
    Foreign(&'static str),
    /// It is of another version.
    #[error(
        "the trace is in version {found} of the format, this program reads versions {FORMAT_OF_ONE} to {FORMAT}; \
         record it again, or read it with the Wakebox that wrote it ({writer})"
    )]
    Version {
        /// Which.
        found: u32,
        /// The version of Wakebox that wrote it.
        writer: String,
    },
    /// A line in the middle is no event.
    #[error("line {line} of the trace is no event: {why}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Reads what [`Writer`](super::Writer) wrote, event by event, in memory for one line.
///
/// It ends when the file does. Then [`Self::is_whole`] tells whether the trace was written to its
/// end, or was cut off after the last event: the process was killed, or the disk was full.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    line: Vec<u8>,
    lines: u64,
    events: u64,
    whole: bool,
    over: bool,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    args: HeaderArgs,
}

#[derive(Deserialize)]
struct HeaderArgs {
    #[serde(default)]
    format: Option<u32>,
    #[serde(default)]
    wakebox: String,
}

#[derive(Deserialize)]
struct Line {
    args: Event,
}

impl Reader<BufReader<File>> {
    /// A reader of a file.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::new(BufReader::with_capacity(1 << 16, File::open(path)?))
    }
}

impl<R: BufRead> Reader<R> {
    /// A reader of anything. Reads the first line.
    ///
    /// # Errors
    ///
    /// It cannot be read, is empty, is no trace, or one of another version.
    pub fn new(from: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            from,
            line: Vec::new(),
            lines: 0,
            events: 0,
            whole: false,
            over: false,
        };
        let Some(whole) = reader.next_line()? else {
            return Err(ReadError::Empty);
        };
        let text = reader.line.trim_ascii();
        let text = text.strip_suffix(b",").unwrap_or(text);
        let foreign = ReadError::Foreign("its first line is not that of a trace");
        let Some(text) = text.strip_prefix(b"[") else {
            return Err(foreign);
        };
        match serde_json::from_slice::<Header>(text) {
            Ok(Header { name, args }) if name == "wakebox_trace" => match args.format {
                Some(FORMAT_OF_ONE..=FORMAT) => Ok(reader),
                found => Err(ReadError::Version {
                    found: found.unwrap_or(0),
                    writer: args.wakebox,
                }),
            },
            // The beginning of a first line.
            Err(_)
                if !whole
                    && br#"{"name":"wakebox_trace""#.starts_with(&text[..text.len().min(23)]) =>
            {
                Err(ReadError::Empty)
            }
            _ => Err(foreign),
        }
    }

    /// Events read so far.
    pub fn events_read(&self) -> u64 {
        self.events
    }

    /// Whether the trace was written to its end. Ask when there are no more events.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Reads a line. Returns whether it is whole, or `None` at the end.
    fn next_line(&mut self) -> Result<Option<bool>, ReadError> {
        self.line.clear();
        let read = (&mut self.from)
            .take(LINE_MAX)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        let whole = self.line.last() == Some(&b'\n');
        if !whole && read as u64 == LINE_MAX {
            return Err(match self.lines {
                1 => ReadError::Foreign("its first line does not end"),
                line => ReadError::Line {
                    line,
                    why: "it does not end".into(),
                },
            });
        }
        Ok(Some(whole))
    }

    fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        while let Some(whole) = self.next_line()? {
            if self.whole || !whole {
                // Behind the end, or the rest of a line that was cut off.
                continue;
            }
            if self.line.starts_with(EVENT) {
                let text = self.line.trim_ascii();
                let text = text.strip_suffix(b",").unwrap_or(text);
                let Line { args } =
                    serde_json::from_slice(text).map_err(|error| ReadError::Line {
                        line: self.lines,
                        why: error.to_string(),
                    })?;
                self.events += 1;
                return Ok(Some(args));
            }
            self.whole = self.line.starts_with(br#"{"name":"wakebox_end""#);
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_event().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}
