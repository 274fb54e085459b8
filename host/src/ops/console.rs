//! Standard output and error.

use wakebox_abi::op::WriteConsole;
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started};

impl Start for WriteConsole {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        let write = resources.console.write(self.stream, from);
        Ok(Started::pending(async move {
            match write.await {
                Ok(count) => End::bytes(count),
                Err(error) => error.into(),
            }
        }))
    }
}
