//! Closing whatever is open.

use wakebox_abi::op::Close;
use wakebox_abi::status::Status;

use super::{Resources, Start, Started};

impl Start for Close {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        resources.handles.close(self.handle).map(Started::Closed)
    }
}
