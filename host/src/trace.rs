//! What happens in a run, event by event, on both sides of the boundary: the crate `wakebox-trace`.
//!
//! A guest that is watched writes records into a ring in shared memory
//! ([`wakebox_abi::trace`]); the host writes down what it does itself; both are merged in the order
//! of their times and given to a [`Sink`]. [`json`] writes them to a file and reads them back.
//!
//! ```no_run
//! use wakebox::Sandbox;
//! use wakebox::trace::{EventKind, Recording};
//!
//! # async fn example() -> Result<(), wakebox::Error> {
//! let recording = Recording::new();
//! let mut sandbox = Sandbox::builder()
//!     .guest("target/release/hello")
//!     .trace(recording.clone())
//!     .build()?;
//! sandbox.run().await?;
//! for event in recording.events() {
//!     println!("{:>12} ns {}", event.time, event.kind.name());
//! }
//! # Ok(())
//! # }
//! ```

pub use wakebox_trace::*;

/// Records and events that may wait for a sink before the guest is made to wait as well.
pub const BACKLOG: u32 = 1 << 20;

/// Slots of the guest's trace ring, unless it is said: enough for 5 million records a second and
/// a host thread that comes 20 ms late.
pub const RECORDS: u32 = 1 << 17;
