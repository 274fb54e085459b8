//! Components that answer HTTP: `wasi:http/incoming-handler` of WASI 0.2, or `wasi:http/handler` of 0.3.
//!
//! Each connection is a task, and each request another, with an instance of its own: what one does with
//! its memory no other sees. The arguments say where to listen: `[--serve] [--reuse COUNT] ADDRESS...`.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::task::spawn_named;
use wakebox_guest::{env, eprintln};
use wasmtime::component::{
    Accessor, Component, ComponentExportIndex, Func, Instance, InstancePre, Linker, ResourceAny,
    Val,
};
use wasmtime::{AsContextMut, Engine, Result, Store, bail, format_err};

use crate::http::{Body, Fields, Framing, Pipe, RequestHead, ResponseHead, Wire, send_body};
use crate::platform::{OneThread, store};
use crate::turns::Turns;
use crate::wasi::State;
use crate::wasi::http::{Outparam, Request, Slot, answer, come};

/// The interfaces of which a component exports one.
pub(crate) const HANDLERS: [&str; 2] = [NEWER, "wasi:http/incoming-handler@0.2."];

const NEWER: &str = "wasi:http/handler@0.3.";

/// What all requests share.
struct Server {
    engine: Engine,
    component: InstancePre<State>,
    handle: ComponentExportIndex,
    /// Whether that is of WASI 0.3.
    is_newer: bool,
    /// Requests that an instance answers, one after another.
    reuse: u32,
    /// Instances that have answered one, and may answer more.
    idle: RefCell<Vec<Answering>>,
    /// As many requests as there are stacks for.
    turns: Turns,
}

struct Answering {
    store: Store<State>,
    instance: Instance,
    answered: u32,
}

/// The argument that says that a component is to serve, which may be a program as well.
const SERVE: &str = "--serve";

/// Whether the arguments say that it is to serve.
pub(crate) fn is_asked() -> bool {
    env::args().next() == Some(SERVE)
}

/// What the arguments say.
fn settings() -> Result<(u32, Vec<String>)> {
    let mut args = env::args().map(ToString::to_string).peekable();
    let mut reuse = 1;
    args.next_if_eq(SERVE);
    if args.next_if_eq("--reuse").is_some() {
        let count = args.next().and_then(|count| count.parse().ok());
        reuse = count
            .filter(|count| *count > 0)
            .ok_or_else(|| format_err!("--reuse wants a number of requests, as in --reuse 100"))?;
    }
    let addresses: Vec<_> = args.collect();
    if addresses.is_empty() {
        bail!(
            "the component answers HTTP requests, and nobody says where: \
             `wakebox serve app.wasm --allow-listen 127.0.0.1:8080`"
        );
    }
    Ok((reuse, addresses))
}

/// Serves, until there is nobody who listens.
pub(crate) async fn run(
    engine: &Engine,
    component: &Component,
    linker: &Linker<State>,
    interface: &str,
    most: usize,
) -> Result<i32> {
    let pre = linker.instantiate_pre(component)?;
    let first = Answering::new(engine, &pre).await?;
    // Who starts from a template of this has an instance already, and its own arguments.
    let _ = wakebox_guest::snapshot().await;
    let (reuse, addresses) = settings()?;
    let is_newer = interface.starts_with(NEWER);
    let interface = component.get_export_index(None, interface);
    let handle = interface.and_then(|of| component.get_export_index(Some(&of), "handle"));
    let server = Rc::new(Server {
        engine: engine.clone(),
        component: pre,
        handle: handle.ok_or_else(|| format_err!("the handler has no function `handle`"))?,
        is_newer,
        reuse,
        idle: RefCell::new(alloc::vec![first]),
        // In 0.3 one stack is kept for whatever becomes ready while the component waits on another.
        turns: Turns::new(most / if is_newer { 2 } else { 1 }),
    });
    let mut listeners = Vec::new();
    for address in &addresses {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format_err!("{error}"))?;
        if let Ok(address) = listener.local_addr().await {
            eprintln!("serving on http://{address}");
        }
        listeners.push(spawn_named("listen", accept(server.clone(), listener)));
    }
    for listener in listeners {
        let _ = listener.await;
    }
    Ok(1)
}

async fn accept(server: Rc<Server>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(spawn_named(
                "connection",
                connection(server.clone(), stream),
            )),
            Err(error) => {
                eprintln!("error: {error}");
                return;
            }
        }
    }
}

/// Answers the requests of a connection, one after another.
async fn connection(server: Rc<Server>, stream: TcpStream) {
    let _ = stream.set_nodelay(true).await;
    let wire = Wire::new(stream);
    loop {
        let head = match wire.head(RequestHead::parse).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(status) => {
                let code = match status {
                    wakebox_guest::io::Status::MessageTooLarge => 431,
                    wakebox_guest::io::Status::InvalidData => 400,
                    _ => return,
                };
                let _ = refuse(&wire, None, code).await;
                return;
            }
        };
        if !request(&server, &wire, Rc::new(head)).await {
            return;
        }
    }
}

/// Answers without a component, and ends the connection.
async fn refuse(wire: &Wire, to: Option<&RequestHead>, status: u16) -> crate::flight::Result<()> {
    let head = ResponseHead {
        status,
        fields: alloc::vec![("content-length".into(), b"0".to_vec())],
    };
    let unknown = RequestHead {
        method: String::new(),
        target: String::new(),
        is_current: true,
        fields: Fields::new(),
    };
    let (bytes, _) = head.encode(to.unwrap_or(&unknown), false)?;
    let pipe = Pipe::default();
    pipe.finish(Fields::new());
    send_body(wire, bytes, Framing::ToEnd, &pipe).await
}

/// Answers a request; gives whether the connection may have another.
async fn request(server: &Rc<Server>, wire: &Rc<Wire>, head: Rc<RequestHead>) -> bool {
    let Ok(framing) = head.framing() else {
        let _ = refuse(wire, Some(&head), 400).await;
        return false;
    };
    let has_body = framing != Framing::Length(0);
    if has_body && head.wants_continue() {
        let _ = wire
            .stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await;
    }
    let body = Body::new(wire.clone(), framing);
    let slot = Rc::new(Slot::default());
    let task = {
        let (server, head, body, slot) = (server.clone(), head.clone(), body.clone(), slot.clone());
        spawn_named("request", async move {
            let answered = server.answer(&head, body, Outparam(slot)).await;
            if let Err(error) = answered {
                eprintln!("error: {} {}: {error:?}", head.method, head.target);
            }
        })
    };
    let sent = match slot.answer().await {
        Some(Ok(response)) => {
            let keeps = head.keeps();
            let (response, pipe) = response;
            let sent = match response.encode(&head, keeps) {
                Ok((bytes, framing)) => send_body(wire, bytes, framing, &pipe)
                    .await
                    .map(|()| keeps && framing != Framing::ToEnd),
                Err(_) => refuse(wire, Some(&head), 500).await.map(|()| false),
            };
            pipe.leave(sent.map(|_| ()));
            sent
        }
        answer => {
            if let Some(Err(code)) = answer {
                eprintln!("error: {} {}: {code:?}", head.method, head.target);
            }
            refuse(wire, Some(&head), 500).await.map(|()| false)
        }
    };
    let _ = task.await;
    sent.unwrap_or(false) && body.is_over().await
}

impl Answering {
    async fn new(engine: &Engine, component: &InstancePre<State>) -> Result<Self> {
        let mut store = store(engine, State::default());
        let instance = OneThread(component.instantiate_async(&mut store)).await?;
        Ok(Self {
            store,
            instance,
            answered: 0,
        })
    }
}

impl Server {
    /// Calls the component.
    async fn answer(&self, head: &RequestHead, body: Rc<Body>, to: Outparam) -> Result<()> {
        let _turn = self.turns.take().await;
        let idle = self.idle.borrow_mut().pop();
        let mut answering = match idle {
            Some(answering) => answering,
            None => Answering::new(&self.engine, &self.component).await?,
        };
        let Answering {
            store, instance, ..
        } = &mut answering;
        let handle = instance.get_func(&mut *store, self.handle);
        let handle = handle.ok_or_else(|| format_err!("`handle` is not a function"))?;
        match self.is_newer {
            true => newer(store, handle, head, body, to).await?,
            false => older(store, handle, head, body, to).await?,
        }
        answering.answered += 1;
        if answering.answered < self.reuse {
            self.idle.borrow_mut().push(answering);
        }
        Ok(())
    }
}

/// Calls the handler of WASI 0.2, which says where the answer goes.
async fn older(
    store: &mut Store<State>,
    handle: Func,
    head: &RequestHead,
    body: Rc<Body>,
    to: Outparam,
) -> Result<()> {
    let request = store.data_mut().push(Request::of(head, body))?;
    let to = store.data_mut().push(OneThread(to))?;
    let arguments = [
        Val::Resource(ResourceAny::try_from_resource(request, &mut *store)?),
        Val::Resource(ResourceAny::try_from_resource(to, &mut *store)?),
    ];
    OneThread(handle.call_async(&mut *store, &arguments, &mut [])).await
}

/// Calls the handler of WASI 0.3, which gives the answer, and goes on until that has been sent.
async fn newer(
    store: &mut Store<State>,
    handle: Func,
    head: &RequestHead,
    body: Rc<Body>,
    to: Outparam,
) -> Result<()> {
    let request = store.data_mut().push(come(head, body))?;
    let request = Val::Resource(ResourceAny::try_from_resource(request, &mut *store)?);
    let serves = async |accessor: &Accessor<State>| -> Result<()> {
        let mut results = [Val::Bool(false)];
        let arguments = [request];
        OneThread(handle.call_concurrent(accessor, &arguments, &mut results)).await?;
        let answer = accessor.with(|mut access| answer(&results, &mut access.as_context_mut()))?;
        let sent = answer.as_ref().ok().map(|(_, pipe)| pipe.sent.clone());
        to.0.set(answer);
        if let Some(sent) = sent {
            // What went wrong, the connection tells.
            let _ = sent.settled().await;
        }
        Ok(())
    };
    OneThread(store.run_concurrent(serves)).await?
}
