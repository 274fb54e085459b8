//! How the guest does.

pub use wakebox_abi::memory::GuestCounts as Stats;

use crate::runtime::runtime;

/// The counters as they stand. Costs no exit.
#[must_use]
pub fn stats() -> Stats {
    runtime().counters().into_iter().collect()
}
