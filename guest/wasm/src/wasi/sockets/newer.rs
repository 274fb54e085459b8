//! `wasi:sockets` 0.3: what waits is an async function, a stream or a future. The sockets are those of 0.2.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use wakebox_guest::io::Status;
use wakebox_guest::net::{self, TcpStream, UdpSocket};
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::Pollable;

use super::super::define::{Define, Linker, method};
use super::super::transmit::{Incoming, Items, Later, Outgoing, ending, item};
use super::super::value::{Cx, Given, New};
use super::streams::Connection;
use super::tcp::{self, Tcp, prepared};
use super::types::{ErrorCode, Family, IpAddress, IpSocketAddress, LookupError};
use super::udp::{self, Udp};
use super::{Outcome, Socket, common};
use crate::files::status;
use crate::flight::Flight;
use crate::platform::OneThread;

pub(in super::super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "types" => {
            socket::<tcp::Socket>(instance, tcp::Socket::new)?;
            tcp::settings(instance)?;
            connections(instance)?;
            streams(instance)?;
            socket::<udp::Socket>(instance, udp::Socket::new)?;
            udp::settings(instance)?;
            peers(instance)?;
            datagrams(instance)
        }
        "ip-name-lookup" => instance.define_apart("resolve-addresses", |_, (name,): (String,)| {
            Ok(Later::new(async move {
                let addresses = super::resolve(name).await.map_err(LookupError::from)?;
                Ok::<Vec<_>, LookupError>(addresses.map(IpAddress::from).collect())
            }))
        }),
        _ => Ok(()),
    }
}

/// Any address of this machine's, and any port.
fn anywhere(family: Family) -> IpSocketAddress {
    match family {
        Family::Ipv4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        Family::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
    .into()
}

/// Binds, and waits until that is done.
async fn bind<S: Socket>(socket: &mut OneThread<S>, address: IpSocketAddress) -> Outcome<()>
where
    OneThread<S>: Pollable,
{
    socket.0.start_bind(address)?;
    socket.ready().await;
    socket.0.finish_bind()
}

/// Defines the resource and what sockets of both kinds have.
fn socket<S: Socket>(instance: &mut Linker<'_>, create: fn(Family) -> S) -> Result<()>
where
    OneThread<S>: Pollable,
{
    common::<S>(instance)?;
    let name = alloc::format!("[static]{}.create", S::NAME);
    instance.define(&name, move |_: Cx<'_>, (family,): (Family,)| {
        Ok((Outcome::Ok(New(OneThread(create(family)))),))
    })?;
    let name = alloc::format!("[method]{}.bind", S::NAME);
    instance.define_async(
        &name,
        |mut cx: Cx<'_>, (this, address): (Resource<OneThread<S>>, IpSocketAddress)| {
            Box::new(OneThread(async move {
                let socket = cx.data_mut().table.get_mut(&this)?;
                Ok((bind(socket, address).await,))
            }))
        },
    )
}

fn connections(instance: &mut Linker<'_>) -> Result<()> {
    instance.define_apart(
        "[method]tcp-socket.connect",
        |mut cx: Cx<'_>, (this, address): (Resource<Tcp>, IpSocketAddress)| {
            let socket = &mut cx.data_mut().table.get_mut(&this)?.0;
            // Not in flight there: others go on with the instance meanwhile.
            let begun = socket.start_connect(address).map(|()| {
                core::mem::replace(&mut socket.stage, tcp::Stage::Connecting(Flight::Nothing))
            });
            let connected = async move {
                match begun? {
                    tcp::Stage::Connecting(mut flight) => {
                        flight.landed().await;
                        Ok(flight)
                    }
                    _ => Err(ErrorCode::InvalidState),
                }
            };
            Ok(Later::then(connected, move |outcome, cx| {
                let socket = &mut cx.data_mut().table.get_mut(&this)?.0;
                let outcome = outcome.and_then(|flight| {
                    socket.stage = tcp::Stage::Connecting(flight);
                    socket.finish_connect().map(|_| ())
                });
                outcome.given(cx)
            }))
        },
    )?;
    instance.define_async(
        "[method]tcp-socket.listen",
        |mut cx: Cx<'_>, (this,): (Resource<Tcp>,)| {
            Box::new(OneThread(async move {
                let socket = cx.data_mut().table.get_mut(&this)?;
                Ok((listen(socket).await,))
            }))
        },
    )
}

/// The connections that come.
async fn listen(socket: &mut Tcp) -> Outcome<OneThread<Items>> {
    let family = socket.0.family();
    if let tcp::Stage::Unbound = socket.0.stage {
        bind(socket, anywhere(family)).await?;
    }
    let socket = &mut socket.0;
    let tcp::Stage::Bound(listener) = &socket.stage else {
        return Err(socket.not_now());
    };
    let (listener, keep_alive) = (listener.clone(), socket.keep_alive);
    socket.stage = tcp::Stage::Listening(listener.clone(), Flight::Nothing);
    let (stream, _) = Items::new(move || {
        let listener = listener.clone();
        Box::pin(async move {
            let stream = prepared(listener.accept().await, keep_alive).await?;
            let connection = Connection::new(stream);
            let socket = tcp::Socket::accepted(family, keep_alive, connection);
            Ok(Some(item(New(OneThread(socket)))))
        })
    });
    Ok(stream)
}

fn streams(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "[method]tcp-socket.send",
        |mut cx: Cx<'_>, (this, data): (Resource<Tcp>, Outgoing)| {
            let connection = cx.data_mut().table.get_mut(&this)?.0.connection();
            let connection = connection.ok().filter(|connection| connection.sends());
            let verdict = match connection {
                Some(connection) => data.pipe(&mut cx, move |bytes| {
                    Box::pin(write(connection.clone(), bytes))
                })?,
                None => data.refuse(&mut cx, Status::NotConnected)?,
            };
            Ok((ending::<ErrorCode>(verdict),))
        },
    )?;
    instance.define(
        "[method]tcp-socket.receive",
        |mut cx: Cx<'_>, (this,): (Resource<Tcp>,)| {
            let connection = cx.data_mut().table.get_mut(&this)?.0.connection();
            let connection = connection.ok().filter(|connection| connection.receives());
            let is_open = connection.is_some();
            let (stream, verdict) = Incoming::new(move |most| {
                let connection = connection.clone();
                let connection = connection.clone();
                Box::pin(async move {
                    let connection = connection.ok_or(Status::NotConnected)?;
                    read(&connection.stream, most).await
                })
            });
            if !is_open {
                verdict.settle(Err(Status::NotConnected));
            }
            Ok(((stream, ending::<ErrorCode>(verdict)),))
        },
    )
}

async fn read(stream: &TcpStream, most: usize) -> crate::flight::Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; most];
    let count = stream.read(&mut bytes).await.map_err(status)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Writes, or ends this side.
async fn write(connection: Rc<Connection>, bytes: Vec<u8>) -> crate::flight::Result<()> {
    let stream = &connection.stream;
    let written = match bytes.is_empty() {
        true => stream.shutdown(net::Shutdown::Write).await,
        false => stream.write_all(&bytes).await,
    };
    written.map_err(status)
}

fn peers(instance: &mut Linker<'_>) -> Result<()> {
    instance.define_async(
        "[method]udp-socket.connect",
        |mut cx: Cx<'_>, (this, to): (Resource<Udp>, IpSocketAddress)| {
            Box::new(OneThread(async move {
                let socket = cx.data_mut().table.get_mut(&this)?;
                let connect = async {
                    if let udp::Stage::Unbound = socket.0.stage {
                        let family = socket.0.family();
                        bind(socket, anywhere(family)).await?;
                    }
                    udp::connect(&mut socket.0, Some(to)).await
                };
                Ok((connect.await,))
            }))
        },
    )?;
    method::<Udp, Outcome<()>>(instance, "[method]udp-socket.disconnect", |socket| {
        // The host has no operation that takes a peer away.
        Err(match socket.0.peer {
            None => ErrorCode::InvalidState,
            Some(_) => ErrorCode::NotSupported,
        })
    })
}

fn datagrams(instance: &mut Linker<'_>) -> Result<()> {
    instance.define_apart(
        "[method]udp-socket.send",
        |mut cx: Cx<'_>, (this, data, to): (Resource<Udp>, Vec<u8>, Option<IpSocketAddress>)| {
            let socket = &cx.data_mut().table.get_mut(&this)?.0;
            let (family, peer, bound) = (socket.family(), socket.peer, socket.bound().ok());
            let sent = async move {
                let bound = match bound {
                    Some(bound) => bound,
                    None => Rc::new(UdpSocket::bind(SocketAddr::from(anywhere(family))).await?),
                };
                let outgoing = udp::Outgoing::new(bound.clone(), family, peer);
                outgoing.send_one(&data, to).await?;
                Ok(bound)
            };
            Ok(Later::then(sent, move |outcome: Outcome<_>, cx| {
                let socket = &mut cx.data_mut().table.get_mut(&this)?.0;
                let outcome = outcome.map(|bound| {
                    if let udp::Stage::Unbound = socket.stage {
                        socket.stage = udp::Stage::Bound(bound);
                    }
                });
                outcome.given(cx)
            }))
        },
    )?;
    instance.define_apart(
        "[method]udp-socket.receive",
        |mut cx: Cx<'_>, (this,): (Resource<Udp>,)| {
            let bound = cx.data_mut().table.get_mut(&this)?.0.bound();
            Ok(Later::new(async move {
                let (data, from) = udp::receive(bound?).await?;
                Outcome::Ok((data, IpSocketAddress::from(from)))
            }))
        },
    )
}
