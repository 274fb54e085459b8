//! Calls across the boundary: functions of the embedding program that a guest calls
//! ([`host`]), and functions of a guest that the program calls ([`guest`]).
//!
//! Arguments and results are any serde types, in postcard's format on the way. A function's
//! own errors are part of its result and arrive typed; what goes wrong with the call itself
//! is a status.

mod context;
mod counted;
pub(crate) mod given;
pub(crate) mod guest;
pub(crate) mod help;
pub(crate) mod host;
mod message;
pub(crate) mod resources;
mod set;
#[cfg(test)]
mod types;

pub(crate) use self::context::Slot;
use self::message::{Message, read};
pub use self::set::HostFunctions;

/// Most bytes of one message.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;
