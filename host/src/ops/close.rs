//! Closing whatever is open.

use wakebox_abi::op::Close;
use wakebox_abi::status::Status;

use super::handles::Closed;
use super::{End, Pending, Start, Started, TokioBackend};

impl Start for Close {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let Closed { operations, file } = resources.handles.close(self.handle)?;
        let disk = resources.disk.clone();
        let then = file.map(|file| {
            Pending::new(None, async move {
                // What becomes of it is known to nobody, as ever when something is closed.
                let _ = disk.run(move || drop(file)).await;
                End::OK
            })
        });
        Ok(Started::Closed { operations, then })
    }
}
