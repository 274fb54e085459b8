//! The time, for guests that cannot tell it by themselves.

use std::time::Instant;

use wakebox_abi::op::ReadClock;
use wakebox_abi::status::Status;
use wakebox_vmm::clock::{monotonic_ns, wall_ns};

use super::{End, Start, Started, TokioBackend};

impl Start for ReadClock {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let mut bytes = [0; 16];
        if into.len() < bytes.len() {
            return Err(Status::InvalidInput);
        }
        let monotonic = monotonic_ns(resources.start, Instant::now());
        bytes[..8].copy_from_slice(&monotonic.to_le_bytes());
        bytes[8..].copy_from_slice(&wall_ns().to_le_bytes());
        Ok(Started::Done(End::bytes(into.fill(&bytes))))
    }
}
