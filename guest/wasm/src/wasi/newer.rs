//! Of WASI 0.3 what takes neither streams nor futures: clocks, random numbers, the environment and exits.

use alloc::boxed::Box;
use core::time::Duration;

use wakebox_guest::time::{self, Instant};
use wasmtime::Result;
use wasmtime::component::Val;

use super::define::{Concurrent, Define, Linker, concurrently};
use super::value::{Cx, mismatch, record};
use super::{cli, random};
use crate::platform::OneThread;

record! {
    struct Time {
        seconds: i64 = "seconds",
        nanoseconds: u32 = "nanoseconds",
    }
}

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
                let now = time::unix_time();
                Ok((Time {
                    seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                    nanoseconds: now.subsec_nanos(),
                },))
            })?;
            resolution(instance)
        }
        "random/random" => random::provide(instance, "random"),
        "random/insecure" => random::provide(instance, "insecure"),
        "random/insecure-seed" => random::seed(instance, "get-insecure-seed"),
        "cli/environment" => cli::environment(instance, "get-initial-cwd"),
        "cli/exit" => cli::provide(instance, "exit"),
        _ => Ok(()),
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
