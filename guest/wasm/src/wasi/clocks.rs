//! `wasi:clocks`. Each pollable is a timer of the guest's, so waiting for any number of them is one park.

use alloc::boxed::Box;
use core::time::Duration;

use wakebox_guest::time::{self, Instant};
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::State;
use crate::platform::OneThread;

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(record)]
pub(super) struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl From<Duration> for Datetime {
    /// From the time since 1970.
    fn from(time: Duration) -> Self {
        Self {
            seconds: time.as_secs(),
            nanoseconds: time.subsec_nanos(),
        }
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

type Cx<'a> = StoreContextMut<'a, State>;

pub(super) fn provide(instance: &mut LinkerInstance<'_, State>, interface: &str) -> Result<()> {
    match interface {
        "monotonic-clock" => {
            instance.func_wrap("now", |_: Cx<'_>, ()| Ok((time::now().as_nanos(),)))?;
            instance.func_wrap("resolution", |_: Cx<'_>, ()| Ok((1_u64,)))?;
            instance.func_wrap("subscribe-instant", |mut cx: Cx<'_>, (at,): (u64,)| {
                subscribe_to(cx.data_mut(), Instant::from_nanos(at))
            })?;
            instance.func_wrap("subscribe-duration", |mut cx: Cx<'_>, (after,): (u64,)| {
                let deadline = time::now().saturating_add(Duration::from_nanos(after));
                subscribe_to(cx.data_mut(), deadline)
            })
        }
        "wall-clock" => {
            instance.func_wrap("now", |_: Cx<'_>, ()| {
                Ok((Datetime::from(time::unix_time()),))
            })?;
            instance.func_wrap("resolution", |_: Cx<'_>, ()| {
                Ok((Datetime {
                    seconds: 0,
                    nanoseconds: 1,
                },))
            })
        }
        _ => Ok(()),
    }
}
