//! A panic in a guest.

use std::fmt;

use serde::Serialize;
use wakebox_abi::report::Reader;

use crate::debug::backtrace::Backtrace;
use crate::text::{printable, printable_line};

/// A panic in a guest, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Panic {
    /// The message.
    pub message: String,
    /// The source file, if known: as the compiler was given it.
    pub file: Option<String>,
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
    /// The name of the task, if it had one.
    pub task: Option<String>,
    /// The calls that led there, the panic handler's included.
    pub backtrace: Backtrace,
}

impl Panic {
    /// Reads a copy of the report page. What is not UTF-8 is replaced, and control characters
    /// are escaped: a guest's words end up on somebody's terminal.
    pub(crate) fn read(page: &[u8; wakebox_abi::report::SIZE]) -> Self {
        let reader = Reader::new(page);
        let named = |bytes: &[u8]| {
            let text = || printable_line(&String::from_utf8_lossy(bytes));
            (!bytes.is_empty()).then(text)
        };
        Self {
            message: printable(reader.message()),
            file: named(reader.file()),
            line: reader.line(),
            column: reader.column(),
            task: named(reader.task()),
            backtrace: Backtrace::empty(),
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task {
            write!(f, "in task `{task}` ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "at {file}:{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}
