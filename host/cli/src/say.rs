//! Printing where the reader may have gone: `println!` and its like panic then.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line to standard output.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::to_output(format_args!($($words)*)) };
}

/// Prints a line to standard error.
macro_rules! note {
    ($($words:tt)*) => { $crate::say::to_error(format_args!($($words)*)) };
}

pub(super) use {note, say};

#[doc(hidden)]
pub(super) fn to_output(words: Arguments<'_>) {
    match writeln!(io::stdout(), "{words}") {
        // Who has seen enough need not see the rest.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            to_error(format_args!("standard output: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
}

#[doc(hidden)]
pub(super) fn to_error(words: Arguments<'_>) {
    // If it cannot be written there, there is no other place to say so.
    let _ = writeln!(io::stderr(), "{words}");
}
