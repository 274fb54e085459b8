//! How a run is watched: what the host does and what the guest writes down become the events of
//! [`crate::trace`].

mod assembler;
mod clock;
mod drain;
mod exit;
mod operations;
mod recorder;
#[cfg(test)]
mod tests;

pub(crate) use self::drain::Drain;
pub(crate) use self::exit::exit_reason;
pub(crate) use self::operations::{Observer, OpCounts};
pub(crate) use self::recorder::{Recorder, Sinks, Tracing};
