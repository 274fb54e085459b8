//! Waiting for connections.

use core::cell::{Cell, RefCell};
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;

use wakebox_abi::op::{End, Handle, TcpAccept, TcpListen};
use wakebox_abi::status::Status;

use super::{OwnedHandle, TcpStream, encode, socket_name};
use crate::io::{Error, Result};
use crate::op::Op;

/// Connections that may wait to be accepted, unless [`TcpListener::bind_with_backlog`] says otherwise.
const BACKLOG: u32 = 1024;

/// A TCP socket that waits for connections. It is closed when it is dropped.
#[derive(Debug)]
pub struct TcpListener {
    // The field order is that of the drop: first the operation, then its handle.
    /// The accept in flight. It belongs to the listener, so that a connection that
    /// arrives when nobody waits is for the next who does.
    accept: RefCell<Option<Op>>,
    /// Whether a future waits.
    busy: Cell<bool>,
    handle: OwnedHandle,
}

impl TcpListener {
    /// Binds an address, as in "127.0.0.1:7777", and listens. Port 0 lets the host choose.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `AddrInUse`, and others of the host.
    pub async fn bind(address: impl Display) -> Result<Self> {
        Self::bind_with_backlog(address, BACKLOG).await
    }

    /// As [`Self::bind`], with the most connections that may wait to be accepted.
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
            accept: RefCell::new(None),
            busy: Cell::new(false),
            handle: OwnedHandle(Handle(handle)),
        })
    }

    /// Waits for a connection. The future may be dropped; no connection is lost.
    ///
    /// # Errors
    ///
    /// Those of the host, and `Busy` while another future waits.
    pub async fn accept(&self) -> Result<TcpStream> {
        struct Turn<'a>(&'a Cell<bool>);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }

        let failed = |status| Error::new(status, "accept a connection");
        if self.busy.replace(true) {
            return Err(failed(Status::Busy));
        }
        let _turn = Turn(&self.busy);
        let listener = self.handle.0;
        let (outcome, _) = poll_fn(|cx| {
            let mut accept = self.accept.borrow_mut();
            let accept =
                accept.get_or_insert_with(|| Op::new(TcpAccept { listener }).giving_handle());
            Pin::new(accept).poll(cx)
        })
        .await;
        *self.accept.borrow_mut() = None;
        Ok(TcpStream::new(Handle(outcome.map_err(failed)?)))
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn local_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Local).await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        // The Close that follows ends it, and a connection that comes before is closed.
        if let Some(accept) = self.accept.get_mut().take() {
            accept.leave();
        }
    }
}
