//! A template of the sandbox that asks for it.

use wakebox_abi::op::{CONTINUED, Snapshot};
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};

impl Start for Snapshot {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let continued = End::Done(Status::Ok, CONTINUED);
        let requests = resources.requests.clone();
        if !requests.waits_for_guest() {
            // Nobody wants one.
            return Ok(Started::Done(continued));
        }
        Ok(Started::pending(async move {
            requests.answered().await;
            continued
        }))
    }
}
