//! UDP sockets.

use core::cell::RefCell;
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;

use wakebox_abi::op::{Buf, End, Handle, SocketAddress, UdpBind, UdpConnect, UdpReceive, UdpSend};
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

/// A UDP socket. It is closed when it is dropped.
///
/// All methods take `&self`, so that one future may receive while others send.
#[derive(Debug)]
pub struct UdpSocket {
    // The field order is that of the drop: first the operation, then its handle.
    /// The receive in flight. It belongs to the socket, so that a datagram that arrives when nobody
    /// waits is for the next who does.
    receive: RefCell<Option<Op>>,
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
        if datagram.len() > *ROOM.end() {
            // No datagram is as large, and the arena may not be either.
            return Err(Status::MessageTooLarge.into());
        }
        let mut buf = IoBuf::with_capacity(HEAD + datagram.len()).await?;
        if let Some(to) = to {
            buf.extend_from_slice(&SocketAddress(to).to_bytes());
        }
        let head = buf.filled();
        buf.extend_from_slice(datagram);
        let from = Buf {
            offset: head.offset + head.len,
            len: datagram.len() as u32,
        };
        let socket = self.handle.0;
        let operation = UdpSend {
            socket,
            from,
            to: head,
        };
        let (outcome, _) = Op::with_buf(operation, buf).await;
        match (outcome, to) {
            (Ok(count), _) => Ok(count as usize),
            (Err(status), None) => Err(status.into()),
            (Err(status), Some(to)) => Err(Error::new(
                status,
                alloc::format!("send a datagram to {to}"),
            )),
        }
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
        if self.receive.borrow().is_none() {
            let room = into.len().clamp(*ROOM.start(), *ROOM.end());
            let buf = IoBuf::with_capacity(HEAD + room).await?;
            let operation = UdpReceive {
                socket: self.handle.0,
                into: buf.whole(),
            };
            *self.receive.borrow_mut() = Some(Op::with_buf(operation, buf));
        }
        let (outcome, buf) = poll_fn(|cx| match &mut *self.receive.borrow_mut() {
            Some(op) => Pin::new(op).poll(cx),
            None => unreachable!("it was started above"),
        })
        .await;
        *self.receive.borrow_mut() = None;
        let mut buf = buf.unwrap_or_else(|| unreachable!("a receive has a buffer"));
        let len = (HEAD + outcome? as usize).min(buf.capacity());
        buf.set_len(len);
        let (head, datagram) = buf.split_at(HEAD);
        let from = head
            .first_chunk()
            .and_then(SocketAddress::from_bytes)
            .ok_or(Status::InvalidData)?;
        let count = datagram.len().min(into.len());
        into[..count].copy_from_slice(&datagram[..count]);
        Ok((count, from.0))
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
            receive.leave();
        }
    }
}
