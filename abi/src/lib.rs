//! What a Wakebox host and its guests agree on, and nothing else.
//!
//! The crate is `no_std`, allocates nothing, depends on nothing and decides
//! nothing: it says where things lie in guest memory ([`layout`]), what the host
//! tells a guest at start ([`boot`]), how requests and completions travel
//! ([`ring`], [`entry`], [`op`], [`status`]), how either side gets the other's
//! attention ([`port`], [`wake`], [`upcall`]), how a guest says its last words ([`report`]) and how
//! it tells what it does ([`trace`]). A guest may be written against this crate alone.
//!
//! # Trust
//!
//! Everything a guest writes is an allegation to the host. The types here make
//! the check the natural thing to do: entries are read out of shared memory once,
//! as plain words, and parsed from that copy; ring indices are validated against
//! the ring's size by [`ring::Consumer`] and [`ring::Producer`] themselves.
//!
//! # Changing something here
//!
//! Sizes and offsets are asserted at compile time. If an assertion fails, what you
//! changed is part of the binary interface: raise [`ABI_VERSION`] in the same commit.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]
#![no_std]
#![forbid(clippy::indexing_slicing)]

#[cfg(test)]
extern crate std;

pub mod boot;
pub mod entry;
pub mod file;
pub mod heap;
pub mod layout;
pub mod memory;
pub mod note;
pub mod op;
pub mod port;
pub mod queue;
pub mod report;
pub mod ring;
pub mod status;
pub mod task;
pub mod trace;
pub mod upcall;
pub mod wake;
pub mod window;

/// The version of this interface.
///
/// A guest carries the version that it was built for in its ELF note
/// ([`note::Note`]); a host runs those from [`ABI_OLDEST`] to this one.
pub const ABI_VERSION: u32 = 4;

/// The oldest version whose guests this one runs: since then, nothing was changed that such a guest would see.
pub const ABI_OLDEST: u32 = 3;
