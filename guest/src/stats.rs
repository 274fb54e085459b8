//! How the guest does.

pub use wakebox_abi::memory::GuestCounts as Stats;

use crate::runtime::runtime;

/// The counters as they stand, of all processors together: of another than this, as it had them when it rang or slept
/// last. Costs no exit.
#[must_use]
pub fn stats() -> Stats {
    let runtime = runtime();
    let sums = runtime.counters().map(|(counter, own)| {
        let others = runtime.here.counted_by_others(counter);
        (counter, own.wrapping_add(others))
    });
    sums.into_iter().collect()
}
