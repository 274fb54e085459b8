//! The demos, and what each needs.

use anyhow::{Result, bail};

/// A guest program that shows something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo {
    pub(crate) name: &'static str,
    /// What it shows, in one line.
    pub(crate) shows: &'static str,
    /// What `wakebox run` must be told.
    pub(crate) options: &'static [&'static str],
    /// Whether exits, wakes and polls are the point of it.
    pub(crate) stats: bool,
}

/// Where the echo server listens.
pub(crate) const ECHO_ADDRESS: &str = "127.0.0.1:7777";

/// Run when none is named.
pub(crate) const DEFAULT: &str = "concurrent";

pub(crate) const DEMOS: [Demo; 6] = [
    Demo {
        name: "sequential",
        shows: "five waits, one after another: the time is their sum",
        options: &[],
        stats: true,
    },
    Demo {
        name: DEFAULT,
        shows: "the same five waits, all at once: the time is that of the longest",
        options: &[],
        stats: true,
    },
    Demo {
        name: "greet",
        shows: "a question with a time limit, while another task counts down",
        options: &[],
        stats: false,
    },
    Demo {
        name: "echo",
        shows: "a TCP echo server for hundreds of clients; `-- --selftest` is one such client",
        options: &["--allow-listen", ECHO_ADDRESS],
        stats: false,
    },
    Demo {
        name: "pipeline",
        shows: "producers, a bounded channel, consumers, a select and a cancellation",
        options: &[],
        stats: true,
    },
    Demo {
        name: "storm",
        shows: "100,000 tasks and 1,000,000 operations of the host, and how few exits they take",
        options: &[],
        stats: true,
    },
];

/// The demo of a name.
///
/// # Errors
///
/// If there is none; the error lists those that there are.
pub(crate) fn find(name: &str) -> Result<Demo> {
    match DEMOS.into_iter().find(|demo| demo.name == name) {
        Some(demo) => Ok(demo),
        None => bail!("there is no demo `{name}`. There are:\n{}", list()),
    }
}

/// All demos with what they show, a line each.
pub(crate) fn list() -> String {
    DEMOS
        .iter()
        .map(|demo| format!("  {:<12} {}\n", demo.name, demo.shows))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_demo_is_answered_with_the_known_ones() {
        let error = find("nonesuch").unwrap_err().to_string();
        for demo in DEMOS {
            assert!(error.contains(demo.name), "{error}");
        }
    }

    #[test]
    fn the_default_is_one_of_them() {
        assert!(find(DEFAULT).is_ok());
    }
}
