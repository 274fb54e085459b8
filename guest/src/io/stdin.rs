//! Standard input.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
#[cfg(feature = "stream")]
use core::future::Future;

use wakebox_abi::op::ReadStdin;
use wakebox_abi::status::Status;

use super::error::Context;
use super::{Reader, Result};
use crate::runtime::runtime;
use crate::turns::Turns;

/// Longest line in bytes: whoever writes to standard input does not decide how much memory is taken.
pub const LINE_MAX: usize = 1 << 20;

/// The one standard input of a guest.
#[derive(Debug)]
pub(crate) struct Stdin {
    reader: Reader,
    /// Of those who read, for a line as long as it takes.
    turns: Turns,
    /// The beginning of a line whose end was not read yet.
    line: RefCell<Vec<u8>>,
}

impl Stdin {
    pub(crate) const fn new() -> Self {
        Self {
            reader: Reader::new(),
            turns: Turns::new(),
            line: RefCell::new(Vec::new()),
        }
    }
}

/// Standard input.
///
/// # Panics
///
/// On another processor than the first, and outside of a guest.
#[must_use]
pub fn stdin() -> StdinHandle {
    runtime().here.assert_first("standard input");
    StdinHandle {
        stdin: &runtime().stdin,
    }
}

/// A handle of standard input, of which there may be many. Reads have their turns in the order in
/// which they began; each line goes to one of them, whole.
///
/// All reads may be dropped before they are done, for instance by a timeout: what arrives
/// afterwards, and the beginning of a line that has arrived before, is for the next read.
#[derive(Clone, Copy, Debug)]
pub struct StdinHandle {
    stdin: &'static Stdin,
}

impl StdinHandle {
    /// Reads what there is, at least a byte, and returns the number of bytes. Zero is
    /// the end, or an empty slice.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn read(self, into: &mut [u8]) -> Result<usize> {
        let _turn = self.stdin.turns.take().await;
        self.stdin
            .reader
            .read(into, |into| ReadStdin { into })
            .await
            .context(|| "read from standard input".into())
    }

    /// Appends the next line to `line`, with its end (`\n`) unless the input ends without,
    /// and returns the number of bytes. Zero is the end.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; `InvalidData` if the line is not UTF-8, and `LimitReached` if it is
    /// longer than [`LINE_MAX`] bytes: what was read of it is then lost.
    pub async fn read_line(self, line: &mut String) -> Result<usize> {
        let bytes = self.next_line().await.context(what)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Status::InvalidData)
            .context(what)?;
        line.push_str(&text);
        Ok(text.len())
    }

    /// The lines of the input.
    #[must_use]
    pub fn lines(self) -> Lines {
        Lines { stdin: self }
    }

    async fn next_line(self) -> core::result::Result<Vec<u8>, Status> {
        let Stdin {
            reader,
            turns,
            line,
        } = self.stdin;
        let _turn = turns.take().await;
        loop {
            let more = reader.fill_rest(0, |into| ReadStdin { into }).await?;
            let mut line = line.borrow_mut();
            reader.consume(|bytes| {
                let end = bytes.iter().position(|&byte| byte == b'\n');
                let count = end.map_or(bytes.len(), |end| end + 1);
                line.extend_from_slice(&bytes[..count]);
                count
            });
            if !more || line.ends_with(b"\n") {
                return Ok(core::mem::take(&mut line));
            }
            if line.len() > LINE_MAX {
                *line = Vec::new();
                return Err(Status::LimitReached);
            }
        }
    }
}

fn what() -> String {
    "read a line from standard input".into()
}

/// The lines of standard input; see [`StdinHandle::lines`].
#[derive(Debug)]
pub struct Lines {
    stdin: StdinHandle,
}

impl Lines {
    /// The next line without its end (`\n` or `\r\n`), or `None` at the end of the input.
    /// Cancel-safe: the beginning of a line is for the next call.
    ///
    /// # Errors
    ///
    /// As [`StdinHandle::read_line`].
    pub async fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        if self.stdin.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        if line.ends_with('\n') {
            line.pop();
            if line.ends_with('\r') {
                line.pop();
            }
        }
        Ok(Some(line))
    }
}

/// The lines, up to the end of the input.
#[cfg(feature = "stream")]
impl futures_core::Stream for Lines {
    type Item = Result<String>;

    /// Every poll goes on with the read in flight and the beginning of the line.
    fn poll_next(
        mut self: core::pin::Pin<&mut Self>,
        cx: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Self::Item>> {
        let line = core::pin::pin!(self.next_line());
        line.poll(cx).map(Result::transpose)
    }
}
