//! Responses that a component makes; requests that it makes, and what comes back.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::time::Duration;

use wakebox_guest::io::Status;
use wakebox_guest::net::{Shutdown, TcpStream};
use wakebox_guest::task::spawn_named;
use wakebox_guest::time::timeout;
use wasmtime::Result;
use wasmtime::component::{Resource, Val};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;

use super::super::define::{
    Define, Held, Linker, method, method_of, part, part_if, pollable, resource,
};
use super::super::value::{Cx, Given, New, Taken};
use super::bodies::{Incoming, IncomingBody, Outgoing, OutgoingBody};
use super::contents::Contents;
use super::fields::{Fields, is_token};
use super::types::{Method, Scheme};
use super::{Done, ErrorCode, Outcome, Reply};
use crate::files::status;
use crate::flight::{self, Flight};
use crate::http::{self, Body, Framing, Pipe, ResponseHead, Wire};
use crate::platform::OneThread;

/// A body that has been asked for, or may be.
#[derive(Default)]
pub(crate) struct Sent {
    pipe: Rc<Pipe>,
    is_taken: bool,
}

impl Sent {
    fn body(&mut self) -> Option<OutgoingBody> {
        let is_first = !core::mem::replace(&mut self.is_taken, true);
        is_first.then(|| Outgoing::new(self.pipe.clone()))
    }

    pub(super) fn is_taken(&self) -> bool {
        self.is_taken
    }

    pub(super) fn pipe(&self) -> &Rc<Pipe> {
        &self.pipe
    }

    /// What is written. A body that nobody has asked for is empty.
    pub(super) fn into_pipe(self) -> Rc<Pipe> {
        if !self.is_taken {
            self.pipe.finish(http::Fields::new());
        }
        self.pipe
    }
}

/// A response that is to be sent; in 0.3, also one that has come.
pub(crate) struct Response {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Sent,
    pub(super) contents: Contents,
}

pub(crate) type OutgoingResponse = OneThread<Response>;

impl Response {
    pub(super) fn new(fields: Fields) -> OutgoingResponse {
        OneThread(Self {
            status: 200,
            fields,
            body: Sent::default(),
            contents: Contents::Written,
        })
    }

    /// Begins to send it.
    pub(crate) fn begin(self, cx: &mut Cx<'_>) -> Result<Reply> {
        let head = ResponseHead {
            status: self.status,
            fields: self.fields.entries,
        };
        Ok((head, self.contents.begin(cx, self.body)?))
    }
}

/// A request that is to be made; in 0.3, also one that has come.
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) target: Option<String>,
    pub(super) scheme: Option<Scheme>,
    pub(super) authority: Option<String>,
    pub(super) fields: Fields,
    pub(super) options: Option<Options>,
    pub(super) body: Sent,
    pub(super) contents: Contents,
}

pub(crate) type OutgoingRequest = OneThread<Request>;

/// In nanoseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    connect: Option<u64>,
    first_byte: Option<u64>,
    between_bytes: Option<u64>,
    /// Whether a component may look at it, and not change it.
    is_fixed: bool,
}

impl Options {
    pub(super) fn fixed(self) -> Self {
        Self {
            is_fixed: true,
            ..self
        }
    }
}

/// Why a time cannot be changed: it is immutable, which has no name in 0.2.
struct Immutable;

impl Given for Immutable {
    fn given(self, _: &mut Cx<'_>) -> Result<Val> {
        Ok(Val::Variant("immutable".into(), None))
    }

    fn given_to(self, cx: &mut Cx<'_>) -> Result<Option<Box<Val>>> {
        Ok(match cx.data().is_newer {
            true => Some(Box::new(self.given(cx)?)),
            false => None,
        })
    }
}

/// What has come back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Option<Rc<Body>>,
}

type IncomingResponse = OneThread<Answer>;

struct Promise {
    answer: Flight<OneThread<Answer>>,
    is_taken: bool,
}

type FutureResponse = OneThread<Promise>;

#[async_trait]
impl Pollable for FutureResponse {
    async fn ready(&mut self) {
        OneThread(self.0.answer.landed()).await;
    }
}

/// Whether a text may stand in the first line of a request.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// As that, of what stands behind the authority: also bytes that are no ASCII.
fn is_target(text: &str) -> bool {
    let is_part = |byte: u8| byte >= 0x80 || byte.is_ascii_graphic() && !b"<>`".contains(&byte);
    text.bytes().all(is_part)
}

/// Who may stand before it, a host, and a port (RFC 3986, 3.2).
fn is_authority(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let (user, rest) = text.rsplit_once('@').unwrap_or(("", text));
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let is_address = rest.starts_with('[');
    user.bytes().all(|byte| byte == b':' || is_part(byte))
        && !host.is_empty()
        && host
            .bytes()
            .all(|byte| is_address && byte == b':' || is_part(byte))
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_scheme(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(is_part)
}

impl Request {
    pub(super) fn new(fields: Fields) -> OutgoingRequest {
        OneThread(Self {
            method: Method::Get,
            target: None,
            scheme: None,
            authority: None,
            fields,
            options: None,
            body: Sent::default(),
            contents: Contents::Written,
        })
    }

    /// Makes the request; gives what will come back.
    pub(super) fn send(self, cx: &mut Cx<'_>) -> Result<Outcome<Asked>> {
        let has_body = self.contents.is_there(&self.body);
        let pipe = self.contents.begin(cx, self.body)?;
        let head = match encoded(
            self.method,
            self.target,
            self.scheme,
            self.authority,
            &self.fields,
            has_body,
        ) {
            Ok(head) => head,
            Err(code) => {
                pipe.leave(Err(Status::InvalidInput));
                return Ok(Err(code));
            }
        };
        Ok(Ok(Box::pin(ask(
            head,
            self.options.unwrap_or_default(),
            pipe,
        ))))
    }
}

/// What comes back.
pub(super) type Asked = Pin<Box<dyn Future<Output = flight::Result<IncomingResponse>>>>;

/// A request's head, to whom it goes, and its method.
struct Head {
    bytes: Vec<u8>,
    framing: Framing,
    address: String,
    method: String,
}

fn encoded(
    method: Method,
    target: Option<String>,
    scheme: Option<Scheme>,
    authority: Option<String>,
    fields: &Fields,
    has_body: bool,
) -> Outcome<Head> {
    if !matches!(scheme, None | Some(Scheme::Http)) {
        return Err(ErrorCode::TlsProtocolError);
    }
    let authority = authority.filter(|authority| is_word(authority));
    let authority = authority.ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = match has_port {
        true => authority.clone(),
        false => format!("{authority}:80"),
    };
    let target = target.unwrap_or_else(|| "/".into());
    let method = method.name().to_string();
    let (bytes, framing) =
        http::encode_request(&method, &target, &authority, &fields.entries, has_body)?;
    Ok(Head {
        bytes,
        framing,
        address,
        method,
    })
}

async fn ask(head: Head, options: Options, pipe: Rc<Pipe>) -> flight::Result<IncomingResponse> {
    let connected = TcpStream::connect(&head.address);
    let connected = within(options.connect, async { connected.await.map_err(status) }).await;
    let stream = match connected {
        Ok(stream) => stream,
        Err(status) => {
            pipe.leave(Err(status));
            return Err(status);
        }
    };
    let _ = stream.set_nodelay(true).await;
    let wire = Wire::new(stream);
    let sends = wire.clone();
    drop(spawn_named("request", async move {
        // What goes wrong there, the answer tells.
        let sent = http::send_body(&sends, head.bytes, head.framing, &pipe).await;
        if sent.is_err() {
            // Nobody is to take it for a whole one, or to wait for the rest.
            let _ = sends.stream.shutdown(Shutdown::Both).await;
        }
        pipe.leave(sent);
    }));
    within(options.first_byte, receive(wire, head.method)).await
}

async fn within<T>(
    nanoseconds: Option<u64>,
    act: impl Future<Output = flight::Result<T>>,
) -> flight::Result<T> {
    match nanoseconds {
        None => act.await,
        Some(time) => match timeout(Duration::from_nanos(time), act).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::TimedOut),
        },
    }
}

async fn receive(wire: Rc<Wire>, method: String) -> flight::Result<OneThread<Answer>> {
    loop {
        let head = wire.head(ResponseHead::parse).await?;
        let head = head.ok_or(Status::UnexpectedEof)?;
        // Those come before the answer.
        if matches!(head.status, 100 | 102 | 103) {
            continue;
        }
        let framing = head.framing(&method)?;
        return Ok(OneThread(Answer {
            status: head.status,
            fields: Fields::fixed(head.fields),
            body: Some(Body::new(wire, framing)),
        }));
    }
}

pub(super) fn handler(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "handle",
        |mut cx: Cx<'_>,
         (request, options): (Resource<OutgoingRequest>, Option<Resource<Options>>)| {
            let table = &mut cx.data_mut().table;
            let mut request = table.delete(request)?.0;
            request.options = options.map(|options| table.delete(options)).transpose()?;
            let asked = request.send(&mut cx)?;
            Ok((asked.map(|answer| {
                New(OneThread(Promise {
                    answer: Flight::start(answer),
                    is_taken: false,
                }))
            }),))
        },
    )
}

/// Defines a pair of methods that get and set a part.
fn property<T: Held, V: Given + Taken>(
    instance: &mut Linker<'_>,
    resource: &str,
    name: &str,
    get: fn(&mut T) -> V,
    set: fn(&mut T, V) -> Done<()>,
) -> Result<()> {
    method(instance, &instance.getter(resource, name), get)?;
    method_of(instance, &format!("[method]{resource}.set-{name}"), set)
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    resource::<OutgoingResponse>(instance, "outgoing-response")?;
    resource::<OutgoingRequest>(instance, "outgoing-request")?;
    resource::<FutureResponse>(instance, "future-incoming-response")?;
    resource::<IncomingResponse>(instance, "incoming-response")?;
    responses(instance)?;
    requests(instance)?;
    options(instance)?;
    answers(instance)
}

fn responses(instance: &mut Linker<'_>) -> Result<()> {
    const NAME: &str = "outgoing-response";
    instance.define(
        "[constructor]outgoing-response",
        |mut cx: Cx<'_>, (fields,): (Resource<Fields>,)| {
            let fields = cx.data_mut().table.delete(fields)?;
            Ok((New(Response::new(fields)),))
        },
    )?;
    response(instance, NAME)?;
    let name = "[method]outgoing-response.body";
    part_if::<OutgoingResponse, OutgoingBody>(instance, name, |response| response.0.body.body())
}

/// What responses have in both versions.
pub(super) fn response(instance: &mut Linker<'_>, resource: &str) -> Result<()> {
    property::<OutgoingResponse, u16>(
        instance,
        resource,
        "status-code",
        |response| response.0.status,
        |response, status| match status {
            100..=599 => {
                response.0.status = status;
                Ok(())
            }
            _ => Err(()),
        },
    )?;
    let name = instance.getter(resource, "headers");
    part::<OutgoingResponse, Fields>(instance, &name, |response| {
        Fields::fixed(response.0.fields.entries.clone())
    })
}

fn requests(instance: &mut Linker<'_>) -> Result<()> {
    const NAME: &str = "outgoing-request";
    instance.define(
        "[constructor]outgoing-request",
        |mut cx: Cx<'_>, (fields,): (Resource<Fields>,)| {
            let fields = cx.data_mut().table.delete(fields)?;
            Ok((New(Request::new(fields)),))
        },
    )?;
    request(instance, NAME)?;
    part_if::<OutgoingRequest, OutgoingBody>(instance, "[method]outgoing-request.body", |request| {
        request.0.body.body()
    })
}

/// What requests have in both versions.
pub(super) fn request(instance: &mut Linker<'_>, resource: &str) -> Result<()> {
    property::<OutgoingRequest, Method>(
        instance,
        resource,
        "method",
        |request| request.0.method.clone(),
        |request, method| {
            let is_method = is_token(method.name());
            if is_method {
                // One of the known, if it has its name.
                request.0.method = method.name().into();
            }
            is_method.then_some(()).ok_or(())
        },
    )?;
    property::<OutgoingRequest, Option<String>>(
        instance,
        resource,
        "path-with-query",
        |request| request.0.target.clone(),
        |request, target| {
            let is_target = target.as_deref().is_none_or(is_target);
            if is_target {
                let or_root = |target: String| match &*target {
                    "" => "/".into(),
                    _ => target,
                };
                request.0.target = target.map(or_root);
            }
            is_target.then_some(()).ok_or(())
        },
    )?;
    property::<OutgoingRequest, Option<Scheme>>(
        instance,
        resource,
        "scheme",
        |request| request.0.scheme.clone(),
        |request, scheme| {
            let scheme = match scheme {
                Some(Scheme::Other(name)) => Some(match &*name {
                    "http" => Scheme::Http,
                    "https" => Scheme::Https,
                    // RFC 3986, 3.1.
                    other if !is_scheme(other) => return Err(()),
                    _ => Scheme::Other(name),
                }),
                known => known,
            };
            request.0.scheme = scheme;
            Ok(())
        },
    )?;
    property::<OutgoingRequest, Option<String>>(
        instance,
        resource,
        "authority",
        |request| request.0.authority.clone(),
        |request, authority| {
            let is_good = authority.as_deref().is_none_or(is_authority);
            if is_good {
                request.0.authority = authority;
            }
            is_good.then_some(()).ok_or(())
        },
    )?;
    let name = instance.getter(resource, "headers");
    part::<OutgoingRequest, Fields>(instance, &name, |request| {
        Fields::fixed(request.0.fields.entries.clone())
    })
}

pub(super) fn options(instance: &mut Linker<'_>) -> Result<()> {
    const NAME: &str = "request-options";
    resource::<Options>(instance, NAME)?;
    part::<Options, Options>(instance, "[method]request-options.clone", |options| {
        *options
    })?;
    instance.define("[constructor]request-options", |mut cx: Cx<'_>, ()| {
        Ok((cx.data_mut().table.push(Options::default())?,))
    })?;
    macro_rules! time {
        ($name:literal, $field:ident) => {{
            let name = instance.getter(NAME, $name);
            method::<Options, Option<u64>>(instance, &name, |options| options.$field)?;
            let name = format!("[method]{NAME}.set-{}", $name);
            method_of::<Options, Option<u64>, core::result::Result<(), Immutable>>(
                instance,
                &name,
                |options, time| {
                    if options.is_fixed {
                        return Err(Immutable);
                    }
                    options.$field = time;
                    Ok(())
                },
            )
        }};
    }
    time!("connect-timeout", connect)?;
    time!("first-byte-timeout", first_byte)?;
    time!("between-bytes-timeout", between_bytes)
}

fn answers(instance: &mut Linker<'_>) -> Result<()> {
    pollable::<FutureResponse>(instance, "[method]future-incoming-response.subscribe")?;
    instance.define(
        "[method]future-incoming-response.get",
        |mut cx: Cx<'_>, (this,): (Resource<FutureResponse>,)| {
            let table = &mut cx.data_mut().table;
            let future = &mut table.get_mut(&this)?.0;
            if future.is_taken {
                return Ok((Some(Done::<Outcome<Resource<IncomingResponse>>>::Err(())),));
            }
            let Some(answer) = future.answer.take() else {
                return Ok((None,));
            };
            future.is_taken = true;
            Ok((Some(Ok(match answer {
                Ok(answer) => Ok(table.push(answer)?),
                Err(status) => Err(status.into()),
            })),))
        },
    )?;
    let name = "[method]incoming-response.status";
    method::<IncomingResponse, u16>(instance, name, |answer| answer.0.status)?;
    let name = "[method]incoming-response.headers";
    part::<IncomingResponse, Fields>(instance, name, |answer| answer.0.fields.clone())?;
    let name = "[method]incoming-response.consume";
    part_if::<IncomingResponse, IncomingBody>(instance, name, |answer| {
        answer.0.body.take().map(Incoming::new)
    })
}
