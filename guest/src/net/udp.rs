//! UDP sockets.

use core::cell::RefCell;
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;

use wakebox_abi::op::{
    Buf, DATAGRAMS_MAX, End, Handle, Operation, SocketAddress, UdpBind, UdpConnect, UdpReceive,
    UdpReceiveMany, UdpSend, UdpSendMany,
};
use wakebox_abi::status::Status;

use super::{OwnedHandle, encode, socket_name};
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;
use crate::turns::Turns;

/// Where a datagram begins in its buffer: behind the address.
const HEAD: usize = SocketAddress::SIZE;

/// Least and most bytes of a datagram for which there is room in a buffer.
const ROOM: core::ops::RangeInclusive<usize> = 2 << 10..=64 << 10;

/// What stands before each of several datagrams: the address, and how many bytes follow.
const MANY_HEAD: usize = HEAD + 4;

/// Several datagrams begin at multiples of this in their buffer.
const ALIGN: usize = 16;

/// A receive in flight.
#[derive(Debug)]
struct Receiving {
    op: Op,
    /// Bytes that each datagram takes, if it is for several.
    each: Option<usize>,
}

/// Datagrams that have arrived, in their order: see [`UdpSocket::recv_many`].
///
/// ```ignore
/// let mut datagrams = socket.recv_many(1500).await?;
/// while let Some((bytes, from)) = datagrams.take_next() {
///     answer(bytes, from);
/// }
/// ```
#[derive(Debug)]
pub struct Datagrams {
    buf: Option<IoBuf>,
    /// Bytes that each takes; zero if it is one, which has no length of its own.
    each: usize,
    at: usize,
    left: usize,
}

impl Datagrams {
    const NONE: Self = Self {
        buf: None,
        each: 0,
        at: 0,
        left: 0,
    };

    fn one(buf: IoBuf) -> Self {
        Self {
            buf: Some(buf),
            left: 1,
            ..Self::NONE
        }
    }

    fn many(buf: IoBuf, each: usize) -> Self {
        Self {
            left: buf.len() / each,
            buf: Some(buf),
            each,
            at: 0,
        }
    }

    /// How many there are yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next one, and who has sent it.
    pub fn take_next(&mut self) -> Option<(&[u8], SocketAddr)> {
        self.left = self.left.checked_sub(1)?;
        let rest = &self.buf.as_ref()?[self.at..];
        let (address, rest) = rest.split_first_chunk::<HEAD>()?;
        let bytes = match self.each {
            0 => rest,
            each => {
                self.at += each;
                let (len, rest) = rest.split_first_chunk()?;
                let len = u32::from_le_bytes(*len) as usize;
                &rest[..len.min(each - MANY_HEAD)]
            }
        };
        Some((bytes, SocketAddress::from_bytes(address)?.0))
    }
}

/// A UDP socket. It is closed when it is dropped.
///
/// All methods take `&self`, so that one future may receive while others send.
#[derive(Debug)]
pub struct UdpSocket {
    // The field order is that of the drop: first the operation, then its handle.
    /// The receive in flight. It belongs to the socket, so that a datagram that arrives when nobody
    /// waits is for the next who does.
    receive: RefCell<Option<Receiving>>,
    /// What has arrived and was not given to anybody.
    arrived: RefCell<Datagrams>,
    /// Of those who wait.
    turns: Turns,
    handle: OwnedHandle,
}

impl UdpSocket {
    /// Binds an address, as in "0.0.0.0:0". Port 0 lets the host choose.
    ///
    /// Cancel-safe: a socket that comes too late is closed.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `AddrInUse`, and others of the host.
    pub async fn bind(address: impl Display) -> Result<Self> {
        let (buf, text) = encode(&address).await?;
        let address = buf.filled();
        let (outcome, _) = Op::with_buf(UdpBind { address }, buf).giving_handle().await;
        let handle =
            outcome.map_err(|status| Error::new(status, alloc::format!("bind {text} for UDP")))?;
        Ok(Self {
            receive: RefCell::new(None),
            arrived: RefCell::new(Datagrams::NONE),
            turns: Turns::new(),
            handle: OwnedHandle(Handle(handle)),
        })
    }

    /// Gives the socket a peer, for [`Self::send`], and receives from nobody else from now on.
    /// Not cancel-safe: it may have a peer afterwards.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `NotFound` for a name that nobody has, and others of the
    /// host.
    pub async fn connect(&self, address: impl Display) -> Result<()> {
        let (buf, text) = encode(&address).await?;
        let (socket, address) = (self.handle.0, buf.filled());
        let (outcome, _) = Op::with_buf(UdpConnect { socket, address }, buf).await;
        outcome
            .map(|_| ())
            .map_err(|status| Error::new(status, alloc::format!("connect to {text} for UDP")))
    }

    /// Sends a datagram to the socket's peer and returns the number of its bytes.
    /// Not cancel-safe: it may have been sent.
    ///
    /// # Errors
    ///
    /// `NotConnected` without a peer, `MessageTooLarge`, `ConnectionRefused` if an earlier datagram
    /// found nobody there, and others of the host.
    pub async fn send(&self, datagram: &[u8]) -> Result<usize> {
        self.send_with(datagram, None).await
    }

    /// Sends a datagram to an address and returns the number of its bytes. For a name, see
    /// [`Self::connect`] and [`lookup`](super::lookup()). Not cancel-safe: it may have been sent.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `MessageTooLarge`, and others of the host.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<usize> {
        self.send_with(datagram, Some(to)).await
    }

    async fn send_with(&self, datagram: &[u8], to: Option<SocketAddr>) -> Result<usize> {
        let socket = self.handle.0;
        let operation = |from, to| UdpSend { socket, from, to };
        self.send_bytes(datagram, to, operation).await
    }

    async fn send_bytes<O: Operation>(
        &self,
        bytes: &[u8],
        to: Option<SocketAddr>,
        operation: impl FnOnce(Buf, Buf) -> O,
    ) -> Result<usize> {
        if bytes.len() > *ROOM.end() {
            // No datagram is as large, and the arena may not be either.
            return Err(Status::MessageTooLarge.into());
        }
        let mut buf = IoBuf::with_capacity(HEAD + bytes.len()).await?;
        if let Some(to) = to {
            buf.extend_from_slice(&SocketAddress(to).to_bytes());
        }
        let head = buf.filled();
        buf.extend_from_slice(bytes);
        let from = Buf {
            offset: head.offset + head.len,
            len: bytes.len() as u32,
        };
        let (outcome, _) = Op::with_buf(operation(from, head), buf).await;
        match (outcome, to) {
            (Ok(count), _) => Ok(count as usize),
            (Err(status), None) => Err(status.into()),
            (Err(status), Some(to)) => Err(Error::new(
                status,
                alloc::format!("send a datagram to {to}"),
            )),
        }
    }

    /// Sends several datagrams in one operation, and in one system call of the host: the bytes in pieces of `each`, of which
    /// the last may be shorter, to the socket's peer, or to an address. Returns how many bytes were sent: those of some
    /// whole datagrams, at least one. 64 are sent at most, and so many as together have 64 KiB.
    /// Not cancel-safe: any may have been sent.
    ///
    /// # Errors
    ///
    /// As [`Self::send`] and [`Self::send_to`], of the first; of a later one it is an error of the next call, if it comes
    /// again. `InvalidInput` if there are no bytes, or pieces of none.
    pub async fn send_many(
        &self,
        datagrams: &[u8],
        each: usize,
        to: Option<SocketAddr>,
    ) -> Result<usize> {
        let each = each.min(datagrams.len()) as u32;
        let fit = (*ROOM.end()).checked_div(each as usize).unwrap_or(1).max(1);
        let most = fit.min(DATAGRAMS_MAX) * each as usize;
        let now = &datagrams[..most.min(datagrams.len())];
        let socket = self.handle.0;
        let operation = |from, to| UdpSendMany {
            socket,
            from,
            to,
            each,
        };
        self.send_bytes(now, to, operation).await
    }

    /// Receives a datagram, after those who wait for one already, and returns the number of bytes that fit into the slice; the rest of
    /// the datagram is lost.
    ///
    /// Cancel-safe: a datagram that arrives after the future was dropped is for the next one,
    /// cut to the length of the earlier slice or 2 KiB, whichever is more.
    ///
    /// # Errors
    ///
    /// Those of the host. With a peer, `ConnectionRefused` if an earlier datagram found nobody there.
    pub async fn recv(&self, into: &mut [u8]) -> Result<usize> {
        Ok(self.recv_from(into).await?.0)
    }

    /// As [`Self::recv`], with the address of the sender. Cancel-safe likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`].
    pub async fn recv_from(&self, into: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let _turn = self.turns.take().await;
        if self.arrived.borrow().left == 0 {
            self.receive(|| {
                let room = into.len().clamp(*ROOM.start(), *ROOM.end());
                (HEAD + room, None)
            })
            .await?;
        }
        let mut arrived = self.arrived.borrow_mut();
        let (datagram, from) = arrived.take_next().ok_or(Status::InvalidData)?;
        let count = datagram.len().min(into.len());
        into[..count].copy_from_slice(&datagram[..count]);
        if arrived.left == 0 {
            *arrived = Datagrams::NONE;
        }
        Ok((count, from))
    }

    /// Receives what datagrams are there, at least one and at most 64, in one operation, and in one system call of the host. Of
    /// each it has at most `room` bytes; the rest of that datagram is lost.
    ///
    /// Cancel-safe: what arrives after the future was dropped is for the next one.
    ///
    /// # Errors
    ///
    /// Those of the host, as with [`Self::recv`]; `OutOfMemory` if 64 datagrams of that size are larger than the arena.
    pub async fn recv_many(&self, room: usize) -> Result<Datagrams> {
        let _turn = self.turns.take().await;
        if self.arrived.borrow().left == 0 {
            self.receive(|| {
                let each = (MANY_HEAD + room.min(*ROOM.end())).next_multiple_of(ALIGN);
                (each * DATAGRAMS_MAX, Some(each))
            })
            .await?;
        }
        Ok(self.arrived.replace(Datagrams::NONE))
    }

    /// Waits for the receive in flight, or for one with such a buffer, in which each datagram takes so many bytes if it is
    /// for several. What it brings is what has arrived.
    async fn receive(&self, buffer: impl FnOnce() -> (usize, Option<usize>)) -> Result<()> {
        if self.receive.borrow().is_none() {
            let (capacity, each) = buffer();
            let buf = IoBuf::with_capacity(capacity).await?;
            let (socket, into) = (self.handle.0, buf.whole());
            let op = match each {
                None => Op::with_buf(UdpReceive { socket, into }, buf),
                Some(each) => {
                    let each = each as u32;
                    Op::with_buf(UdpReceiveMany { socket, into, each }, buf)
                }
            };
            *self.receive.borrow_mut() = Some(Receiving { op, each });
        }
        let (each, (outcome, buf)) = poll_fn(|cx| match &mut *self.receive.borrow_mut() {
            Some(Receiving { op, each }) => Pin::new(op).poll(cx).map(|end| (*each, end)),
            None => unreachable!("it was started above"),
        })
        .await;
        *self.receive.borrow_mut() = None;
        let mut buf = buf.unwrap_or_else(|| unreachable!("a receive has a buffer"));
        let value = outcome? as usize;
        let arrived = match each {
            None => {
                buf.set_len((HEAD + value).min(buf.capacity()));
                Datagrams::one(buf)
            }
            Some(each) => {
                buf.set_len((value.saturating_mul(each)).min(buf.capacity()));
                Datagrams::many(buf, each)
            }
        };
        *self.arrived.borrow_mut() = arrived;
        Ok(())
    }

    /// The address that it is bound to. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn local_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Local).await
    }

    /// The address of its peer. Cancel-safe.
    ///
    /// # Errors
    ///
    /// `NotConnected` without a peer.
    pub async fn peer_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Peer).await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        // The Close that follows ends it.
        if let Some(receive) = self.receive.get_mut().take() {
            receive.op.leave();
        }
    }
}
