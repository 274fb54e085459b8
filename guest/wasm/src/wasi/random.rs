//! `wasi:random`: every byte is the host's, also where a component would do with less.

use alloc::boxed::Box;
use alloc::vec::Vec;

use wasmtime::{Result, format_err};

use super::define::{Define, Linker};
use super::value::Cx;
use crate::platform::OneThread;

async fn bytes(count: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = usize::try_from(count)?;
    bytes
        .try_reserve_exact(count)
        .map_err(|_| format_err!("there is no memory for {count} random bytes"))?;
    bytes.resize(count, 0);
    let filled = OneThread(wakebox_guest::random::fill(&mut bytes)).await;
    filled.map_err(|error| format_err!("{error}"))?;
    Ok(bytes)
}

async fn word() -> Result<u64> {
    Ok(bytes(8)
        .await?
        .first_chunk()
        .copied()
        .map_or(0, u64::from_le_bytes))
}

pub(super) fn seed(instance: &mut Linker<'_>, name: &str) -> Result<()> {
    instance.define_async(name, |mut cx: Cx<'_>, ()| {
        Box::new(OneThread(async move {
            let seed = match cx.data().seed {
                Some(seed) => seed,
                None => (word().await?, word().await?),
            };
            // One for the instance, however often it asks.
            cx.data_mut().seed = Some(seed);
            Ok((seed,))
        }))
    })
}

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    let (many, one) = match interface {
        "random" => ("get-random-bytes", "get-random-u64"),
        "insecure" => ("get-insecure-random-bytes", "get-insecure-random-u64"),
        "insecure-seed" => return seed(instance, "insecure-seed"),
        _ => return Ok(()),
    };
    instance.define_async(many, |_, (count,): (u64,)| {
        Box::new(OneThread(async move { Ok((bytes(count).await?,)) }))
    })?;
    instance.define_async(one, |_, ()| {
        Box::new(OneThread(async { Ok((word().await?,)) }))
    })
}
