//! `wasi:clocks`. Each pollable is a timer of the guest's, so waiting for any number of them is one park.

use alloc::boxed::Box;
use core::time::Duration;

use wakebox_guest::time::{self, Instant};
use wasmtime::Result;
use wasmtime::component::{Resource, Val};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::State;
use super::define::{Define, Linker};
use super::value::{Cx, Given, Taken, mismatch, record};
use crate::platform::OneThread;

record! {
    #[derive(Clone, Copy)]
    pub(super) struct Datetime {
        seconds: Seconds = "seconds",
        nanoseconds: u32 = "nanoseconds",
    }
}

/// `u64` in 0.2, and `s64` in 0.3.
#[derive(Clone, Copy)]
struct Seconds(i64);

impl Taken for Seconds {
    fn taken(value: &Val, _: &mut Cx<'_>) -> Result<Self> {
        match value {
            // The latest that there is for what is later.
            Val::U64(seconds) => Ok(Self(i64::try_from(*seconds).unwrap_or(i64::MAX))),
            Val::S64(seconds) => Ok(Self(*seconds)),
            _ => mismatch(),
        }
    }
}

impl Given for Seconds {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        Ok(match cx.data().is_newer {
            true => Val::S64(self.0),
            false => Val::U64(self.0.unsigned_abs()),
        })
    }
}

impl From<Duration> for Datetime {
    /// From the time since 1970.
    fn from(time: Duration) -> Self {
        Self {
            seconds: Seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            nanoseconds: time.subsec_nanos(),
        }
    }
}

impl Datetime {
    /// The latest that there is for what is later.
    pub(super) fn nanoseconds_since_1970(self) -> i64 {
        let whole = self.seconds.0.saturating_mul(1_000_000_000);
        whole.saturating_add(self.nanoseconds.into())
    }
}

/// A point in time that is waited for.
struct Deadline(Instant);

#[async_trait]
impl Pollable for Deadline {
    async fn ready(&mut self) {
        OneThread(time::sleep_until(self.0)).await;
    }
}

fn subscribe_to(state: &mut State, deadline: Instant) -> Result<(Resource<DynPollable>,)> {
    let deadline = state.table.push(Deadline(deadline))?;
    Ok((subscribe(&mut state.table, deadline)?,))
}

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "monotonic-clock" => {
            instance.define("now", |_: Cx<'_>, ()| Ok((time::now().as_nanos(),)))?;
            instance.define("resolution", |_: Cx<'_>, ()| Ok((1_u64,)))?;
            instance.define("subscribe-instant", |mut cx: Cx<'_>, (at,): (u64,)| {
                subscribe_to(cx.data_mut(), Instant::from_nanos(at))
            })?;
            instance.define("subscribe-duration", |mut cx: Cx<'_>, (after,): (u64,)| {
                let deadline = time::now().saturating_add(Duration::from_nanos(after));
                subscribe_to(cx.data_mut(), deadline)
            })
        }
        "wall-clock" => {
            instance.define("now", |_: Cx<'_>, ()| {
                Ok((Datetime::from(time::unix_time()),))
            })?;
            instance.define("resolution", |_: Cx<'_>, ()| {
                Ok((Datetime {
                    seconds: Seconds(0),
                    nanoseconds: 1,
                },))
            })
        }
        _ => Ok(()),
    }
}
