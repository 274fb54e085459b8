//! Runs untrusted async Rust in a micro-VM, and wakes its futures across the boundary.
//!
//! A [`Sandbox`] is a virtual machine without kernel, devices or boot. Its guest is an
//! ordinary cargo crate with `#[wakebox_guest::main]`; what its futures ask for travels
//! through a ring in shared memory, the host does it asynchronously, and the completion wakes
//! exactly the future that waits for it. To the host, a running sandbox is one future among
//! others: [`Sandbox::run`].
//!
//! ```no_run
//! use wakebox::{Output, Policy, Sandbox};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut sandbox = Sandbox::builder()
//!     .guest("target/release/hello")
//!     .memory(32 << 20)
//!     .args(["world"])
//!     .policy(Policy::new().allow_connect("api.example.com:443".parse()?))
//!     .stdout(Output::Inherit)
//!     .build()?;
//! let outcome = sandbox.run().await?;
//! println!("{outcome}");
//! # Ok(())
//! # }
//! ```
//!
//! # What tells of a run
//!
//! | what | tells | whom |
//! |---|---|---|
//! | [`Outcome`] | how a run ended, once | whoever awaits [`Sandbox::run`] |
//! | [`Stats`] | how much there was of what, in numbers, at any time | whoever asks a [`Handle`] |
//! | [`telemetry`] | spans, events and counters of all sandboxes | the embedder's subscribers and recorders |
//! | [`trace`] | every event of one run on both sides, in its order | [`Builder::trace`]'s sinks |
//! | [`Backtrace`], [`CrashDump`] (`debug/`) | where a guest was when it ended | a person who looks for a mistake |
//! | `meter.rs` | what is used of a limit; it tells nobody, it refuses | operations |
//!
//! # What a guest can do
//!
//! Nothing, unless [`Policy`] grants it. What it does wrong ends its own sandbox with an
//! [`Outcome`] that says what and where; an [`Error`] is what the host could not do.
//!
//! # What the host may run out of
//!
//! Descriptors, guest memory, threads and virtual machines that the kernel refuses are an [`Error`]
//! that names the limit, from [`Builder::build`] or [`Sandbox::run`]; of an operation in a guest,
//! a status in that guest. Other sandboxes go on. The small structures of this library come from
//! the global allocator, which ends the process where it has nothing left, as everywhere in Rust:
//! leave the process some memory beyond what its guests get and what they may make it keep
//! ([`Limits::host_memory`]).
//!
//! # Threads and signals
//!
//! The process is the embedder's. What this library has in it:
//!
//! | what | when |
//! |---|---|
//! | the thread that polls a sandbox, for a quantum at most ([`Builder::quantum`]) | while its guest computes; a parked guest holds none |
//! | a thread `wakebox-tick`, which ends quanta | from the first sandbox on; asleep while no guest computes |
//! | a thread `wakebox-driver` for four processors, at least one, and those of its Tokio runtime for blocking calls | from the first sandbox with wake mode `poll` or `auto` on, and the next when each has one |
//! | threads of the kernel (`iou-wrk-`), which move bytes between files and guest memory, and a thread `wakebox-io` that waits for them at the end of a sandbox | if a guest waits for files and io_uring may be used ([`Builder::io`]) |
//! | a thread `wakebox-trace` a sandbox | if somebody watches it ([`Builder::trace`]): sinks are called and dropped there |
//! | two descriptors a sandbox, those of its sockets, files and granted directories, of its ring of io_uring if it has one, `/dev/kvm`, and a reactor's | as long as they are there |
//! | an empty handler for `SIGSTKFLT`, by which a guest is interrupted | from the first sandbox on; set again if it has gone. Linux has no other use for this signal |
//!
//! The library's threads hold back all signals but those that a thread brings upon itself: handlers run
//! on threads of the embedder's. A thread's signal mask is its owner's: guests are interrupted
//! whatever signals are blocked, and how many may be pending. A write beyond `RLIMIT_FSIZE`, or to a
//! pipe or a connection that nobody reads, is an error in the guest, and brings no `SIGXFSZ` and no
//! `SIGPIPE`.
//!
//! Host functions, their futures, streams, arguments and results, [`Builder::state`], and readers and
//! writers ([`Input::reader`], [`Output::writer`]) live in tasks of the runtime in which the sandbox
//! runs: they are called, polled and dropped by its threads (a message of more than 64 KiB is read, and
//! its function called, on one for blocking calls) and under no lock of the library. They may call any
//! guest, this one too, and use `spawn_blocking` and, where the runtime has several threads,
//! `block_in_place`. What blocks without that holds up its own runtime and nobody else's. A panic in
//! any of them, in a destructor too, ends that call with an error in the guest, and nothing else; a
//! panic in a destructor that runs because of another panic aborts the process, as everywhere in Rust.
//! When a guest, or its call, has ended, its tasks are aborted: what is in them is dropped soon after,
//! not before [`Sandbox::run`] returns.
//!
//! Wakers of whoever waits for a guest are woken on the library's threads, under no lock. Subscribers of
//! `tracing` and recorders of `metrics` are called where something happens, on the library's threads and
//! under the lock of a sandbox's driver too. They may call the library, guests too, but not wait there
//! for what a guest does. One that blocks holds up those whose events it is told on that thread: a
//! runtime's, or in the modes `poll` and `auto` all sandboxes that run so in the process; they go on when
//! it does. A panic in one ends the sandbox whose event it was told with
//! [`Violation::HostPanicked`].
//!
//! After `fork`, a child can build sandboxes of its own; those of its parent give
//! [`Error::Forked`] there, and are not to be called or dropped. A Tokio runtime does not survive a
//! `fork` either.
//!
//! # Where to look
//!
//! `sandbox/` is the life of one; the crate `wakebox-vmm` the machine; `loader.rs` what is a guest;
//! `driver/` who takes submissions and wakes; `ops/` one file a kind of operation; `trace/` what
//! can be seen of all that; [`telemetry`] what an embedder's tools see;
//! `wakebox_abi::wake` the argument why no wake-up is lost.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod account;
mod allowance;
mod arena;
mod calls;
mod debug;
mod driver;
mod elf;
mod embedded;
mod error;
mod interned;
#[cfg(feature = "jail")]
pub mod jail;
mod later;
mod limits;
mod loader;
mod meter;
mod names;
mod observe;
mod ops;
mod outcome;
mod outside;
pub mod policy;
mod pool;
mod primitives;
pub mod probe;
#[cfg(any(test, feature = "proof"))]
#[doc(hidden)]
pub mod proof;
mod pulse;
mod sandbox;
mod signals;
mod stats;
mod status;
mod stdio;
mod stop;
mod tasks;
pub mod telemetry;
pub mod template;
mod text;
pub mod trace;

pub use calls::HostFunctions;
pub use calls::given::GivenStream;
pub use calls::guest::{CallError, Caller, GuestEnd, GuestStream, Mismatch};
pub use calls::host::HostContext;
pub use calls::resources::Resources;
pub use debug::backtrace::{Backtrace, Frame, location};
pub use debug::dump::CrashDump;
#[cfg(feature = "gdb")]
pub use debug::gdb::{Gdb, GdbListener};
pub use error::{Error, LoadError, LostOutput, Result, TemplateFileError};
pub use limits::{InvalidLimit, LimitKind, Limits};
pub use loader::{Image, Segment};
pub use ops::uring::Io;
pub use outcome::{
    Cause, Change, ExceptionFrame, Fault, FaultKind, Instruction, Limit, Outcome, Panic, Registers,
    Shutdown, Stack, Violation,
};
pub use policy::Policy;
pub use pool::{Pool, PoolBuilder};
pub use pulse::Pulse;
pub use sandbox::{Allocation, Builder, Guest, Handle, Room, Running, Sandbox};

/// A [`Handle`], by its former name.
#[deprecated = "it is `Handle` now"]
pub type KillHandle = Handle;

pub use stats::{Exits, GuestCounts, Stats};
pub use stdio::{Captured, Input, Output};
pub use tasks::{LockHolder, Task, Waits};
pub use template::Template;
pub use text::printable_line;
pub use wakebox_abi::ring::Ring;
pub use wakebox_abi::wake::Mode as WakeMode;
pub use wakebox_trace::units;
pub use wakebox_vmm::machines::Machines;
