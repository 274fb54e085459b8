//! Waiting for a time on the guest's monotonic clock.

use std::time::{Duration, Instant};

use wakebox_abi::op::Deadline;
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started};

impl Start for Deadline {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let Some(at) = resources
            .start
            .checked_add(Duration::from_nanos(self.at_ns))
        else {
            // Past the end of the host's clock: it never comes.
            return Ok(Started::pending(std::future::pending()));
        };
        if at <= Instant::now() {
            return Ok(Started::Done(End::OK));
        }
        Ok(Started::pending(async move {
            tokio::time::sleep_until(at.into()).await;
            End::OK
        }))
    }
}
