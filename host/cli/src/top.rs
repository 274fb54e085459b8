//! `wakebox top`: the tasks of a running guest, on the whole terminal.

mod board;
mod picture;
mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use self::board::Board;
pub use self::picture::Picture;
use self::view::{Rates, View};
use super::refusals;
use super::run::{SandboxArgs, Stdout, conclude, run_until};
use super::signals;
use wakebox::printable_line;
use wakebox::trace::Shared;
use wakebox::{Outcome, Output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q, Esc or Ctrl-C ends the guest and the command; arrows scroll; s sorts by another column. \
The guest's standard input is empty.")]
pub(super) struct Args {
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// Arguments of the guest: the first one that is no option, and all behind it or behind `--`
    #[arg(
        trailing_var_arg = true,
        value_name = "ARGS",
        help_heading = None
    )]
    args: Vec<String>,
}

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(100);

pub(super) fn run(mut args: Args) -> Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "`wakebox top` draws on a terminal, and here is none; `wakebox explain` writes to \
             anything, `wakebox run --stats` prints the sums"
        );
    }
    args.sandbox.settle()?;
    args.sandbox.keep_terminal();
    let mut wishes = args.sandbox.wishes(Stdout::Taken("the screen"))?;
    let (board, tail) = (Shared::new(Board::default()), Tail::default());
    let builder = args
        .sandbox
        .into_jailed_builder(&mut wishes)?
        .args(args.args)
        .stdout(Output::writer(tail.clone()))
        .stderr(Output::writer(tail.clone()))
        .trace(board.clone());
    let quit = Arc::new(Quit::default());
    quit_at_signals(quit.clone())?;

    // Told when the screen is the shell's again.
    refusals::listen();
    let screen = Screen::open()?;
    let (ended, painted) = std::thread::scope(|scope| {
        let painter = std::thread::Builder::new()
            .name("wakebox-top".into())
            .spawn_scoped(scope, || paint(screen, &board, &tail, &quit))?;
        let stop = quit.clone();
        let ended = run_until(builder, async move { stop.asked_for().await });
        // A run that could not begin leaves nothing to look at.
        if ended.is_err() {
            quit.please();
        }
        // Else it stays on the screen until somebody has seen enough.
        let painted = painter
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        anyhow::Ok((ended, painted))
    })?;
    let (sandbox, outcome) = ended?;
    painted?;
    if matches!(outcome, Outcome::Cancelled) {
        return Ok(ExitCode::SUCCESS);
    }
    conclude(&mut wishes, &outcome, &sandbox)
}

/// The terminal as a screen. It is what it was before when this goes, and after a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Somebody has seen enough.
#[derive(Default)]
struct Quit {
    asked: AtomicBool,
    notify: Notify,
}

impl Quit {
    fn please(&self) {
        self.asked.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Waits for that.
    async fn asked_for(&self) {
        self.notify.notified().await;
    }
}

/// Quits at the signals that end programs, so that the terminal is given back. As long as the
/// process lives, since the screen may stay when the guest has ended.
fn quit_at_signals(quit: Arc<Quit>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    std::thread::Builder::new()
        .name("wakebox-signals".into())
        .spawn(move || {
            runtime.block_on(signals::first());
            quit.please();
        })
        .map(drop)
}

/// Draws until somebody has seen enough.
fn paint(mut screen: Screen, board: &Shared<Board>, tail: &Tail, quit: &Quit) -> io::Result<()> {
    /// Without a picture, the guest does not go on either.
    struct Leaves<'a>(&'a Quit);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.please();
        }
    }
    let _leaves = Leaves(quit);
    let mut view = View::default();
    let mut rates = Rates::default();
    let began = Instant::now();
    while !quit.asked.load(Ordering::Acquire) {
        board.with(|board| {
            rates.update(began.elapsed(), board);
            screen
                .0
                .draw(|frame| view.draw(frame, board, &rates, &tail.lines()))
                .map(|_| ())
        })?;
        if !event::poll(FRAME)? {
            continue;
        }
        // A new size is drawn at the next turn.
        if let event::Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            if is_quit(key) {
                break;
            }
            match key.code {
                KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
                KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
                KeyCode::PageUp => view.scroll(-10),
                KeyCode::PageDown => view.scroll(10),
                KeyCode::Char('s') => view.sort_otherwise(),
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_quit(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || control && key.code == KeyCode::Char('c')
}

/// The last lines that the guest has printed, fit for a terminal.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    whole: VecDeque<String>,
    /// What has no end yet.
    begun: Vec<u8>,
}

impl Tail {
    /// Lines kept, and bytes of one.
    const LINES: usize = 100;
    const LINE: usize = 1_000;

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lock();
        let begun = (!lines.begun.is_empty()).then(|| text(&lines.begun));
        lines.whole.iter().cloned().chain(begun).collect()
    }
}

fn text(line: &[u8]) -> String {
    printable_line(&String::from_utf8_lossy(line))
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = text(&std::mem::take(&mut self.begun));
                self.whole.push_back(line);
                if self.whole.len() > Tail::LINES {
                    self.whole.pop_front();
                }
            } else if self.begun.len() < Tail::LINE {
                self.begun.push(*byte);
            }
        }
    }
}

impl AsyncWrite for Tail {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
