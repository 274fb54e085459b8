//! Printing: text is gathered in a few buffers, which go to the host in the order in which
//! they were begun, at the end of the turn.
//!
//! Both streams share the buffers, so that a line on standard error stays behind the
//! line on standard output that was printed before it. When all buffers are under way,
//! printing waits for one, without polling any task.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use wakebox_abi::op::{Stream, WriteConsole};

use crate::buf::{Arena, IoBuf};
use crate::mask::MaskedCell;
use crate::reactor::{Owner, Reactor};
use crate::runtime::{Runtime, try_runtime};

/// Buffers of text, at most so many operations in flight.
const BUFFERS: usize = 8;

/// Bytes of a buffer, unless the arena is very small.
const BUFFER_SIZE: usize = 8 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Console(MaskedCell<Inner>);

#[derive(Debug)]
struct Inner {
    free: Vec<IoBuf>,
    /// Text that is not submitted; the last buffer may have room for more.
    waiting: VecDeque<(Stream, IoBuf)>,
    in_flight: usize,
}

impl Console {
    pub(crate) fn new(arena: &Arena) -> Self {
        let size = BUFFER_SIZE.min(arena.len() / (4 * BUFFERS));
        Self(MaskedCell::new(Inner {
            free: (0..BUFFERS)
                .map_while(|_| arena.allocate(size as u32))
                .collect(),
            waiting: VecDeque::with_capacity(BUFFERS),
            in_flight: 0,
        }))
    }

    /// Appends as much as there is room for, and returns how much that is.
    fn append(&self, stream: Stream, text: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        if let Some((last_stream, last)) = inner.waiting.back_mut()
            && *last_stream == stream
            && last.len() < last.capacity()
        {
            return last.extend_from_slice(text);
        }
        let Some(mut buf) = inner.free.pop() else {
            return 0;
        };
        buf.clear();
        let count = buf.extend_from_slice(text);
        inner.waiting.push_back((stream, buf));
        count
    }

    /// Hands everything printed to the reactor.
    pub(crate) fn submit(&self, reactor: &Reactor) {
        let mut inner = self.0.borrow_mut();
        while let Some((stream, buf)) = inner.waiting.pop_front() {
            let from = buf.filled();
            inner.in_flight += 1;
            reactor.submit_urgent(WriteConsole { stream, from }.into(), Owner::Console(buf));
        }
    }

    /// Takes a buffer back that the host has taken the text of, or failed to: output
    /// that nobody reads is no reason to stop.
    pub(crate) fn recycle(&self, buf: IoBuf) {
        let mut inner = self.0.borrow_mut();
        inner.in_flight -= 1;
        inner.free.push(buf);
    }

    /// Whether text can be appended.
    fn has_room(&self) -> bool {
        !self.0.borrow().free.is_empty()
    }

    /// Whether everything printed has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.0.borrow();
        inner.in_flight == 0 && inner.waiting.is_empty()
    }

    /// Whether the console is at work now.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.is_borrowed()
    }
}

impl Runtime {
    fn print(&self, stream: Stream, mut text: &[u8]) {
        loop {
            text = &text[self.console.append(stream, text)..];
            if text.is_empty() {
                return;
            }
            let nothing_will_come = {
                let inner = self.console.0.borrow();
                inner.free.is_empty() && inner.waiting.is_empty() && inner.in_flight == 0
            };
            if nothing_will_come {
                // An arena too small for a single buffer.
                return;
            }
            self.wait_until(|| self.console.has_room());
        }
    }
}

/// Writes bytes to standard output, as [`println!`](crate::println) does text.
pub fn write_stdout(bytes: &[u8]) {
    write(Stream::Out, bytes);
}

/// Writes bytes to standard error.
pub fn write_stderr(bytes: &[u8]) {
    write(Stream::Err, bytes);
}

fn write(stream: Stream, bytes: &[u8]) {
    if let Some(runtime) = try_runtime() {
        runtime.print(stream, bytes);
    }
}

/// Prints; what the macros call. Outside of a guest the text goes nowhere.
#[doc(hidden)]
pub fn print(stream: Stream, text: fmt::Arguments<'_>) {
    struct Printer(&'static Runtime, Stream);

    impl fmt::Write for Printer {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.print(self.1, text.as_bytes());
            Ok(())
        }
    }

    if let Some(runtime) = try_runtime() {
        // An error is one of the text's own `Display`, and there is nobody to tell.
        let _ = fmt::write(&mut Printer(runtime, stream), text);
    }
}

/// Prints to standard output. The text appears when the task next waits.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => {
        $crate::__private::print($crate::__private::Stream::Out, ::core::format_args!($($text)*))
    };
}

/// Prints a line to standard output. The line appears when the task next waits.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => {
        $crate::print!("{}\n", ::core::format_args!($($text)*))
    };
}

/// Prints to standard error. The text appears when the task next waits.
#[macro_export]
macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::__private::print($crate::__private::Stream::Err, ::core::format_args!($($text)*))
    };
}

/// Prints a line to standard error. The line appears when the task next waits.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($text:tt)*) => {
        $crate::eprint!("{}\n", ::core::format_args!($($text)*))
    };
}
