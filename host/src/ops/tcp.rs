//! TCP: connecting, listening, accepting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::net::{SocketAddrAny, SocketFlags};
use tokio::net::{TcpSocket, TcpStream};
use wakebox_abi::op::{Buf, SocketAddress, TcpAccept, TcpConnect, TcpListen};
use wakebox_abi::status::Status;

use super::handles::{Resource, Vacancies, Vacancy};
use super::stream::Stream;
use super::wait::{self, Waitable};
use super::{End, Start, Started, TokioBackend, status_of};
use crate::account::Charged;
use crate::arena::ArenaSlice;
use crate::policy::check::{Protocol, Refusal};
use crate::policy::{HostPort, LocalAddress};

/// Longest address: a DNS name (RFC 1035, 2.3.4), a colon and a port.
const ADDRESS_MAX: usize = 255 + 6;

/// The text of an address, or of the name of a host.
pub(super) fn host_text(resources: &TokioBackend, buf: Buf) -> Result<Charged<String>, Status> {
    resources.text(buf, ADDRESS_MAX)
}

/// The host and the port that a buffer names.
pub(super) fn host_port(resources: &TokioBackend, buf: Buf) -> Result<HostPort, Status> {
    let text = host_text(resources, buf)?;
    text.parse().map_err(|_| Status::InvalidInput)
}

/// The address of this host that a buffer names. A number: resolving a name could block.
pub(super) fn local_address(resources: &TokioBackend, buf: Buf) -> Result<LocalAddress, Status> {
    let text = host_text(resources, buf)?;
    text.parse().map_err(|_| Status::InvalidInput)
}

impl Start for TcpConnect {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let to = host_port(resources, self.address)?;
        let vacancy = resources.vacancy()?;
        let resolver = resources.resolver.clone();
        Ok(Started::pending(async move {
            let addresses = match resolver.reachable(Protocol::Tcp, &to).await {
                Ok(addresses) => addresses,
                Err(status) => return status.into(),
            };
            let mut last = End::from(Status::NotFound);
            for address in addresses {
                // Whoever waits for it then does so wherever it is.
                let connected = TcpStream::connect(address).await;
                match connected.and_then(TcpStream::into_std) {
                    Ok(stream) => {
                        let stream = Arc::new(Stream::from(stream));
                        return End::Open(Resource::Stream(stream), vacancy);
                    }
                    Err(error) => last = error.into(),
                }
            }
            last
        }))
    }
}

impl Start for TcpListen {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        if !resources.policy.grants_listening() {
            // Before an interface is looked for.
            let address = host_port(resources, self.address)?;
            address.ip().ok_or(Status::InvalidInput)?;
            return Err(resources.policy.refuse(Refusal::Listen, address));
        }
        let address = local_address(resources, self.address)?;
        if !resources.policy.may_listen(address) {
            return Err(resources.policy.refuse(Refusal::Listen, address));
        }
        let vacancy = resources.vacancy()?;
        let listener = listen(address.0, self.backlog).map_err(|error| status_of(&error))?;
        let listener = Resource::Listener(Arc::new(listener));
        Ok(Started::Done(End::Open(listener, vacancy)))
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<Listener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // As `tokio::net::TcpListener::bind` does: a restarted server finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let socket = socket.listen(backlog.clamp(1, 4096))?;
    Ok(Listener::new(socket.into_std()?))
}

/// A listening TCP socket. Tokio's own takes a connection as soon as there is one; this one says
/// first that there is one.
#[derive(Debug)]
pub(crate) struct Listener(Waitable<std::net::TcpListener>);

impl Listener {
    /// A listener of a socket that does not block.
    pub(crate) fn new(socket: std::net::TcpListener) -> Self {
        Self(Waitable::new(socket))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Takes a connection for which there is a handle, and says whose it is. While there is none,
    /// connections stay in the backlog.
    async fn accept(
        &self,
        vacancies: &Vacancies,
    ) -> io::Result<(std::net::TcpStream, Option<SocketAddr>, Vacancy)> {
        let waits = self.0.here()?;
        loop {
            waits.ready(wait::FOR_INPUT).await?;
            let vacancy = vacancies.wait().await;
            match self.0.try_io(wait::FOR_INPUT, || accept(&self.0)) {
                Ok((stream, peer)) => return Ok((stream, peer, vacancy)),
                Err(error) if concerns_one_connection(&error) => {}
                // Somebody else has taken it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn accept(socket: &std::net::TcpListener) -> io::Result<(std::net::TcpStream, Option<SocketAddr>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, peer): (_, Option<SocketAddrAny>) = rustix::net::acceptfrom_with(socket, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer))
}

/// Where the address of the other side is wanted, if it is.
fn peer_room(resources: &TokioBackend, peer: Buf) -> Result<Option<ArenaSlice>, Status> {
    if peer.len == 0 {
        return Ok(None);
    }
    let room = resources.slice(peer)?;
    if room.len() < SocketAddress::SIZE {
        return Err(Status::InvalidInput);
    }
    Ok(Some(room))
}

/// An address as the guest gets it: zeroes are none.
fn peer_bytes(peer: Option<SocketAddr>) -> [u8; SocketAddress::SIZE] {
    peer.map_or([0; SocketAddress::SIZE], |peer| {
        SocketAddress(peer).to_bytes()
    })
}

/// Whether an error is that of a connection which broke before it was accepted, and says nothing of
/// the listener: accept(2), "Error handling".
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EINTR
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
        )
    )
}

impl Start for TcpAccept {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let room = peer_room(resources, self.peer)?;
        let listener = resources.handles.listener(self.listener)?.clone();
        let vacancies = resources.handles.vacancies().clone();
        Ok(Started::pending_on(self.listener, async move {
            match listener.accept(&vacancies).await {
                Ok((stream, peer, vacancy)) => {
                    if let Some(room) = room {
                        room.fill(&peer_bytes(peer));
                    }
                    let stream = Arc::new(Stream::from(stream));
                    End::Open(Resource::Stream(stream), vacancy)
                }
                Err(error) => error.into(),
            }
        }))
    }
}
