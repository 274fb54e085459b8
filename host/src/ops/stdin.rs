//! Standard input.

use wakebox_abi::op::ReadStdin;
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};
use crate::limits::LimitKind;

impl Start for ReadStdin {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if resources.stdin.is_null() {
            resources.meter.take(LimitKind::Stdin, into.len())?;
            return Ok(Started::Done(End::bytes(0)));
        }
        let read = resources.stdin.read(into, resources.meter.clone());
        Ok(Started::pending(async move {
            match read.await {
                Ok(count) => End::bytes(count),
                Err(error) => error.into(),
            }
        }))
    }
}
