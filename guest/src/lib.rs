//! The runtime of a Wakebox guest: entry, executor, reactor, time, console, network.
//!
//! A guest is an ordinary binary crate that is built with plain `cargo build`:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use wakebox_guest::println;
//! use wakebox_guest::time::{Duration, sleep};
//!
//! #[wakebox_guest::main]
//! async fn main() {
//!     sleep(Duration::from_secs(1)).await;
//!     println!("hello from ring 3");
//! }
//! ```
//!
//! It runs on one virtual processor (or several, with the feature `processors`), in ring 3, without a kernel beneath. Whatever it
//! awaits that is not another of its own tasks goes to the host through a ring in shared
//! memory, and the completion wakes exactly that task.
//!
//! # What is where
//!
//! | module | what it has |
//! |---|---|
//! | [`task`] | [`spawn`], join handles, [`yield_now`](task::yield_now), [`block_on`](task::block_on) |
//! | [`sync`] | a lock that tells who holds it |
//! | [`time`] | [`sleep`](time::sleep), [`timeout`](time::timeout), [`interval`](time::interval), clocks |
//! | [`io`] | buffers, errors, standard input; [`println!`] and its kin |
//! | [`net`] | TCP, UDP, Unix sockets, names |
//! | [`fs`] | files and directories |
//! | `interrupt` | with the feature of that name: tasks that interrupt others |
//! | `processor` | with the feature `processors`: tasks on several processors |
//! | [`host`], [`serve`] | calls of functions of the embedding program, and by it |
//! | [`snapshot`], [`restored`], [`on_restore`] | templates, and what follows from them |
//! | [`mod@env`], [`process`], [`random`], [`ops`] | arguments, the end, randomness, the rest |
//!
//! # Templates
//!
//! A sandbox may be made of a template instead of an executable: of the memory of another that had done
//! its initialisation. Its guest goes on where that one slept. Arguments, environment and randomness
//! are its own from the first moment; [`on_restore`] and [`restored`] are for a program that keeps
//! something else which must not be the same in two sandboxes, and [`random`] says what that may be.
//! [`snapshot`] says where a template is to be taken.
//!
//! Any `no_std` crate that is made of futures works beside it: `futures`, `futures-lite`,
//! `async-channel`, `async-lock`, `embassy-sync`.
//!
//! # Tests of library code
//!
//! What only a guest may define stands in the expansion of [`main`], so a library that
//! uses this crate is tested with `cargo test` on the host. Functions that need a running
//! guest panic there, except for printing, which is ignored.
//!
//! # Features
//!
//! - `calls` (default): calls of host functions ([`host`]) and exported functions ([`serve`]).
//! - `json` (default): exported functions can be called with JSON, as `wakebox call` does.
//! - `log` (default): a logger for the `log` crate, on standard error; the level is that
//!   of the variable `WAKEBOX_LOG` or `RUST_LOG`, else info.
//! - `critical-section` (default): the critical section that embassy-sync and others want.
//! - `trace` (default): the guest can be watched (`wakebox run --trace`); costs a load and a branch where
//!   something happens while nobody does.
//! - `stream` (default): `futures_core::Stream` for [`Interval`](time::Interval),
//!   [`Lines`](io::Lines), [`TcpListener::incoming`](net::TcpListener::incoming).
//! - `embedded-io-async`: its `Read` and `Write` for [`net::TcpStream`], its halves and
//!   [standard input](io::stdin), `BufRead` for `TcpStream` and, by `io::BufReader`, for the rest.
//! - `embedded-nal-async`: its `TcpConnect` and `Dns`, as `net::Stack`.
//! - `edge-nal`: its TCP traits, `Dns` and `Readable`, as `net::Stack`, `TcpListener` and `TcpStream`. That
//!   crate wants `embassy-time`, so the feature of that name is wanted, too, if a time-out is used.
//! - `embassy-executor`: an executor of that crate in a task (`embassy::start`), for code that is made of its tasks.
//! - `embassy-time`: the clock and timers of `embassy-time`. Choose the tick rate by a feature of
//!   that crate, as in `embassy-time = { version = "0.5", features = ["tick-hz-1_000_000"] }`; that
//!   one is also the default. A wake-up that was asked for and is no longer wanted stays until it
//!   is due, one for each task at most; [`time`] leaves nothing behind.
//! - `getrandom`: a back end for `getrandom` 0.3 and 0.4, and so for `rand` and its kin. That crate takes it only with `--cfg getrandom_backend="custom"`, so put this into `.cargo/config.toml`:
//!
//!   ```toml
//!   [build]
//!   rustflags = ['--cfg', 'getrandom_backend="custom"']
//!   ```
//!
//!   The bytes are those of a ChaCha20 generator, seeded with [`random::seed`], which is a secret
//!   then: it is seeded again only when the sandbox is restored from a template, with the seed of then
//!   and with its own next bytes, so whoever knows the seeds knows all bytes, also those that came
//!   before. [`random::fill`] asks the host each time.
//! - `getrandom-02`: the same bytes for `getrandom` 0.2, which asks Linux whatever it is told, and so for `ring` and
//!   `rand_core` 0.6: the guest has the C library's functions that it calls for that (`syscall` and a few others), and needs no `--cfg`.
//! - `interrupt`: urgent tasks (`interrupt::spawn`), which interrupt what computes. Costs two loads and a
//!   store at each allocation and each call of the runtime.
//! - `processors`: several processors (`processor`). Costs a lock at each allocation; not together with `interrupt`.
//! - `picoserve`: sockets and the clock for that HTTP server, in `net::picoserve`.
//!
//! The traits of `futures-io` need `std`, because their errors do.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]
#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[cfg(feature = "embassy-time")]
mod alarms;
mod buf;
mod c_library;
#[cfg(feature = "getrandom-02")]
mod c_random;
mod c_symbols;
mod console;
mod elsewhere;
mod entry;
mod executor;
#[cfg(feature = "calls")]
mod export;
#[cfg(feature = "calls")]
mod format;
#[cfg(any(feature = "getrandom", feature = "getrandom-02"))]
mod generator;
mod heap;
mod idle;
#[cfg(any(feature = "processors", feature = "interrupt", test))]
mod joint;
#[cfg(all(feature = "trace", not(test)))]
mod large;
#[cfg(any(feature = "processors", test))]
mod lock;
#[cfg(feature = "log")]
mod logger;
#[cfg_attr(test, path = "machine/fake.rs")]
mod machine;
mod mask;
mod op;
mod panic;
mod reactor;
mod restore;
mod runtime;
mod several;
mod stats;
#[cfg(test)]
mod tests;
#[cfg(feature = "embassy-time")]
mod time_driver;
mod timers;
mod told;
mod trace;
mod turns;
mod wait_queue;
#[cfg(any(feature = "processors", feature = "interrupt", test))]
mod word;

#[cfg(feature = "embassy-executor")]
pub mod embassy;
pub mod env;
pub mod fs;
#[cfg(feature = "calls")]
pub mod host;
#[cfg(all(feature = "interrupt", not(test)))]
pub mod interrupt;
pub mod io;
pub mod net;
pub mod ops;
pub mod process;
#[cfg(any(feature = "processors", test))]
pub mod processor;
pub mod random;
pub mod sync;
pub mod task;
pub mod time;
#[cfg(not(test))]
pub mod window;

#[cfg(feature = "calls")]
pub use self::export::{Call, CallItems, CallResult, Functions, serve, serve_with};
#[cfg(feature = "calls")]
pub use self::format::{Format, Unread};
pub use self::restore::{Restored, Snapshot, on_restore, restored, snapshot};
pub use self::stats::{Stats, stats};
pub use self::task::spawn;
#[cfg(feature = "calls")]
pub use wakebox_guest_macros::export;
pub use wakebox_guest_macros::main;

/// What the macros need. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::c_library::{allocate, allocate_zeroed, reallocate, release, stack_is_smashed};
    #[cfg(feature = "getrandom-02")]
    pub use crate::c_random::{UNKNOWN as UNKNOWN_CALL, random as random_call};
    pub use crate::console::print;
    #[cfg(feature = "embassy-executor")]
    pub use crate::embassy::pend;
    #[cfg(feature = "critical-section")]
    pub use crate::entry::SingleCore;
    pub use crate::entry::start;
    #[cfg(feature = "calls")]
    pub use crate::export::{Export, Exported, ExportedStream};
    #[cfg(feature = "getrandom")]
    pub use crate::generator::fill as fill_random;
    pub use crate::heap::Heap;
    pub use crate::panic::panic;
    #[cfg(feature = "embassy-time")]
    pub use crate::time_driver::TimeDriver;
    #[cfg(feature = "critical-section")]
    pub use critical_section;
    #[cfg(feature = "embassy-time")]
    pub use embassy_time_driver;
    #[cfg(feature = "getrandom")]
    pub use getrandom;
    pub use wakebox_abi::note::Note;
    pub use wakebox_abi::op::Stream;
}
