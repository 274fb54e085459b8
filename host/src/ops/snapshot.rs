//! A template of the sandbox that asks for it.

use wakebox_abi::op::Snapshot;
use wakebox_abi::status::Status;

use super::{Start, Started, TokioBackend};

impl Start for Snapshot {
    /// Refused: nobody takes templates yet.
    fn start(self, _: &mut TokioBackend) -> Result<Started, Status> {
        Err(Status::Unsupported)
    }
}
