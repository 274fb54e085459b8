//! Bodies of WASI 0.3: a stream of bytes, and a future for what comes behind it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;

use wakebox_guest::io::Status;
use wakebox_guest::task::spawn_named;
use wasmtime::Result;
use wasmtime::component::{Resource, Val};

use super::super::transmit::{Incoming, Later, Outgoing, Promised};
use super::super::value::{Cx, Given, New, Taken, mismatch};
use super::fields::Fields;
use super::outgoing::Sent;
use super::{ErrorCode, Outcome};
use crate::flight;
use crate::http::{self, Body, Pipe};
use crate::platform::OneThread;

/// The body of a request or a response.
pub(super) enum Contents {
    /// Is written by `outgoing-body`, in 0.2.
    Written,
    /// The component's.
    Own {
        stream: Option<Outgoing>,
        trailers: Promised,
    },
    /// Has come on a connection.
    Wire(Rc<Body>),
}

/// Whether a body is all there, of which bytes and trailers come apart.
struct Ending {
    has_ended: Cell<bool>,
    trailers: RefCell<Option<http::Fields>>,
    pipe: Rc<Pipe>,
}

impl Ending {
    fn look(&self) {
        if self.has_ended.get()
            && let Some(trailers) = self.trailers.take()
        {
            self.pipe.finish(trailers);
        }
    }
}

/// Waits for room in a pipe, and writes.
async fn write(pipe: &Pipe, bytes: &[u8]) -> flight::Result<()> {
    poll_fn(|cx| pipe.poll_room(cx)).await;
    pipe.room().ok_or(Status::BrokenPipe)?;
    pipe.write(bytes);
    Ok(())
}

impl Contents {
    /// Whether there is one at all.
    pub(super) fn is_there(&self, sent: &Sent) -> bool {
        match self {
            Self::Written => sent.is_taken(),
            Self::Own { stream, .. } => stream.is_some(),
            Self::Wire(body) => !body.is_empty(),
        }
    }

    /// Lets it go into the pipe from which it is sent.
    pub(super) fn begin(self, cx: &mut Cx<'_>, sent: Sent) -> Result<Rc<Pipe>> {
        let pipe = sent.pipe().clone();
        match self {
            Self::Written => return Ok(sent.into_pipe()),
            Self::Own { stream, trailers } => own(cx, &pipe, stream, trailers)?,
            Self::Wire(body) => {
                let pipe = pipe.clone();
                drop(spawn_named("body", async move {
                    loop {
                        match body.read().await {
                            Ok(bytes) if bytes.is_empty() => return pipe.finish(body.trailers()),
                            Ok(bytes) if write(&pipe, &bytes).await.is_ok() => {}
                            _ => return pipe.cut(),
                        }
                    }
                }));
            }
        }
        Ok(pipe)
    }

    /// The stream and the trailers, for a component; `done` says what it makes of them.
    pub(super) fn consume(self, cx: &mut Cx<'_>, sent: &Sent, done: Promised) -> Result<Val> {
        let parts = match self {
            Self::Own { stream, trailers } => {
                let sent = sent.pipe().sent.clone();
                done.keep(cx, move |value| {
                    let is_good = matches!(value, Some((Val::Result(Ok(_)), _)));
                    sent.settle(is_good.then_some(()).ok_or(Status::ConnectionAborted));
                    Ok(())
                })?;
                let stream = match stream {
                    Some(stream) => stream.given(cx)?,
                    None => nothing().given(cx)?,
                };
                [stream, trailers.given(cx)?]
            }
            Self::Wire(body) => {
                done.keep(cx, |_| Ok(()))?;
                let reads = body.clone();
                let (stream, verdict) = Incoming::new(move |_| {
                    let body = reads.clone();
                    Box::pin(async move { body.read().await })
                });
                let trailers = Later::new(async move {
                    verdict.settled().await.map_err(ErrorCode::from)?;
                    let entries = body.trailers();
                    let some = !entries.is_empty();
                    Outcome::Ok(some.then(|| New(Fields::fixed(entries))))
                });
                [stream.given(cx)?, trailers.given(cx)?]
            }
            Self::Written => return mismatch(),
        };
        Ok(Val::Tuple(parts.into()))
    }
}

/// No bytes.
fn nothing() -> OneThread<Incoming> {
    Incoming::new(|_| Box::pin(core::future::ready(Ok(Vec::new())))).0
}

/// Lets a component's body go.
fn own(
    cx: &mut Cx<'_>,
    pipe: &Rc<Pipe>,
    stream: Option<Outgoing>,
    trailers: Promised,
) -> Result<()> {
    let ending = Rc::new(Ending {
        has_ended: Cell::new(stream.is_none()),
        trailers: RefCell::default(),
        pipe: pipe.clone(),
    });
    let end = ending.clone();
    trailers.keep(cx, move |value| {
        let fields = match value {
            Some((Val::Result(Ok(Some(value))), cx)) => {
                let fields = Option::<Resource<Fields>>::taken(&value, cx)?;
                let fields = fields.map(|fields| cx.data_mut().table.delete(fields));
                fields
                    .transpose()?
                    .map_or_else(Vec::new, |fields| fields.entries)
            }
            _ => {
                end.pipe.cut();
                return Ok(());
            }
        };
        end.trailers.replace(Some(fields));
        end.look();
        Ok(())
    })?;
    if let Some(stream) = stream {
        stream.pipe(cx, move |bytes| {
            let ending = ending.clone();
            Box::pin(async move {
                if !bytes.is_empty() {
                    return write(&ending.pipe, &bytes).await;
                }
                ending.has_ended.set(true);
                ending.look();
                Ok(())
            })
        })?;
    }
    Ok(())
}
