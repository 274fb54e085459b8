//! TCP connections.

use core::fmt::Display;
use core::net::SocketAddr;
use core::time::Duration;

use wakebox_abi::op::{End, SetSocketOption, SocketOption, TcpConnect};

use super::{Stream, encode, socket_name};
use crate::io::Result;
use crate::op::Op;

/// The kind of a connection over TCP.
#[derive(Debug)]
pub enum Tcp {}

/// A TCP connection. It is closed when it is dropped.
pub type TcpStream = Stream<Tcp>;

impl Stream<Tcp> {
    /// Connects to an address, as in "127.0.0.1:80" or "example.org:80". The addresses of a name
    /// are tried in turn.
    ///
    /// Cancel-safe: a connection that comes too late is closed.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `ConnectionRefused`, `NotFound` for a name that nobody
    /// has, and others of the host.
    pub async fn connect(address: impl Display) -> Result<Self> {
        let (buf, text) = encode(&address).await?;
        let address = buf.filled();
        Self::open(TcpConnect { address }, buf, &text).await
    }

    /// Says whether small writes leave at once (`true`) or wait a little for company, as they do at
    /// first. Cancel-safe once polled.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        self.set(SocketOption::NoDelay, nodelay.into()).await
    }

    /// Asks the peer after this time without traffic, and then as often, whether it is still there;
    /// `None`, as at first, never asks. Whole seconds, rounded up. Cancel-safe once polled.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn set_keepalive(&self, after: Option<Duration>) -> Result<()> {
        let seconds = after.map_or(0, |time| {
            let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            u32::try_from(whole).unwrap_or(u32::MAX).max(1)
        });
        self.set(SocketOption::KeepAlive, seconds).await
    }

    async fn set(&self, option: SocketOption, value: u32) -> Result<()> {
        let socket = self.handle.0;
        let operation = SetSocketOption {
            socket,
            option,
            value,
        };
        Op::new(operation).await.0?;
        Ok(())
    }

    /// The address of this side. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn local_addr(&self) -> Result<SocketAddr> {
        socket_name(self.handle.0, End::Local).await
    }

    /// The address of the other side. A connection that was accepted knows it; one that was made asks the
    /// host. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub async fn peer_addr(&self) -> Result<SocketAddr> {
        match self.peer {
            Some(peer) => Ok(peer),
            None => socket_name(self.handle.0, End::Peer).await,
        }
    }
}
