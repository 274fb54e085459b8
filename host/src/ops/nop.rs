//! Nothing, at once.

use wakebox_abi::op::Nop;
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};

impl Start for Nop {
    #[inline]
    fn start(self, _: &mut TokioBackend) -> Result<Started, Status> {
        Ok(Started::Done(End::OK))
    }
}
