//! Waiting for a time on the guest's monotonic clock.

use std::time::{Duration, Instant};

use wakebox_abi::op::Deadline;
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};
use crate::limits::LimitKind;

impl Start for Deadline {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let at = resources
            .start
            .checked_add(Duration::from_nanos(self.at_ns));
        if at.is_some_and(|at| at <= Instant::now()) {
            return Ok(Started::Done(End::OK));
        }
        let one = resources.meter.one(LimitKind::Timers)?;
        Ok(Started::pending(async move {
            let _one = one;
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                // Past the end of the host's clock: it never comes.
                None => std::future::pending().await,
            }
            End::OK
        }))
    }
}
