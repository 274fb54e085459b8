//! UDP: binding, connecting, sending, receiving, one datagram at a time; several in `udp_many.rs`.
//!
//! Datagrams are exchanged with whom the policy grants and nobody else, in both directions: what
//! comes from others is dropped before the guest's memory sees a byte of it.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{SockAddr, SockRef};
use wakebox_abi::op::{Buf, Handle, SocketAddress, UdpBind, UdpConnect, UdpReceive, UdpSend};
use wakebox_abi::status::Status;

use super::handles::Resource;
use super::tcp::{host_port, local_address};
use super::wait::{self, Waitable};
use super::{End, Start, Started, TokioBackend, status_of};
use crate::allowance::{self, PIECE};
use crate::arena::ArenaSlice;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::policy::check::{Guard, Protocol, Refusal};

thread_local! {
    /// Where a datagram lies until it is known whose it is: as large as any. One for a thread, which takes one turn at a time.
    pub(super) static ARRIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A bound UDP socket.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: Waitable<UdpSocket>,
    /// With whom it is connected.
    peer: Mutex<Option<SocketAddr>>,
}

impl AsRawFd for Udp {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Udp {
    fn peer(&self) -> Option<SocketAddr> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.peer()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Start for UdpBind {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        if !resources.policy.grants_binding() {
            // Before an interface is looked for.
            let address = host_port(resources, self.address)?;
            address.ip().ok_or(Status::InvalidInput)?;
            return Err(resources.policy.refuse(Refusal::UdpBind, address));
        }
        let address = local_address(resources, self.address)?;
        if !resources.policy.may_bind_udp(address) {
            return Err(resources.policy.refuse(Refusal::UdpBind, address));
        }
        let vacancy = resources.vacancy()?;
        let udp = bind(address.0).map_err(|error| status_of(&error))?;
        Ok(Started::Done(End::Open(
            Resource::Udp(Arc::new(udp)),
            vacancy,
        )))
    }
}

fn bind(address: SocketAddr) -> io::Result<Udp> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(Udp {
        socket: Waitable::new(socket),
        peer: Mutex::default(),
    })
}

impl Start for UdpConnect {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let to = host_port(resources, self.address)?;
        let udp = resources.handles.udp(self.socket)?.clone();
        let resolver = resources.resolver.clone();
        Ok(Started::pending_on(self.socket, async move {
            match resolver.reachable(Protocol::Udp, &to).await {
                Ok(addresses) => connect(&udp, &addresses),
                Err(status) => status.into(),
            }
        }))
    }
}

/// Connects to the first address that the socket can reach.
fn connect(udp: &Udp, addresses: &[SocketAddr]) -> End {
    let mut last = End::from(Status::NotFound);
    for address in addresses {
        match SockRef::from(&*udp.socket).connect(&(*address).into()) {
            Ok(()) => {
                let mut peer = udp.peer.lock().unwrap_or_else(PoisonError::into_inner);
                *peer = Some(*address);
                return End::OK;
            }
            Err(error) => last = error.into(),
        }
    }
    last
}

/// A datagram's addressee, if it is not the socket's peer.
fn addressee(resources: &TokioBackend, to: Buf) -> Result<Option<SocketAddr>, Status> {
    if to.len == 0 {
        return Ok(None);
    }
    let bytes = resources.slice(to)?.array();
    let address = SocketAddress::from_bytes(&bytes.ok_or(Status::InvalidInput)?)
        .ok_or(Status::InvalidInput)?;
    Ok(Some(address.0))
}

impl Start for UdpSend {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let sending = Sending::new(resources, self.socket, self.from, self.to)?;
        sending.start(self.socket, |sending| {
            let (from, to) = (&sending.from, sending.to.as_ref());
            sending.metered(from.len(), || send(&sending.udp, from, to))
        })
    }
}

/// Bytes that go to a peer or to somebody else to whom they may go.
pub(super) struct Sending {
    pub(super) udp: Arc<Udp>,
    pub(super) from: ArenaSlice,
    pub(super) to: Option<SockAddr>,
    meter: Arc<Meter>,
}

impl Sending {
    pub(super) fn new(
        resources: &mut TokioBackend,
        socket: Handle,
        from: Buf,
        to: Buf,
    ) -> Result<Self, Status> {
        let from = resources.slice(from)?;
        let to = addressee(resources, to)?;
        let udp = resources.handles.udp(socket)?.clone();
        let to = match to {
            None if udp.peer().is_none() => return Err(Status::NotConnected),
            None => None,
            Some(to) if resources.policy.may_reach(Protocol::Udp, None, to) => {
                Some(SockAddr::from(to))
            }
            Some(to) => return Err(resources.policy.refuse(Refusal::Udp, to)),
        };
        let meter = resources.meter.clone();
        Ok(Self {
            udp,
            from,
            to,
            meter,
        })
    }

    /// Has so many bytes, or fewer, sent by a call, if as many may be.
    pub(super) fn metered(
        &self,
        most: usize,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let taken = self
            .meter
            .take_whole(LimitKind::NetworkOut, most)
            .map_err(io::Error::other)?;
        let sent = call()?;
        taken.keep(sent);
        Ok(sent)
    }

    /// Makes a call at once, or when there is room.
    pub(super) fn start(
        self,
        socket: Handle,
        call: impl Fn(&Self) -> io::Result<usize> + Send + Sync + 'static,
    ) -> Result<Started, Status> {
        match self.udp.socket.try_io(wait::FOR_OUTPUT, || call(&self)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(count) => return Ok(Started::Done(End::bytes(count))),
            Err(error) => return Err(status_of(&error)),
        }
        Ok(Started::pending_on(socket, async move {
            let sent = match self.udp.socket.here() {
                Ok(waits) => waits.async_io(wait::FOR_OUTPUT, || call(&self)).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(count) => End::bytes(count),
                Err(error) => error.into(),
            }
        }))
    }
}

fn send(udp: &Udp, from: &ArenaSlice, to: Option<&SockAddr>) -> io::Result<usize> {
    let (address, address_len) = match to {
        Some(to) => (to.as_ptr(), to.len()),
        None => (std::ptr::null(), 0),
    };
    from.in_kernel(usize::MAX, |base, len| {
        // SAFETY: the bytes lie in mapped guest memory, which `from` keeps mapped, and the kernel
        // reads what the guest makes of them meanwhile; the address is that of `to`, or none.
        let count = unsafe {
            libc::sendto(
                udp.as_raw_fd(),
                base.cast(),
                len,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                address.cast(),
                address_len,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })
}

impl Start for UdpReceive {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < SocketAddress::SIZE {
            return Err(Status::InvalidInput);
        }
        receiving(resources, self.socket, move |udp, guard, meter| {
            receive(udp, &into, guard, meter)
        })
    }
}

/// Makes a call at once, or when something has arrived, until it gives a value: not for what came from strangers.
pub(super) fn receiving(
    resources: &mut TokioBackend,
    socket: Handle,
    call: impl Fn(&Udp, &Guard, &Meter) -> io::Result<Option<usize>> + Send + Sync + 'static,
) -> Result<Started, Status> {
    let udp = resources.handles.udp(socket)?.clone();
    let (guard, meter) = (resources.policy.clone(), resources.meter.clone());
    match udp
        .socket
        .try_io(wait::FOR_INPUT, || call(&udp, &guard, &meter))
    {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            return Err(status_of(&error));
        }
        Ok(Some(count)) => return Ok(Started::Done(End::bytes(count))),
        // One of a stranger; what follows waits its turn behind other operations.
        Ok(None) | Err(_) => {}
    }
    Ok(Started::pending_on(socket, async move {
        let waits = match udp.socket.here() {
            Ok(waits) => waits,
            Err(error) => return error.into(),
        };
        loop {
            // Strangers may send as fast as this one drops.
            allowance::give_way().await;
            allowance::spend(allowance::CALL);
            let call = || call(&udp, &guard, &meter);
            match waits.async_io(wait::FOR_INPUT, call).await {
                Ok(Some(count)) => return End::bytes(count),
                Ok(None) => {}
                Err(error) => return error.into(),
            }
        }
    }))
}

/// Receives a datagram: the sender's address and then the bytes. `None` if it came from somebody
/// who may not send, and was dropped.
pub(super) fn receive(
    udp: &Udp,
    into: &ArenaSlice,
    guard: &Guard,
    meter: &Meter,
) -> io::Result<Option<usize>> {
    let room = into.behind(SocketAddress::SIZE);
    let most = room.len().min(PIECE);
    let taken = match meter.take_whole(LimitKind::NetworkIn, most) {
        Ok(taken) => taken,
        // One for which too little is left stays where it is. One thread at a time has the driver, so that the next call
        // takes the same datagram.
        Err(_) => {
            let peek = libc::MSG_PEEK | libc::MSG_TRUNC;
            let (whole, from) = receive_part(udp, std::ptr::null_mut(), 0, peek)?;
            let wanted = if may_send(udp, guard, from) {
                whole.min(most)
            } else {
                0
            };
            let taken = meter.take_whole(LimitKind::NetworkIn, wanted);
            taken.map_err(io::Error::other)?
        }
    };
    let (count, from) = ARRIVED.with_borrow_mut(|arrived| {
        arrived.resize(PIECE, 0);
        let (count, from) = receive_part(udp, arrived.as_mut_ptr().cast(), arrived.len(), 0)?;
        let allowed = from.filter(|from| may_send(udp, guard, Some(*from)));
        let count = allowed.map(|_| room.fill(&arrived[..count]));
        io::Result::Ok((count, from))
    })?;
    if let (Some(count), Some(from)) = (count, from) {
        taken.keep(count);
        into.fill(&SocketAddress(from).to_bytes());
        return Ok(Some(count));
    }
    refuse(guard, from);
    Ok(None)
}

/// A datagram came from somebody who may not send.
pub(super) fn refuse(guard: &Guard, from: Option<SocketAddr>) {
    match from {
        Some(from) => guard.refuse(Refusal::Udp, format_args!("from {from}")),
        None => guard.refuse(Refusal::Udp, "from an unknown address"),
    };
}

/// Whether a datagram may come from there.
pub(super) fn may_send(udp: &Udp, guard: &Guard, from: Option<SocketAddr>) -> bool {
    from.is_some_and(|from| udp.peer() == Some(from) || guard.may_reach(Protocol::Udp, None, from))
}

/// Receives a datagram into memory that the kernel may write to, or as much of it as fits, or looks at it.
fn receive_part(
    udp: &Udp,
    base: *mut u8,
    len: usize,
    flags: i32,
) -> io::Result<(usize, Option<SocketAddr>)> {
    // SAFETY: the memory is none, or the caller's alone, so many bytes, which are initialized. The kernel writes at most
    // `*address_len` bytes of address, and says how many.
    let (count, address) = unsafe {
        SockAddr::try_init(|address, address_len| {
            let count = libc::recvfrom(
                udp.as_raw_fd(),
                base.cast(),
                len,
                flags | libc::MSG_DONTWAIT,
                address.cast(),
                address_len,
            );
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        })?
    };
    Ok((count, address.as_socket()))
}
