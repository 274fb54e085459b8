//! How a sandbox ended.

mod fault;
mod lost;
mod panic;
mod shutdown;

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::fault::LONGEST_INSTRUCTION;
pub use self::fault::{Cause, Fault, FaultKind, Instruction, Registers};
pub use self::lost::LostOutput;
pub use self::panic::Panic;
pub use self::shutdown::{Change, ExceptionFrame, Shutdown, Stack};

/// How a sandbox ended: what its guest did, or what was done to it.
///
/// `Display` gives a sentence for a person, `Serialize` the same with all particulars for a
/// program: `{"end": "fault", "detail": {"cause": "null-dereference", ...}}` in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end", content = "detail")]
#[non_exhaustive]
pub enum Outcome {
    /// The guest ended by itself, with this code.
    Exit(i32),
    /// The guest panicked.
    Panic(Box<Panic>),
    /// The guest raised a processor exception.
    Fault(Box<Fault>),
    /// The guest reached a limit that policy sets.
    Limit(Limit),
    /// The guest broke the interface; the text says how.
    Violation(String),
    /// The guest sleeps with no operation in flight: nothing can ever wake it.
    Deadlock,
    /// The host ended it.
    Cancelled,
}

impl Outcome {
    /// Whether the guest ended by itself with code zero.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }

    /// The word for it, as in JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Exit(_) => "exit",
            Self::Panic(_) => "panic",
            Self::Fault(_) => "fault",
            Self::Limit(_) => "limit",
            Self::Violation(_) => "violation",
            Self::Deadlock => "deadlock",
            Self::Cancelled => "cancelled",
        }
    }

    /// The exit status that a command should end with: the guest's own code for
    /// [`Outcome::Exit`] (its low eight bits), 101 for a panic as in Rust, 124 for a limit as
    /// `timeout` has it, 139 for a fault as a shell shows a segmentation fault, 125 for a
    /// violation, 123 for a deadlock, 130 for a cancelled run.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exit(code) => *code as u8,
            Self::Panic(_) => 101,
            Self::Deadlock => 123,
            Self::Limit(_) => 124,
            Self::Violation(_) => 125,
            Self::Cancelled => 130,
            Self::Fault(_) => 139,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "the guest ended with code {code}"),
            Self::Panic(panic) => write!(f, "the guest panicked {panic}"),
            Self::Fault(fault) => write!(f, "the guest faulted: {fault}"),
            Self::Limit(limit) => write!(f, "the guest was stopped: {limit}"),
            Self::Violation(what) => write!(f, "the guest broke the interface: {what}"),
            Self::Deadlock => f.write_str(
                "the guest sleeps for ever: every task waits and no operation is in flight that \
                 could wake one",
            ),
            Self::Cancelled => f.write_str("the run was cancelled"),
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes), |c| c == '\n' || c == '\t')
}

/// A guest's text as it may appear in one line of somebody's terminal: control characters and
/// those that reorder what surrounds them are escaped.
#[must_use]
pub fn printable_line(text: &str) -> String {
    escape(text, |_| false)
}

fn escape(text: &str, is_harmless: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !is_harmless(c) || misleads(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Most bytes of a [`Quoted`] text.
const QUOTED_MAX: usize = 512;

/// A guest's words in a line that the host writes to a log or an error: whatever they are, escaped
/// and cut off where they are long. What is said of a guest goes through here or through
/// [`printable_line`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut quoting = Quoting {
            to: f,
            left: QUOTED_MAX,
            is_cut: false,
        };
        let written = write!(quoting, "{}", self.0);
        match quoting.is_cut {
            true => f.write_str("..."),
            false => written,
        }
    }
}

/// Escapes what is written, up to where it is cut off.
struct Quoting<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    left: usize,
    is_cut: bool,
}

impl fmt::Write for Quoting<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(left) = self.left.checked_sub(c.len_utf8()) else {
                // Ends the writing, so that no more is made of what is not shown.
                self.is_cut = true;
                return Err(fmt::Error);
            };
            self.left = left;
            if c.is_control() || misleads(c) {
                write!(self.to, "{}", c.escape_default())?;
            } else {
                self.to.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a character changes how others are seen and is not seen itself, which hides what a text
/// says as well as a cursor does: marks of direction (Unicode Standard Annex 9, 2), separators of
/// lines and paragraphs, and what has no width.
fn misleads(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A limit that ended a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Limit {
    /// It ran for longer than this by the wall clock.
    WallClock(Duration),
    /// It computed for longer than this.
    CpuTime(Duration),
    /// It wrote more bytes than this to standard error.
    Log(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WallClock(limit) => {
                write!(
                    f,
                    "it ran for longer than {}",
                    crate::units::duration(*limit)
                )
            }
            Self::CpuTime(limit) => {
                write!(
                    f,
                    "it computed for longer than {}",
                    crate::units::duration(*limit)
                )
            }
            Self::Log(limit) => {
                write!(
                    f,
                    "it wrote more than {} to standard error",
                    crate::units::bytes(*limit)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_short_line() {
        let quoted = Quoted("a\x1b[2J\r\n\u{202e}b").to_string();
        assert_eq!(quoted, "a\\u{1b}[2J\\r\\n\\u{202e}b");
        let long = Quoted("é".repeat(1 << 20)).to_string();
        assert_eq!(long, "é".repeat(QUOTED_MAX / 2) + "...");
        let whole = "a".repeat(QUOTED_MAX);
        assert_eq!(Quoted(&whole).to_string(), whole);
    }

    #[test]
    fn last_words_cannot_move_the_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n"), "a\\u{1b}[2Jb\u{fffd}\n");
    }
}
