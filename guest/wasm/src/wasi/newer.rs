//! WASI 0.3. What it has in common with 0.2 is defined there; here are streams and futures, and what has another name.

mod cli;
mod filesystem;

use alloc::boxed::Box;
use core::time::Duration;

use wakebox_guest::time::{self, Instant};
use wasmtime::Result;
use wasmtime::component::Val;

use super::clocks::Datetime;
use super::define::{Concurrent, Define, Linker, concurrently};
use super::value::{Cx, mismatch};
use super::{http, random, sockets};
use crate::platform::OneThread;

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "clocks/monotonic-clock" => {
            instance.define("now", |_: Cx<'_>, ()| Ok((time::now().as_nanos(),)))?;
            resolution(instance)?;
            wait(instance, "wait-until", Instant::from_nanos)?;
            wait(instance, "wait-for", |after| {
                time::now().saturating_add(Duration::from_nanos(after))
            })
        }
        "clocks/system-clock" => {
            instance.define("now", |_: Cx<'_>, ()| {
                Ok((Datetime::from(time::unix_time()),))
            })?;
            resolution(instance)
        }
        "random/random" => random::provide(instance, "random"),
        "random/insecure" => random::provide(instance, "insecure"),
        "random/insecure-seed" => random::seed(instance, "get-insecure-seed"),
        _ => {
            if let Some(name) = interface.strip_prefix("cli/") {
                cli::provide(instance, name)
            } else if let Some(name) = interface.strip_prefix("filesystem/") {
                filesystem::provide(instance, name)
            } else if let Some(name) = interface.strip_prefix("sockets/") {
                sockets::newer::provide(instance, name)
            } else if let Some(name) = interface.strip_prefix("http/") {
                http::newer::provide(instance, name)
            } else {
                Ok(())
            }
        }
    }
}

fn resolution(instance: &mut Linker<'_>) -> Result<()> {
    instance.define("get-resolution", |_: Cx<'_>, ()| Ok((1_u64,)))
}

/// Defines a wait, of which any number are in flight.
fn wait(instance: &mut Linker<'_>, name: &str, until: fn(u64) -> Instant) -> Result<()> {
    let waiting: Box<Concurrent> = Box::new(move |_, _, arguments, _| {
        let deadline = match arguments {
            [Val::U64(nanoseconds)] => Ok(until(*nanoseconds)),
            _ => mismatch(),
        };
        Box::pin(OneThread(async move {
            time::sleep_until(deadline?).await;
            Ok(())
        }))
    });
    concurrently(instance, name, waiting)
}
