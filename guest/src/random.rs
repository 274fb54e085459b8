//! Randomness.

use wakebox_abi::op::Entropy;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::runtime::runtime;

/// Most bytes asked for at once.
const CHUNK: usize = 4096;

/// Fills a slice with random bytes of the host's generator, fit for keys.
///
/// # Errors
///
/// Those of the host.
pub async fn fill(bytes: &mut [u8]) -> Result<()> {
    for chunk in bytes.chunks_mut(CHUNK) {
        let mut buf = IoBuf::with_capacity(chunk.len()).await?;
        buf.set_len(chunk.len());
        let (outcome, buf) = Op::with_buf(Entropy { into: buf.filled() }, buf).await;
        outcome?;
        if let Some(buf) = buf {
            chunk.copy_from_slice(&buf);
        }
    }
    Ok(())
}

/// Random words that this sandbox was started with: the same at each call, and enough to
/// seed hash maps and generators. Costs nothing.
#[must_use]
pub fn seed() -> [u64; 4] {
    runtime().boot.seed
}
