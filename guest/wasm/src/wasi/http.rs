//! `wasi:http`: requests that come (`incoming-handler`, see `serve`), and requests that are made
//! (`outgoing-handler`), over TCP and without TLS.

mod bodies;
mod contents;
mod fields;
mod incoming;
pub(super) mod newer;
mod outgoing;
mod types;

pub(crate) use self::incoming::{Outparam, Request, Slot, come};
pub(crate) use self::newer::answer;

use alloc::rc::Rc;

use self::types::ErrorCode;

use wakebox_guest::io::Status;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::streams::Error as IoError;

use super::define::{Define, Linker};
use super::value::Cx;
use crate::http::{Pipe, ResponseHead};

/// A `result` without an error's type.
type Done<T> = core::result::Result<T, ()>;
type Outcome<T> = core::result::Result<T, ErrorCode>;

/// A response that is sent: its head, and its body as it comes.
pub(crate) type Reply = (ResponseHead, Rc<Pipe>);

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "types" => {
            fields::provide(instance)?;
            incoming::provide(instance)?;
            outgoing::provide(instance)?;
            bodies::provide(instance)?;
            instance.define(
                "http-error-code",
                |cx: Cx<'_>, (error,): (Resource<IoError>,)| {
                    let error = cx.data().table.get(&error)?;
                    Ok((error.downcast_ref::<Status>().copied().map(ErrorCode::from),))
                },
            )
        }
        "outgoing-handler" => outgoing::handler(instance),
        _ => Ok(()),
    }
}
