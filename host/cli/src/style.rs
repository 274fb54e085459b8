//! Colours, on a terminal and nowhere else, unless it is wished otherwise.

use std::io::IsTerminal;
use std::sync::OnceLock;

/// All that [`Style`] adds to a text.
pub(super) const CODES: [&str; 8] = [
    "\x1b[0m",
    "\x1b[1m",
    "\x1b[1;31m",
    "\x1b[2m",
    "\x1b[31m",
    "\x1b[32m",
    "\x1b[33m",
    "\x1b[36m",
];

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum When {
    /// On a terminal, unless `NO_COLOR` or `TERM` says otherwise
    #[default]
    Auto,
    /// Wherever it goes
    Always,
    /// Nowhere
    Never,
}

/// What was wished on the command line; once, before anything is said.
static WISH: OnceLock<When> = OnceLock::new();

/// Settles when to colour.
pub(super) fn settle(when: When) {
    // It is said once on a command line.
    let _ = WISH.set(when);
}

/// Whether and how to colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colours: bool,
}

impl Style {
    /// For standard error.
    pub(super) fn of_stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    /// For standard output.
    pub(super) fn of_stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// For what is no terminal.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { colours: false }
    }

    /// <https://no-color.org>: any value but the empty one says no.
    fn of(terminal: bool) -> Self {
        match WISH.get() {
            Some(When::Always) => return Self { colours: true },
            Some(When::Never) => return Self { colours: false },
            _ => {}
        }
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colours: terminal && !refused && !dumb,
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours {
            let painted = format!("\x1b[{code}m{text}\x1b[0m");
            debug_assert!(CODES.iter().any(|known| painted.starts_with(known)));
            painted
        } else {
            text.to_owned()
        }
    }

    pub(super) fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What the guest does.
    pub(super) fn guest(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// What crosses the boundary.
    pub(super) fn boundary(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}
