//! Nothing, at once.

use wakebox_abi::op::Nop;
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started};

impl Start for Nop {
    #[inline]
    fn start(self, _: &mut Resources) -> Result<Started, Status> {
        Ok(Started::Done(End::OK))
    }
}
