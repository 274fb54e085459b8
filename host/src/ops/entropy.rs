//! Random bytes from the kernel's generator.

use wakebox_abi::op::Entropy;
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend};

/// Most bytes an operation gives: what `getrandom(2)` fills without being interrupted.
const MOST: usize = 256;

impl Start for Entropy {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let mut bytes = [0; MOST];
        let wanted = into.len().min(MOST);
        let filled = random(&mut bytes[..wanted])?;
        Ok(Started::Done(End::bytes(into.fill(&bytes[..filled]))))
    }
}

/// Fills a short buffer.
fn random(bytes: &mut [u8]) -> Result<usize, Status> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| super::status_of(&error.into()))
}
