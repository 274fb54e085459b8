//! TCP sockets. A bound socket listens already, as the host binds and listens in one.
//!
//! ```text
//! Unbound --start-bind--> Binding --finish-bind--> Bound --start-listen--> Listens --finish-listen--> Listening
//!    '--start-connect--> Connecting --finish-connect--> Connected
//!                             '----- an error ------> Closed
//! ```

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::time::Duration;

use wakebox_guest::net::{TcpListener, TcpStream};
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::super::define::{Define, Linker, method, method_of};
use super::super::value::Cx;
use super::streams::Connection;
use super::types::{ErrorCode, Family, IpSocketAddress, Shutdown};
use super::{Acting, Outcome, Socket as _, acting, asking, method_with, no_setting};
use crate::files::status;
use crate::flight::Flight;
use crate::platform::OneThread;

/// Connections that may wait to be accepted, unless the component says otherwise.
const BACKLOG: u32 = 1024;

/// After which a peer is asked whether it is still there, if the component wants that and says no time:
/// the kernel's own.
const KEEP_ALIVE: Duration = Duration::from_secs(7200);

pub(super) struct Socket {
    family: Family,
    pub(super) stage: Stage,
    backlog: u32,
    pub(super) keep_alive: KeepAlive,
}

#[derive(Clone, Copy)]
pub(super) struct KeepAlive {
    is_enabled: bool,
    idle: Duration,
}

pub(super) enum Stage {
    Unbound,
    Binding(Flight<TcpListener>),
    Bound(Rc<TcpListener>),
    Listens(Rc<TcpListener>),
    Listening(Rc<TcpListener>, Flight<TcpStream>),
    Connecting(Flight<TcpStream>),
    Connected(Rc<Connection>),
    Closed,
}

/// One in the table.
pub(super) type Tcp = OneThread<Socket>;

/// What a component is given of a connection.
type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

impl KeepAlive {
    fn time(self) -> Option<Duration> {
        self.is_enabled.then_some(self.idle)
    }
}

impl Socket {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            stage: Stage::Unbound,
            backlog: BACKLOG,
            keep_alive: KeepAlive {
                is_enabled: false,
                idle: KEEP_ALIVE,
            },
        }
    }

    /// What to answer to what is not for this stage.
    pub(super) fn not_now(&self) -> ErrorCode {
        match &self.stage {
            Stage::Binding(_) | Stage::Listens(_) | Stage::Connecting(_) => {
                ErrorCode::ConcurrencyConflict
            }
            _ => ErrorCode::InvalidState,
        }
    }

    fn start_listen(&mut self) -> Outcome<()> {
        let Stage::Bound(listener) = &self.stage else {
            return Err(self.not_now());
        };
        self.stage = Stage::Listens(listener.clone());
        Ok(())
    }

    fn finish_listen(&mut self) -> Outcome<()> {
        let Stage::Listens(listener) = &self.stage else {
            return Err(ErrorCode::NotInProgress);
        };
        self.stage = Stage::Listening(listener.clone(), Flight::Nothing);
        Ok(())
    }

    pub(super) fn start_connect(&mut self, address: IpSocketAddress) -> Outcome<()> {
        let address = self.family.remote(address)?;
        match self.stage {
            Stage::Unbound => {}
            // The host has no operation that connects from an address.
            Stage::Bound(_) => return Err(ErrorCode::NotSupported),
            _ => return Err(self.not_now()),
        }
        let keep_alive = self.keep_alive;
        self.stage = Stage::Connecting(Flight::start(async move {
            prepared(TcpStream::connect(address).await, keep_alive).await
        }));
        Ok(())
    }

    pub(super) fn finish_connect(&mut self) -> Outcome<Rc<Connection>> {
        let Stage::Connecting(flight) = &mut self.stage else {
            return Err(ErrorCode::NotInProgress);
        };
        let outcome = flight.take().ok_or(ErrorCode::WouldBlock)?;
        self.stage = Stage::Closed;
        let connection = Connection::new(outcome?);
        self.stage = Stage::Connected(connection.clone());
        Ok(connection)
    }

    fn accept(&mut self) -> Outcome<(Self, Rc<Connection>)> {
        if !matches!(self.stage, Stage::Listening(..)) {
            return Err(self.not_now());
        }
        self.ask();
        let Stage::Listening(_, flight) = &mut self.stage else {
            return Err(ErrorCode::InvalidState);
        };
        let outcome = flight.take().ok_or(ErrorCode::WouldBlock)?;
        let connection = Connection::new(outcome?);
        let accepted = Self::accepted(self.family, self.keep_alive, connection.clone());
        Ok((accepted, connection))
    }

    /// The socket of a connection that has come.
    pub(super) fn accepted(
        family: Family,
        keep_alive: KeepAlive,
        connection: Rc<Connection>,
    ) -> Self {
        Self {
            stage: Stage::Connected(connection),
            keep_alive,
            ..Self::new(family)
        }
    }

    /// Sees to it that an accept is in flight, if this listens.
    fn ask(&mut self) {
        let keep_alive = self.keep_alive;
        if let Stage::Listening(listener, flight) = &mut self.stage
            && flight.is_nothing()
        {
            let listener = listener.clone();
            *flight =
                Flight::start(async move { prepared(listener.accept().await, keep_alive).await });
        }
    }

    pub(super) fn connection(&self) -> Outcome<Rc<Connection>> {
        match &self.stage {
            Stage::Connected(connection) => Ok(connection.clone()),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    fn remote_address(&mut self) -> Outcome<Acting<IpSocketAddress>> {
        let connection = self.connection()?;
        Ok(Box::pin(async move {
            Ok(connection.stream.peer_addr().await?.into())
        }))
    }

    fn set_backlog(&mut self, backlog: u64) -> Outcome<()> {
        if matches!(self.stage, Stage::Connecting(_) | Stage::Connected(_)) {
            return Err(ErrorCode::InvalidState);
        }
        if backlog == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        self.backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Changes how a connection is kept alive: now, if there is one, or else when there is.
    fn keep_alive(&mut self, keep_alive: KeepAlive) -> Acting<()> {
        self.keep_alive = keep_alive;
        let connection = self.connection();
        Box::pin(async move {
            let Ok(connection) = connection else {
                return Ok(());
            };
            Ok(connection.stream.set_keepalive(keep_alive.time()).await?)
        })
    }

    fn set_idle_time(&mut self, nanoseconds: u64) -> Outcome<Acting<()>> {
        if nanoseconds == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        let idle = Duration::from_nanos(nanoseconds);
        Ok(self.keep_alive(KeepAlive {
            idle,
            ..self.keep_alive
        }))
    }
}

/// A connection as its socket wants it.
pub(super) async fn prepared(
    connected: wakebox_guest::io::Result<TcpStream>,
    keep_alive: KeepAlive,
) -> crate::flight::Result<TcpStream> {
    let stream = connected.map_err(status)?;
    if keep_alive.is_enabled {
        let set = stream.set_keepalive(keep_alive.time()).await;
        set.map_err(status)?;
    }
    Ok(stream)
}

impl super::Socket for Socket {
    const NAME: &str = "tcp-socket";

    fn start_bind(&mut self, address: IpSocketAddress) -> Outcome<()> {
        let address = self.family.local(address)?;
        let Stage::Unbound = self.stage else {
            return Err(self.not_now());
        };
        let backlog = self.backlog;
        self.stage = Stage::Binding(Flight::start(async move {
            let bound = TcpListener::bind_with_backlog(address, backlog).await;
            bound.map_err(status)
        }));
        Ok(())
    }

    fn finish_bind(&mut self) -> Outcome<()> {
        let Stage::Binding(flight) = &mut self.stage else {
            return Err(ErrorCode::NotInProgress);
        };
        let outcome = flight.take().ok_or(ErrorCode::WouldBlock)?;
        self.stage = Stage::Unbound;
        self.stage = Stage::Bound(Rc::new(outcome?));
        Ok(())
    }

    fn local_address(&mut self) -> Outcome<Acting<IpSocketAddress>> {
        match &self.stage {
            Stage::Bound(listener) | Stage::Listens(listener) | Stage::Listening(listener, _) => {
                let listener = listener.clone();
                Ok(Box::pin(
                    async move { Ok(listener.local_addr().await?.into()) },
                ))
            }
            Stage::Connected(connection) => {
                let connection = connection.clone();
                Ok(Box::pin(async move {
                    Ok(connection.stream.local_addr().await?.into())
                }))
            }
            _ => Err(ErrorCode::InvalidState),
        }
    }

    fn family(&self) -> Family {
        self.family
    }
}

#[async_trait]
impl Pollable for Tcp {
    async fn ready(&mut self) {
        self.0.ask();
        match &mut self.0.stage {
            Stage::Binding(flight) => OneThread(flight.landed()).await,
            Stage::Listening(_, flight) | Stage::Connecting(flight) => {
                OneThread(flight.landed()).await;
            }
            _ => {}
        }
    }
}

pub(super) fn create(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "create-tcp-socket",
        |mut cx: Cx<'_>, (family,): (Family,)| {
            let socket = OneThread(Socket::new(family));
            Ok((Outcome::Ok(cx.data_mut().table.push(socket)?),))
        },
    )
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    super::socket::<Socket>(instance)?;
    stages(instance)?;
    settings(instance)?;
    acting::<Tcp, Shutdown, ()>(instance, "[method]tcp-socket.shutdown", |socket, how| {
        Ok(Box::pin(socket.0.connection()?.shutdown(how)))
    })
}

/// The way from one stage to the next.
fn stages(instance: &mut Linker<'_>) -> Result<()> {
    method::<Tcp, _>(instance, "[method]tcp-socket.start-listen", |socket| {
        socket.0.start_listen()
    })?;
    method::<Tcp, _>(instance, "[method]tcp-socket.finish-listen", |socket| {
        socket.0.finish_listen()
    })?;
    method_with::<Tcp, _>(
        instance,
        "[method]tcp-socket.start-connect",
        |socket, to| socket.0.start_connect(to),
    )?;
    instance.define(
        "[method]tcp-socket.finish-connect",
        |mut cx: Cx<'_>, (this,): (Resource<Tcp>,)| {
            let connection = cx.data_mut().table.get_mut(&this)?.0.finish_connect();
            Ok((match connection {
                Ok(connection) => Ok(streams(&mut cx, &connection)?),
                Err(code) => Err(code),
            },))
        },
    )?;
    instance.define(
        "[method]tcp-socket.accept",
        |mut cx: Cx<'_>, (this,): (Resource<Tcp>,)| {
            let accepted = cx.data_mut().table.get_mut(&this)?.0.accept();
            let (socket, connection) = match accepted {
                Ok(accepted) => accepted,
                Err(code) => return Ok((Err(code),)),
            };
            let (input, output) = streams(&mut cx, &connection)?;
            let socket = cx.data_mut().table.push(OneThread(socket))?;
            Ok((Outcome::Ok((socket, input, output)),))
        },
    )
}

fn streams(cx: &mut Cx<'_>, connection: &Rc<Connection>) -> Result<Streams> {
    let table = &mut cx.data_mut().table;
    Ok((
        table.push(connection.input())?,
        table.push(connection.output())?,
    ))
}

/// What is set and asked for, in both versions.
pub(super) fn settings(instance: &mut Linker<'_>) -> Result<()> {
    let name = instance.getter(Socket::NAME, "remote-address");
    asking::<Tcp, _>(instance, &name, |socket| socket.0.remote_address())?;
    let name = instance.getter(Socket::NAME, "is-listening");
    method::<Tcp, bool>(instance, &name, |socket| {
        matches!(socket.0.stage, Stage::Listening(..))
    })?;
    let name = "[method]tcp-socket.set-listen-backlog-size";
    method_of::<Tcp, u64, Outcome<()>>(instance, name, |socket, size| socket.0.set_backlog(size))?;
    let name = instance.getter(Socket::NAME, "keep-alive-enabled");
    method::<Tcp, Outcome<bool>>(instance, &name, |socket| Ok(socket.0.keep_alive.is_enabled))?;
    let name = "[method]tcp-socket.set-keep-alive-enabled";
    acting::<Tcp, bool, ()>(instance, name, |socket, is_enabled| {
        let keep_alive = KeepAlive {
            is_enabled,
            ..socket.0.keep_alive
        };
        Ok(socket.0.keep_alive(keep_alive))
    })?;
    // One time for both, as the host has it.
    for name in ["keep-alive-idle-time", "keep-alive-interval"] {
        let get = instance.getter(Socket::NAME, name);
        method::<Tcp, Outcome<u64>>(instance, &get, |socket| {
            Ok(u64::try_from(socket.0.keep_alive.idle.as_nanos()).unwrap_or(u64::MAX))
        })?;
    }
    let name = "[method]tcp-socket.set-keep-alive-idle-time";
    acting::<Tcp, u64, ()>(instance, name, |socket, time| socket.0.set_idle_time(time))?;
    let name = "[method]tcp-socket.set-keep-alive-interval";
    method_of::<Tcp, u64, Outcome<()>>(instance, name, |_, time| match time {
        0 => Err(ErrorCode::InvalidArgument),
        _ => Ok(()),
    })?;
    no_setting::<Tcp, u32>(instance, "tcp-socket", "keep-alive-count")?;
    no_setting::<Tcp, u8>(instance, "tcp-socket", "hop-limit")
}
