//! What sandboxes start from.
//!
//! A [`Template`] is an immutable image of memory and the state of a machine. One that is made of a
//! file stands at the guest's entry. One that is made of a sandbox stands where that was parked: its
//! initialisation is done. Its memory lies in a file that nobody can change any more, and each sandbox
//! that is made of it copies the pages that it writes.
//!
//! A template carries no rights: the policy, the functions, the limits, the standard streams, the
//! arguments and the environment are each sandbox's own ([`Builder`](crate::Builder)).
//!
//! # What is in flight
//!
//! A sandbox is taken at a quiet point: its guest sleeps, and nothing is under way that will end by
//! itself at once. Timers, reads of standard input and waiting for calls go on in whoever is made of the
//! template; the monotonic clock goes on where it stood, the wall clock is right at once, and a timer
//! that is overdue fires once. Whatever else is open or in flight does not exist in another sandbox:
//! either the template is refused for it, or there it ends with
//! [`Status::Restored`](wakebox_abi::status::Status::Restored) ([`Open`]). A handle of the former
//! sandbox is dead and is never given out again.

#[cfg(feature = "template-file")]
pub(crate) mod file;
pub(crate) mod requests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wakebox_abi::entry::Token;
use wakebox_abi::op::Request;
use wakebox_abi::wake::Mode;
use wakebox_vmm::frozen::Frozen;
use wakebox_vmm::machine::MachineState;

#[cfg(feature = "template-file")]
pub use self::file::{FileInfo, FileOptions, FilePart};
use crate::debug::symbols::Symbols;
use crate::driver::Stood;
use crate::error::{Error, Result};
use crate::loader::Image;

/// What sandboxes start from. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Template(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where the guest came from, if that is known.
    name: Option<String>,
    image: Image,
    /// Those that it was made with.
    symbols: Option<Arc<Symbols>>,
    /// `None` at the entry.
    stand: Option<Stand>,
}

/// How a guest was left that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It rang to wait: it looks around when it is entered.
    Wait,
    /// It halted, and wants an interrupt.
    Halt,
}

/// Where a sandbox stood.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) memory: Frozen,
    pub(crate) machine: MachineState,
    pub(crate) left: Left,
    /// How each further processor was left; `None` if it had not begun.
    pub(crate) others: Box<[Option<Left>]>,
    pub(crate) mode: Mode,
    /// Whether the guest tells the time by itself.
    pub(crate) has_counter: bool,
    /// What its monotonic clock showed.
    pub(crate) elapsed: Duration,
    pub(crate) driver: DriverStand,
}

/// Where the host's side of a sandbox stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DriverStand {
    /// Where the rings of each processor stood.
    pub(crate) rings: Vec<Stood>,
    /// What was in flight.
    pub(crate) in_flight: Vec<(Token, Request)>,
    /// By index, how often each place of the handle table has been used.
    pub(crate) handles: Vec<u32>,
    /// The number of the next call.
    pub(crate) next_call: u64,
}

/// What is known of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Where the guest came from: a path, if it was read from a file.
    pub guest: Option<String>,
    /// Where its sandboxes begin.
    pub at: Position,
}

/// Where the sandboxes of a template begin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// At the guest's entry.
    Entry,
    /// Where a sandbox was parked.
    Parked {
        /// Bytes of RAM.
        ram: u64,
        /// Bytes of it that are not zeroes: what the template holds.
        held: u64,
        /// How its sandboxes sleep and are woken.
        mode: Mode,
        /// Operations that were in flight.
        in_flight: usize,
        /// What the guest's monotonic clock shows.
        elapsed: Duration,
    },
}

/// What becomes of what is open and cannot go on in another sandbox: sockets, files, listeners, calls of
/// host functions, and calls of the guest's functions that are not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Open {
    /// There is no template while any is ([`SnapshotError::Open`]).
    #[default]
    Refuse,
    /// It ends in the sandboxes that are made of the template: operations on it with
    /// [`Status::Restored`](wakebox_abi::status::Status::Restored).
    End,
}

/// When a template is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// As soon as the guest is parked.
    #[default]
    Parked,
    /// When the guest says so: it awaits `wakebox_guest::snapshot()`.
    GuestAsks,
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// This is open.
    #[error(
        "what is open would not exist in a copy of the sandbox: {0} (ask for `Open::End` to have it end \
         there)"
    )]
    Open(OpenList),
    /// The sandbox has ended, was never started, or its run was dropped.
    #[error("the sandbox does not run any more")]
    Ended,
    /// The host could not do its part.
    #[error(transparent)]
    Host(#[from] Error),
}

/// What is open, in words, each with how many there are of it. Shown as a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenList(pub Vec<(&'static str, usize)>);

impl fmt::Display for OpenList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (what, count)) in self.0.iter().enumerate() {
            let before = if at > 0 { ", " } else { "" };
            write!(f, "{before}{what} ({count})")?;
        }
        Ok(())
    }
}

impl Template {
    /// A template that stands at the entry of the guest in a file.
    ///
    /// # Errors
    ///
    /// As [`Image::from_path`].
    pub fn from_elf(path: impl AsRef<Path>) -> Result<Self> {
        let name = path.as_ref().display().to_string();
        Ok(Self::at_entry(Some(name), Image::from_path(path)?))
    }

    /// One that stands at the entry of a guest.
    pub(crate) fn at_entry(name: Option<String>, image: Image) -> Self {
        Self(Arc::new(Inner {
            name,
            image,
            symbols: None,
            stand: None,
        }))
    }

    /// One that stands where a sandbox stood.
    pub(crate) fn standing(
        name: Option<String>,
        image: Image,
        symbols: Arc<Symbols>,
        stand: Stand,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            image,
            symbols: Some(symbols),
            stand: Some(stand),
        }))
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> Info {
        let at = self
            .0
            .stand
            .as_ref()
            .map_or(Position::Entry, |stand| Position::Parked {
                ram: stand.memory.plan().ram,
                held: stand.memory.kept(),
                mode: stand.mode,
                in_flight: stand.driver.in_flight.len(),
                elapsed: stand.elapsed,
            });
        Info {
            guest: self.0.name.clone(),
            at,
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    pub(crate) fn image(&self) -> &Image {
        &self.0.image
    }

    pub(crate) fn symbols(&self) -> Option<&Arc<Symbols>> {
        self.0.symbols.as_ref()
    }

    pub(crate) fn stand(&self) -> Option<&Stand> {
        self.0.stand.as_ref()
    }
}
