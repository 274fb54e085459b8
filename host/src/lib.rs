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
//! leave the process some memory beyond what its guests get.
//!
//! # Threads and signals
//!
//! A computing guest occupies the thread that polls it for at most a quantum
//! ([`Builder::quantum`]); a parked one occupies none. The process gets a thread
//! `wakebox-tick` that ends quanta, a thread `wakebox-driver` if a sandbox uses wake mode `poll`
//! or `auto`, and an empty handler for the real-time signal `SIGRTMIN+4`, by which a guest
//! is interrupted.
//!
//! # Where to look
//!
//! `sandbox.rs` is the life of one; `vm/` the machine; `loader.rs` what is a guest;
//! `driver/` who takes submissions and wakes; `ops/` one file a kind of operation; `trace/` what
//! can be seen of all that; [`telemetry`] what an embedder's tools see;
//! `wakebox_abi::wake` the argument why no wake-up is lost.

mod account;
mod allowance;
mod calls;
mod debug;
mod driver;
mod error;
mod interned;
#[cfg(feature = "jail")]
pub mod jail;
mod limits;
mod loader;
mod meter;
mod ops;
pub mod policy;
mod primitives;
pub mod probe;
#[cfg(any(test, feature = "proof"))]
#[doc(hidden)]
pub mod proof;
mod report;
mod running;
mod sandbox;
mod signals;
mod stats;
mod stdio;
mod stop;
pub mod telemetry;
pub mod trace;
mod tree;
pub mod units;
mod vm;

pub use calls::guest::{CallError, Caller};
pub use calls::host::HostContext;
pub use debug::backtrace::{Backtrace, Frame, location};
pub use debug::dump::CrashDump;
pub use error::{Error, Result};
pub use limits::{InvalidLimit, LimitKind, Limits};
pub use loader::{Image, LoadError, Segment};
pub use policy::Policy;
pub use report::{
    Cause, Change, ExceptionFrame, Fault, FaultKind, Instruction, Limit, Outcome, Panic, Registers,
    Shutdown, Stack, printable_line,
};
pub use running::Running;
pub use sandbox::{Builder, Guest, KillHandle, Sandbox};
pub use stats::{Exits, GuestCounts, Stats};
pub use stdio::{Captured, Input, Output};
pub use wakebox_abi::wake::Mode as WakeMode;
