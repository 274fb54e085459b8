//! UDP sockets. A receive is in flight while anybody waits; what is sent the host takes at once.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::SocketAddr;

use wakebox_guest::net::UdpSocket;
use wasmtime::component::Resource;
use wasmtime::{Result, ensure};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;

use super::super::define::{Define, Linker, method, method_of, pollable, resource};
use super::super::value::{Cx, record};
use super::types::{ErrorCode, Family, IpSocketAddress};
use super::{Acting, Outcome, Socket as _, no_setting};
use crate::files::status;
use crate::flight::Flight;
use crate::platform::OneThread;

/// Most bytes of a datagram.
const DATAGRAM: usize = 64 << 10;

/// Datagrams that may be sent by one call.
const SENDS: u64 = 16;

record! {
    struct IncomingDatagram {
        data: Vec<u8> = "data",
        remote_address: IpSocketAddress = "remote-address",
    }
}

record! {
    struct OutgoingDatagram {
        data: Vec<u8> = "data",
        remote_address: Option<IpSocketAddress> = "remote-address",
    }
}

pub(super) struct Socket {
    family: Family,
    pub(super) stage: Stage,
    /// To whom it is connected.
    pub(super) peer: Option<SocketAddr>,
}

#[allow(clippy::large_enum_variant, reason = "there is one of each socket")]
pub(super) enum Stage {
    Unbound,
    Binding(Flight<UdpSocket>),
    Bound(Rc<UdpSocket>),
}

/// One in the table.
pub(super) type Udp = OneThread<Socket>;

impl Socket {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            stage: Stage::Unbound,
            peer: None,
        }
    }

    pub(super) fn bound(&self) -> Outcome<Rc<UdpSocket>> {
        match &self.stage {
            Stage::Bound(socket) => Ok(socket.clone()),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    fn streams(&self) -> Outcome<(Incoming, Outgoing)> {
        let socket = self.bound()?;
        let incoming = Incoming {
            socket: socket.clone(),
            receive: Flight::Nothing,
        };
        Ok((incoming, Outgoing::new(socket, self.family, self.peer)))
    }
}

impl super::Socket for Socket {
    const NAME: &str = "udp-socket";

    fn start_bind(&mut self, address: IpSocketAddress) -> Outcome<()> {
        let address = self.family.local(address)?;
        match self.stage {
            Stage::Unbound => {}
            Stage::Binding(_) => return Err(ErrorCode::ConcurrencyConflict),
            Stage::Bound(_) => return Err(ErrorCode::InvalidState),
        }
        self.stage = Stage::Binding(Flight::start(async move {
            UdpSocket::bind(address).await.map_err(status)
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
        let socket = self.bound()?;
        Ok(Box::pin(
            async move { Ok(socket.local_addr().await?.into()) },
        ))
    }

    fn family(&self) -> Family {
        self.family
    }
}

#[async_trait]
impl Pollable for Udp {
    async fn ready(&mut self) {
        if let Stage::Binding(flight) = &mut self.0.stage {
            OneThread(flight.landed()).await;
        }
    }
}

/// The next datagram, and from whom it is.
pub(super) async fn receive(socket: Rc<UdpSocket>) -> crate::flight::Result<(Vec<u8>, SocketAddr)> {
    let mut data = alloc::vec![0; DATAGRAM];
    let (count, from) = socket.recv_from(&mut data).await.map_err(status)?;
    data.truncate(count);
    Ok((data, from))
}

struct Incoming {
    socket: Rc<UdpSocket>,
    receive: Flight<(Vec<u8>, SocketAddr)>,
}

impl Incoming {
    /// Sees to it that a receive is in flight.
    fn ask(&mut self) {
        if self.receive.is_nothing() {
            self.receive = Flight::start(receive(self.socket.clone()));
        }
    }

    fn receive(&mut self, most: u64) -> Outcome<Vec<IncomingDatagram>> {
        let mut received = Vec::new();
        if most > 0 {
            self.ask();
            if let Some(outcome) = self.receive.take() {
                let (data, from) = outcome?;
                received.push(IncomingDatagram {
                    data,
                    remote_address: from.into(),
                });
            }
        }
        Ok(received)
    }
}

#[async_trait]
impl Pollable for OneThread<Incoming> {
    async fn ready(&mut self) {
        self.0.ask();
        OneThread(self.0.receive.landed()).await;
    }
}

pub(super) struct Outgoing {
    socket: Rc<UdpSocket>,
    family: Family,
    peer: Option<SocketAddr>,
    permits: Cell<u64>,
}

impl Outgoing {
    pub(super) fn new(socket: Rc<UdpSocket>, family: Family, peer: Option<SocketAddr>) -> Self {
        Self {
            socket,
            family,
            peer,
            permits: Cell::new(0),
        }
    }

    /// To whom a datagram goes; nobody, if that is the socket's peer.
    fn addressee(&self, to: Option<IpSocketAddress>) -> Outcome<Option<SocketAddr>> {
        let to = to.map(|to| self.family.remote(to)).transpose()?;
        match (to, self.peer) {
            (None, None) => Err(ErrorCode::InvalidArgument),
            (Some(to), Some(peer)) if to != peer => Err(ErrorCode::InvalidArgument),
            (_, Some(_)) => Ok(None),
            (to, None) => Ok(to),
        }
    }

    pub(super) async fn send_one(&self, data: &[u8], to: Option<IpSocketAddress>) -> Outcome<()> {
        match self.addressee(to)? {
            None => self.socket.send(data).await?,
            Some(to) => self.socket.send_to(data, to).await?,
        };
        Ok(())
    }

    async fn send(self, datagrams: Vec<OutgoingDatagram>) -> Outcome<u64> {
        let mut count = 0;
        for OutgoingDatagram {
            data,
            remote_address,
        } in datagrams
        {
            match self.send_one(&data, remote_address).await {
                Ok(()) => count += 1,
                Err(code) if count == 0 => return Err(code),
                Err(_) => break,
            }
        }
        Ok(count)
    }
}

#[async_trait]
impl Pollable for OneThread<Outgoing> {
    async fn ready(&mut self) {}
}

pub(super) fn create(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "create-udp-socket",
        |mut cx: Cx<'_>, (family,): (Family,)| {
            let socket = OneThread(Socket::new(family));
            Ok((Outcome::Ok(cx.data_mut().table.push(socket)?),))
        },
    )
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    super::socket::<Socket>(instance)?;
    resource::<OneThread<Incoming>>(instance, "incoming-datagram-stream")?;
    resource::<OneThread<Outgoing>>(instance, "outgoing-datagram-stream")?;
    settings(instance)?;
    streams(instance)?;
    datagrams(instance)
}

/// What is set and asked for, in both versions.
pub(super) fn settings(instance: &mut Linker<'_>) -> Result<()> {
    let name = instance.getter(Socket::NAME, "remote-address");
    method::<Udp, Outcome<IpSocketAddress>>(instance, &name, |socket| {
        let peer = socket.0.peer.map(IpSocketAddress::from);
        peer.ok_or(ErrorCode::InvalidState)
    })?;
    no_setting::<Udp, u8>(instance, Socket::NAME, "unicast-hop-limit")
}

/// What gives the streams of a socket.
fn streams(instance: &mut Linker<'_>) -> Result<()> {
    instance.define_async(
        "[method]udp-socket.stream",
        |mut cx: Cx<'_>, (this, to): (Resource<Udp>, Option<IpSocketAddress>)| {
            Box::new(OneThread(async move {
                let socket = &mut cx.data_mut().table.get_mut(&this)?.0;
                if let Err(code) = connect(socket, to).await {
                    return Ok((Err(code),));
                }
                let (incoming, outgoing) = match socket.streams() {
                    Ok(streams) => streams,
                    Err(code) => return Ok((Err(code),)),
                };
                let table = &mut cx.data_mut().table;
                let incoming = table.push(OneThread(incoming))?;
                let outgoing = table.push(OneThread(outgoing))?;
                Ok((Outcome::Ok((incoming, outgoing)),))
            }))
        },
    )
}

/// Gives a socket a peer, or none.
pub(super) async fn connect(socket: &mut Socket, to: Option<IpSocketAddress>) -> Outcome<()> {
    let bound = socket.bound()?;
    let Some(to) = to else {
        // The host has no operation that takes a peer away.
        return match socket.peer {
            None => Ok(()),
            Some(_) => Err(ErrorCode::NotSupported),
        };
    };
    let to = socket.family.remote(to)?;
    bound.connect(to).await?;
    socket.peer = Some(to);
    Ok(())
}

fn datagrams(instance: &mut Linker<'_>) -> Result<()> {
    let name = "[method]incoming-datagram-stream.receive";
    method_of::<OneThread<Incoming>, u64, Outcome<_>>(instance, name, |incoming, most| {
        incoming.0.receive(most)
    })?;
    let name = "[method]incoming-datagram-stream.subscribe";
    pollable::<OneThread<Incoming>>(instance, name)?;
    let name = "[method]outgoing-datagram-stream.check-send";
    method::<OneThread<Outgoing>, Outcome<u64>>(instance, name, |outgoing| {
        outgoing.0.permits.set(SENDS);
        Ok(SENDS)
    })?;
    let name = "[method]outgoing-datagram-stream.subscribe";
    pollable::<OneThread<Outgoing>>(instance, name)?;
    instance.define_async(
        "[method]outgoing-datagram-stream.send",
        |cx: Cx<'_>, (this, datagrams): (Resource<OneThread<Outgoing>>, Vec<OutgoingDatagram>)| {
            Box::new(OneThread(async move {
                let outgoing = &cx.data().table.get(&this)?.0;
                ensure!(
                    datagrams.len() as u64 <= outgoing.permits.take(),
                    "more datagrams are sent than check-send allows"
                );
                let outgoing = Outgoing {
                    socket: outgoing.socket.clone(),
                    permits: Cell::new(0),
                    ..*outgoing
                };
                Ok((outgoing.send(datagrams).await,))
            }))
        },
    )
}
