//! The screen without a terminal: what it shows, as text.

use std::io;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use wakebox::trace::{Event, Sink};

use super::board::Board;
use super::view::{Rates, View};

/// What `wakebox top` would show of a run that it watches.
#[derive(Debug)]
pub struct Picture {
    board: Board,
    view: View,
    terminal: Terminal<TestBackend>,
}

impl Picture {
    /// Of so many columns and lines.
    ///
    /// # Errors
    ///
    /// The terminal in memory cannot be made.
    pub fn new(columns: u16, lines: u16) -> io::Result<Self> {
        let terminal = Terminal::new(TestBackend::new(columns, lines)).map_err(io::Error::other)?;
        Ok(Self {
            board: Board::default(),
            view: View::default(),
            terminal,
        })
    }

    /// Draws it as it is now, and sorts by another column the next time. Gives all that is on it.
    ///
    /// # Errors
    ///
    /// It cannot be drawn.
    pub fn draw(&mut self) -> io::Result<String> {
        let Self {
            board,
            view,
            terminal,
        } = self;
        let rates = Rates::default();
        let drawn = terminal
            .draw(|frame| view.draw(frame, board, &rates, &[]))
            .map_err(io::Error::other)?;
        view.sort_otherwise();
        Ok(drawn.buffer.content().iter().map(Cell::symbol).collect())
    }
}

impl Sink for Picture {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.board.event(event)
    }

    fn end(&mut self) -> io::Result<()> {
        self.board.end()
    }
}
