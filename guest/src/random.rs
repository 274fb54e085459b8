//! Randomness.
//!
//! Sandboxes that are made of one template have its memory in common, and so all random bytes that it
//! has drawn. What is drawn here after a restore is each sandbox's own. What a program has drawn before
//! and still uses is not: the key of a session, the state of a generator of its own, the seed of a hash
//! map against chosen keys, a number that must never come twice. Such a program draws those anew
//! in a hook ([`crate::on_restore`]), which runs before anything else does, or draws none before the
//! template is taken. A map keeps the seed of its hasher as long as it lives, so it is to be made anew.

use wakebox_abi::op::Entropy;
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::runtime::runtime;

/// Most bytes asked for at once. The host may give fewer.
const CHUNK: usize = 4096;

/// Fills a slice with random bytes of the host's generator, fit for keys; all of them are drawn in the
/// same sandbox, also if it is restored meanwhile. Cancel-safe, but the beginning of the slice may have
/// been filled.
///
/// # Errors
///
/// Those of the host.
pub async fn fill(bytes: &mut [u8]) -> Result<()> {
    loop {
        let generation = runtime().instance.generation();
        let filled = fill_once(bytes).await;
        if generation == runtime().instance.generation() {
            return filled;
        }
    }
}

async fn fill_once(mut bytes: &mut [u8]) -> Result<()> {
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

/// Random words of this sandbox's own: the same at each call until it is restored from a template, and
/// enough to seed hash maps and generators. Costs nothing.
#[must_use]
pub fn seed() -> [u64; 4] {
    runtime().instance.read().seed
}
