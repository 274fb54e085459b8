//! `wasi:http` 0.3: requests and responses have a stream as their body, and go in both directions.

use wasmtime::Result;
use wasmtime::component::{Resource, Val};

use super::super::define::{Define, Linker, resource};
use super::super::transmit::{Later, Outgoing, Promised, ending};
use super::super::value::{Cx, Made, New, Taken, mismatch};
use super::contents::Contents;
use super::fields::{self, Fields};
use super::incoming::{Answer, without_hops};
use super::outgoing::{self, Options, OutgoingRequest, OutgoingResponse, Request, Response, Sent};
use super::{ErrorCode, Outcome};

pub(in super::super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "types" => {
            fields::provide(instance)?;
            outgoing::options(instance)?;
            resource::<OutgoingRequest>(instance, "request")?;
            resource::<OutgoingResponse>(instance, "response")?;
            outgoing::request(instance, "request")?;
            outgoing::response(instance, "response")?;
            made(instance)?;
            consumed(instance)
        }
        "client" => instance.define_apart(
            "send",
            |mut cx: Cx<'_>, (request,): (Resource<OutgoingRequest>,)| {
                let request = cx.data_mut().table.delete(request)?.0;
                let asked = request.send(&mut cx)?;
                Ok(Later::new(async move {
                    let answer = asked?.await?.0;
                    let mut response =
                        Response::new(Fields::fixed(without_hops(&answer.fields.entries)));
                    response.0.status = answer.status;
                    if let Some(body) = answer.body {
                        response.0.contents = Contents::Wire(body);
                    }
                    Outcome::Ok(New(response))
                }))
            },
        ),
        _ => Ok(()),
    }
}

/// What comes beside the fields of one that is made.
type Parts = (Resource<Fields>, Option<Outgoing>, Promised);

fn made(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "[static]response.new",
        |mut cx: Cx<'_>, (fields, stream, trailers): Parts| {
            let fields = cx.data_mut().table.delete(fields)?;
            let mut response = Response::new(fields);
            response.0.contents = Contents::Own { stream, trailers };
            let sent = sent(&response.0.body);
            Ok(((New(response), sent),))
        },
    )?;
    instance.define(
        "[static]request.new",
        |mut cx: Cx<'_>,
         (fields, stream, trailers, options): (
            Resource<Fields>,
            Option<Outgoing>,
            Promised,
            Option<Resource<Options>>,
        )| {
            let table = &mut cx.data_mut().table;
            let mut request = Request::new(table.delete(fields)?);
            request.0.options = options.map(|options| table.delete(options)).transpose()?;
            request.0.contents = Contents::Own { stream, trailers };
            let sent = sent(&request.0.body);
            Ok(((New(request), sent),))
        },
    )?;
    instance.define(
        "[method]request.get-options",
        |cx: Cx<'_>, (this,): (Resource<OutgoingRequest>,)| {
            Ok((cx
                .data()
                .table
                .get(&this)?
                .0
                .options
                .map(|options| New(options.fixed())),))
        },
    )
}

/// The future that says how it was sent.
fn sent(body: &Sent) -> Later {
    ending::<ErrorCode>(body.pipe().sent.clone())
}

fn consumed(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "[static]request.consume-body",
        |mut cx: Cx<'_>, (this, done): (Resource<OutgoingRequest>, Promised)| {
            let request = cx.data_mut().table.delete(this)?.0;
            let parts = request.contents.consume(&mut cx, &request.body, done)?;
            Ok((Made(parts),))
        },
    )?;
    instance.define(
        "[static]response.consume-body",
        |mut cx: Cx<'_>, (this, done): (Resource<OutgoingResponse>, Promised)| {
            let response = cx.data_mut().table.delete(this)?.0;
            let parts = response.contents.consume(&mut cx, &response.body, done)?;
            Ok((Made(parts),))
        },
    )
}

/// What a component's handler gives, as it is sent.
pub(crate) fn answer(results: &[Val], cx: &mut Cx<'_>) -> Result<Answer> {
    match results {
        [Val::Result(Ok(Some(response)))] => {
            let response = Resource::<OutgoingResponse>::taken(response, cx)?;
            let response = cx.data_mut().table.delete(response)?.0;
            Ok(Ok(response.begin(cx)?))
        }
        [Val::Result(Err(Some(code)))] => Ok(Err(ErrorCode::taken(code, cx)?)),
        _ => mismatch(),
    }
}
