//! Waiting for connections.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};

use wakebox_abi::op::{Buf, End, Handle, SocketAddress, TcpAccept, TcpListen};
use wakebox_abi::status::Status;

use super::{OwnedHandle, TcpStream, encode, socket_name, written_address};
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;
use crate::turns::Turns;
#[cfg(feature = "stream")]
use crate::turns::{Take, Turn};

/// Connections that may wait to be accepted, unless [`TcpListener::bind_with_backlog`] says otherwise.
const BACKLOG: u32 = 1024;

/// Most accepts in flight on a listener.
const ACCEPTS: usize = 64;

/// A TCP socket that waits for connections. It is closed when it is dropped.
#[derive(Debug)]
pub struct TcpListener {
    // The field order is that of the drop: first the operation, then its handle.
    /// The accepts in flight, oldest first. They belong to the listener, so that a connection
    /// that arrives when nobody waits is for the next who does.
    accepts: RefCell<VecDeque<Op>>,
    /// Of those who wait.
    turns: Turns,
    handle: OwnedHandle,
}

impl TcpListener {
    /// Binds an address, as in "127.0.0.1:7777", and listens. Port 0 lets the host choose.
    ///
    /// Cancel-safe: a socket that comes too late is closed.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `AddrInUse`, and others of the host.
    pub async fn bind(address: impl Display) -> Result<Self> {
        Self::bind_with_backlog(address, BACKLOG).await
    }

    /// As [`Self::bind`], with the most connections that may wait to be accepted. Cancel-safe
    /// likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub async fn bind_with_backlog(address: impl Display, backlog: u32) -> Result<Self> {
        let (buf, text) = encode(&address).await?;
        let address = buf.filled();
        let (outcome, _) = Op::with_buf(TcpListen { address, backlog }, buf)
            .giving_handle()
            .await;
        let handle =
            outcome.map_err(|status| Error::new(status, alloc::format!("listen on {text}")))?;
        Ok(Self {
            accepts: RefCell::new(VecDeque::new()),
            turns: Turns::new(),
            handle: OwnedHandle(Handle(handle)),
        })
    }

    /// Waits for a connection, after those who wait already, and at the sandbox's limit of open handles for a handle for it: a
    /// connection for which there is none stays in the backlog.
    ///
    /// Cancel-safe: a connection that comes after the future was dropped is for the next one.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn accept(&self) -> Result<TcpStream> {
        match self.accept_with(1).await?.pop() {
            Some(stream) => Ok(stream),
            None => unreachable!("there is at least one"),
        }
    }

    /// As [`Self::accept`], with the address of the other side, which comes with the connection:
    /// [`TcpStream::peer_addr`] has it, too. Only where the I/O arena had no room for an address when the
    /// wait began, the host is asked for it afterwards.
    ///
    /// Cancel-safe likewise, but for a connection whose future is dropped while the host is asked.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn accept_from(&self) -> Result<(TcpStream, SocketAddr)> {
        let stream = self.accept().await?;
        let peer = stream.peer_addr().await?;
        Ok((stream, peer))
    }

    /// Waits for a connection, and returns all that are there by then, at least one and at most
    /// `most` or 64, in no order. A server that is flooded with connections gets them for fewer
    /// turns this way.
    ///
    /// Cancel-safe: a connection that comes after the future was dropped is for the next one.
    ///
    /// # Errors
    ///
    /// Those of the host. An error is reported only if no connection came with it.
    ///
    /// # Panics
    ///
    /// If `most` is zero.
    pub async fn accept_many(&self, most: usize) -> Result<Vec<TcpStream>> {
        assert!(most > 0, "accept no connection?");
        self.accept_with(most.min(ACCEPTS)).await
    }

    async fn accept_with(&self, most: usize) -> Result<Vec<TcpStream>> {
        let _turn = self.turns.take().await;
        poll_fn(|cx| self.poll_accept(most, cx)).await
    }

    /// The connections as they come, without end: a stream for `futures` and its like. Asked for one,
    /// it waits in the queue as a future of [`Self::accept`] does, until it has given it or is dropped.
    #[cfg(feature = "stream")]
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming {
            listener: self,
            stage: Stage::None,
        }
    }

    /// The address that it is bound to. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn local_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Local).await
    }
}

/// Asks for a connection, and for whose it is if there is room for that now.
fn accept(listener: Handle) -> Op {
    let op = match IoBuf::try_with_capacity(SocketAddress::SIZE) {
        Some(mut buf) => {
            // Of a host that writes nothing there, no address is read.
            buf.set_len(SocketAddress::SIZE);
            buf.fill(0);
            buf.clear();
            let peer = buf.whole();
            Op::with_buf(TcpAccept { listener, peer }, buf)
        }
        None => Op::new(TcpAccept {
            listener,
            peer: Buf::default(),
        }),
    };
    op.giving_handle()
}

/// The connection that was accepted.
fn accepted(handle: u32, peer: Option<IoBuf>) -> TcpStream {
    let peer = peer.and_then(|mut peer| {
        peer.set_len(peer.capacity());
        written_address(&peer)
    });
    TcpStream::of(OwnedHandle(Handle(handle)), peer)
}

fn failed(status: Status) -> Error {
    Error::new(status, "accept a connection")
}

impl TcpListener {
    /// Takes what has come, at least one and at most `most`. For whoever has the turn.
    fn poll_accept(&self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Vec<TcpStream>>> {
        let listener = self.handle.0;
        let mut accepts = self.accepts.borrow_mut();
        while accepts.len() < most {
            accepts.push_back(accept(listener));
        }
        let mut streams = Vec::new();
        let mut error = None;
        accepts.retain_mut(|accept| {
            // Those above `most` are of an earlier and larger call; they stay as they are.
            if streams.len() == most {
                return true;
            }
            match Pin::new(accept).poll(cx) {
                Poll::Pending => true,
                Poll::Ready((Ok(handle), peer)) => {
                    streams.push(accepted(handle, peer));
                    false
                }
                Poll::Ready((Err(status), _)) => {
                    error = Some(status);
                    false
                }
            }
        });
        match error {
            _ if !streams.is_empty() => Poll::Ready(Ok(streams)),
            Some(status) => Poll::Ready(Err(failed(status))),
            None => Poll::Pending,
        }
    }
}

/// The connections of a listener; see [`TcpListener::incoming`]. It may be dropped; no connection
/// is lost.
#[cfg(feature = "stream")]
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    stage: Stage<'a>,
}

/// Where an [`Incoming`] stands.
#[cfg(feature = "stream")]
#[derive(Debug)]
enum Stage<'a> {
    /// Nobody has asked it.
    None,
    Queued(Take<'a>),
    /// It has the turn, and holds it.
    First {
        _turn: Turn<'a>,
    },
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Incoming<'_> {
    type Item = Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Stage::None = self.stage {
            self.stage = Stage::Queued(self.listener.turns.take());
        }
        if let Stage::Queued(take) = &mut self.stage {
            let Poll::Ready(turn) = Pin::new(take).poll(cx) else {
                return Poll::Pending;
            };
            self.stage = Stage::First { _turn: turn };
        }
        let poll = self.listener.poll_accept(1, cx);
        if poll.is_ready() {
            self.stage = Stage::None;
        }
        poll.map(|accepted| accepted.map(|mut one| one.pop()).transpose())
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        // The Close that follows ends them, and a connection that comes before is closed.
        for accept in self.accepts.get_mut().drain(..) {
            accept.leave();
        }
    }
}
