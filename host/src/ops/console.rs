//! Standard output and error.

use wakebox_abi::op::{Stream, WriteConsole};
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};
use crate::limits::LimitKind;
use crate::stop::Why;

impl Start for WriteConsole {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        let kind = match self.stream {
            Stream::Out => LimitKind::Stdout,
            Stream::Err => LimitKind::Log,
        };
        let left = match resources.meter.take(kind, from.len()) {
            Ok(taken) => {
                let left = taken.len();
                taken.keep(left);
                left
            }
            Err(_) if kind == LimitKind::Log => 0,
            Err(status) => return Err(status),
        };
        if kind == LimitKind::Log && left < from.len() {
            // What is within the limit still leaves, at the end.
            resources.stop.end(Why::Log);
        }
        if resources.console.is_null(self.stream) {
            return Ok(Started::Done(End::bytes(left)));
        }
        let write = resources.console.write(self.stream, from.at_most(left));
        Ok(Started::pending(async move {
            match write.await {
                Ok(count) => End::bytes(count),
                Err(error) => error.into(),
            }
        }))
    }
}
