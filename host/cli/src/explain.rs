//! `wakebox explain`: a run as a story, a line an event.

mod telling;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, bail};
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use wakebox_abi::op::Opcode;

use self::telling::{Part, Teller, wrap};
use super::run::{SandboxArgs, Stdout, conclude, run_told};
use super::style::Style;
use super::{say, signals, streams};
use wakebox::printable_line;
use wakebox::trace::{Event, EventKind, OpKind, Sink};
use wakebox::{Input, Output, units};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the host does stands at the left, what crosses the boundary further in, what the guest does \
furthest. Examples:
  wakebox explain target/release/hello --wake out
  wakebox explain target/release/hello --step
  wakebox run target/release/hello --trace run.json; wakebox explain run.json")]
pub(super) struct Args {
    /// The guest, or a trace that `wakebox run --trace` wrote; `-` is one on standard input
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// Wait for a key after each line: space or enter goes on, q ends it
    #[arg(long, help_heading = None)]
    step: bool,

    /// Arguments of the guest: the first one that is no option, and all behind it or behind `--`
    #[arg(
        trailing_var_arg = true,
        value_name = "ARGS",
        help_heading = None
    )]
    args: Vec<String>,
}

pub(super) fn run(mut args: Args) -> Result<ExitCode> {
    args.sandbox.settle()?;
    if args.step && !io::stdin().is_terminal() {
        bail!("--step waits for keys, but standard input is no terminal");
    }
    let output = Said::default();
    let told = Arc::new(Notify::new());
    let mut printer = Printer {
        out: io::BufWriter::new(say::output()),
        teller: Teller::default(),
        said: output.clone(),
        style: Style::of_stdout(),
        width: width(),
        step: args.step,
        stopped: told.clone(),
    };
    if is_trace(args.sandbox.guest()) {
        return match printer.read(args.sandbox.guest()) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) if is_wish(&error) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error),
        };
    }
    if args.step {
        args.sandbox.keep_terminal();
    }
    let mut wishes = args.sandbox.wishes(Stdout::Taken("the story"))?;
    let stdin = match args.step {
        true => Input::Null,
        false => Input::Inherit,
    };
    let builder = args
        .sandbox
        .into_jailed_builder(&mut wishes)?
        .args(args.args)
        .stdin(stdin)
        .stdout(Output::writer(output.clone()))
        .stderr(Output::writer(output))
        .trace(printer);
    let stop = async move { told.notified().await };
    let (sandbox, outcome, ()) = run_told(builder, stop, |_| std::future::ready(()))?;
    if let Some(error) = sandbox.trace_error() {
        return match is_end(error) {
            true => Ok(ExitCode::SUCCESS),
            false => bail!("the story cannot be told: {error}"),
        };
    }
    conclude(&mut wishes, &outcome, &sandbox)
}

/// Whether a file is a trace. What cannot be read is none, which whoever runs it will say.
fn is_trace(path: &Path) -> bool {
    if streams::is_standard(path) {
        return true;
    }
    let mut first = [0];
    let read = File::open(path).and_then(|file| file.take(1).read(&mut first));
    matches!(read, Ok(1)) && first == *b"["
}

/// Whether somebody wanted no more: pressed q, or closed the pipe.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted
    )
}

fn is_wish(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(is_end)
}

/// Columns of the terminal; `None` where lines are not broken.
fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A terminal that knows no size says zero.
    (size.ws_col > 0).then_some(usize::from(size.ws_col).max(20))
}

/// What the guest has written, and nobody has shown yet.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<u8>>>);

impl Said {
    fn bytes(&self) -> std::sync::MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, most: usize) -> Vec<u8> {
        let mut bytes = self.bytes();
        let count = most.min(bytes.len());
        bytes.drain(..count).collect()
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes().extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Prints the lines.
struct Printer<W: Write> {
    out: W,
    teller: Teller,
    said: Said,
    style: Style,
    width: Option<usize>,
    step: bool,
    /// Told when nobody wants to hear more.
    stopped: Arc<Notify>,
}

/// Columns of the time.
const TIME: usize = 10;

impl<W: Write> Printer<W> {
    /// Tells a trace.
    fn read(&mut self, path: &Path) -> Result<()> {
        let mut reader = streams::trace(path)?;
        for event in reader.by_ref() {
            self.tell(&event?)?;
        }
        if !reader.is_whole() {
            writeln!(self.out, "(the trace was cut off here)")?;
        }
        self.out.flush()?;
        Ok(())
    }

    fn tell(&mut self, event: &Event) -> io::Result<()> {
        let (part, text) = self.teller.tell(event);
        let time = units::duration(std::time::Duration::from_nanos(event.time));
        self.line(&time, part, &text)?;
        match &event.kind {
            EventKind::OpEnds {
                what,
                bytes: Some(bytes),
                ..
            } if *what == OpKind::from(Opcode::WriteConsole) => self.says(*bytes as usize)?,
            // What was written by an operation of which the trace lost the end.
            EventKind::Finished { .. } => self.says(usize::MAX)?,
            _ => {}
        }
        if self.step {
            self.out.flush()?;
            wait_for_key()?;
        }
        Ok(())
    }

    /// Shows what the guest has written.
    fn says(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = self.said.take(bytes);
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines() {
            self.line("", Part::Words, &format!("| {}", printable_line(line)))?;
        }
        Ok(())
    }

    fn line(&mut self, time: &str, part: Part, text: &str) -> io::Result<()> {
        let is_narrow = self.width.is_some_and(|width| width < 72);
        let indent = TIME + 2 + part.depth() * if is_narrow { 1 } else { 4 };
        let room = self.width.map(|width| width.saturating_sub(indent + 1));
        let style = self.style;
        for (number, piece) in wrap(text, room).into_iter().enumerate() {
            let time = if number == 0 { time } else { "" };
            let time = style.faint(&format!("{time:>TIME$}"));
            let gap = " ".repeat(indent - TIME);
            let piece = match part {
                Part::Host => piece.to_owned(),
                Part::Boundary => style.boundary(piece),
                Part::Guest => style.guest(piece),
                Part::Words => style.strong(piece),
            };
            writeln!(self.out, "{time}{gap}{piece}")?;
        }
        Ok(())
    }

    fn heard<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.stopped.notify_one();
        }
        result
    }
}

impl<W: Write + Send> Sink for Printer<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let told = self.tell(event);
        self.heard(told)
    }

    fn caught_up(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.heard(flushed)
    }

    fn end(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.heard(flushed)
    }
}

/// Waits until somebody wants the next line.
///
/// # Errors
///
/// `Interrupted` if nobody does; or what the terminal says.
fn wait_for_key() -> io::Result<()> {
    /// How long a signal may go unseen.
    const SIGNAL: Duration = Duration::from_millis(50);
    /// The terminal is as it was between two lines, and after a panic.
    struct Raw;
    impl Drop for Raw {
        fn drop(&mut self) {
            // Nothing is left that could be done about it.
            let _ = terminal::disable_raw_mode();
        }
    }
    terminal::enable_raw_mode()?;
    let _raw = Raw;
    loop {
        // The read alone would not end at a signal.
        while !event::poll(SIGNAL)? {
            if signals::caught().is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        let event::Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Err(io::ErrorKind::Interrupted.into()),
            KeyCode::Char('q') | KeyCode::Esc => return Err(io::ErrorKind::Interrupted.into()),
            KeyCode::Char(' ') | KeyCode::Enter => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
