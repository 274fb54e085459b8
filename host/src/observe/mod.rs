//! How a run is watched: what the host does and what the guest writes down become the events of
//! [`crate::trace`].

mod assembler;
mod exit;
mod operations;
mod recorder;

pub(crate) use self::exit::exit_reason;
pub(crate) use self::operations::{Observer, OpCounts};
pub(crate) use self::recorder::{Recorder, Sinks, Tracing};
