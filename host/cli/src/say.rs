//! What the command says, and how: nothing else in it writes to standard output or error.
//!
//! Where the reader has gone, `println!` and its like panic; where a pipe has `O_NONBLOCK`, they
//! fail. Words may hold what a guest has said: on a terminal, and on standard error, what could move
//! a cursor or reorder a line is escaped, except for the colours of [`Style`](super::style::Style).

use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use wakebox::printable_line;

use super::output::write_all;
use super::style::CODES;

/// Prints a line to standard output.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::to_output(format_args!($($words)*)) };
}

/// Prints a line to standard error.
macro_rules! note {
    ($($words:tt)*) => { $crate::say::to_error(format_args!($($words)*)) };
}

/// Prints a line to standard error that tells of nothing that went wrong; not with `--quiet`.
macro_rules! remark {
    ($($words:tt)*) => {
        if !$crate::say::is_quiet() {
            $crate::say::to_error(format_args!($($words)*));
        }
    };
}

pub(super) use {note, remark, say};

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on nothing is said but what was asked for and what went wrong.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A standard stream, with nothing in between.
struct Stream(BorrowedFd<'static>);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

/// Standard output, for what is written piece by piece: give it a buffer. On a terminal, what is
/// written has to be free of what a guest could have put there.
pub(super) fn output() -> impl Write + Send {
    struct Patient(Stream);
    impl Write for Patient {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            write_all(&mut self.0, bytes)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Patient(Stream(rustix::stdio::stdout()))
}

#[doc(hidden)]
pub(super) fn to_output(words: Arguments<'_>) {
    match try_to_output(words) {
        // Who has seen enough need not see the rest.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            to_error(format_args!("standard output: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Prints a line to standard output, for who has an exit status of their own for a failure.
///
/// # Errors
///
/// What the kernel says.
pub(super) fn try_to_output(words: Arguments<'_>) -> io::Result<()> {
    let mut line = format!("{words}\n");
    if io::stdout().is_terminal() {
        line = harmless(&line);
    }
    write_all(&mut Stream(rustix::stdio::stdout()), line.as_bytes())
}

#[doc(hidden)]
pub(super) fn to_error(words: Arguments<'_>) {
    let line = harmless(&format!("{words}\n"));
    // If it cannot be written there, there is no other place to say so.
    let _ = write_all(&mut Stream(rustix::stdio::stderr()), line.as_bytes());
}

/// Prints a script of this command's own, as it is.
pub(super) fn script(text: &str) {
    let written = write_all(&mut Stream(rustix::stdio::stdout()), text.as_bytes());
    if written.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe) {
        std::process::exit(1);
    }
}

/// Prints JSON that a guest has made to standard output: as it is to a file or a pipe, and on a
/// terminal with what could do harm there written as JSON escapes it.
///
/// # Errors
///
/// What the kernel says.
pub(super) fn json(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        return try_to_output(format_args!("{}", escaped_json(text)));
    }
    try_to_output(format_args!("{text}"))
}

/// Prints a value of this command's own as JSON, for programs.
pub(super) fn json_of(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    match json(&text) {
        // Who has seen enough need not see the rest.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn escaped_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

/// Line ends and tabs, and all that [`printable_line`] leaves as it is.
fn is_harmless(c: char) -> bool {
    matches!(c, '\n' | '\t')
        || printable_line(c.encode_utf8(&mut [0; 4])) == *c.encode_utf8(&mut [0; 4])
}

/// A text whose control characters are line ends, tabs and our own colours.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(code) = CODES.iter().find(|code| rest.starts_with(**code)) {
            safe.push_str(code);
            rest = &rest[code.len()..];
            continue;
        }
        if is_harmless(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
        rest = &rest[c.len_utf8()..];
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_colours_pass() {
        let said = "\x1b[1;31merror\x1b[0m: \ta\n\x1b[2J\x1b]0;title\x07\u{9b}2J\u{202e}\r\x08";
        assert_eq!(
            harmless(said),
            "\x1b[1;31merror\x1b[0m: \ta\n\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{9b}2J\\u{202e}\\r\\u{8}"
        );
    }

    #[test]
    fn json_stays_json() {
        let text = "\"\x1b[2J\u{9b}\u{e0041} ä\"";
        let escaped = escaped_json(text);
        assert_eq!(escaped, "\"\\u001b[2J\\u009b\\udb40\\udc41 ä\"");
        let value: String = serde_json::from_str(&escaped).unwrap();
        assert_eq!(format!("\"{value}\""), text);
    }
}
