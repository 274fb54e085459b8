//! Randomness.

use wakebox_abi::op::Entropy;
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::runtime::runtime;

/// Most bytes asked for at once. The host may give fewer.
const CHUNK: usize = 4096;

/// Fills a slice with random bytes of the host's generator, fit for keys. Cancel-safe, but the
/// beginning of the slice may have been filled.
///
/// # Errors
///
/// Those of the host.
pub async fn fill(mut bytes: &mut [u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut buf = IoBuf::with_capacity(bytes.len().min(CHUNK)).await?;
    while !bytes.is_empty() {
        buf.set_len(bytes.len().min(CHUNK));
        let op = Op::with_buf(Entropy { into: buf.filled() }, buf);
        let (outcome, full) = op.await;
        buf = full.unwrap_or_else(|| unreachable!("the operation has a buffer"));
        let count = (outcome? as usize).min(buf.len());
        if count == 0 {
            return Err(Status::UnexpectedEof.into());
        }
        bytes[..count].copy_from_slice(&buf[..count]);
        bytes = &mut bytes[count..];
    }
    Ok(())
}

/// Random words that this sandbox was started with: the same at each call, and enough to
/// seed hash maps and generators. Costs nothing.
#[must_use]
pub fn seed() -> [u64; 4] {
    runtime().boot.seed
}
