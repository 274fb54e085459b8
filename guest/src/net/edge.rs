//! The traits of `edge-nal`, which the crates `edge-http`, `edge-mqtt` and their kin ask for.

use core::net::{IpAddr, SocketAddr};

use edge_nal::{AddrType, Close, Readable, TcpAccept, TcpBind, TcpShutdown, TcpSplit};

use super::lookup::lookup_one;
use super::{OwnedReadHalf, ReadHalf, Shutdown, Stack, Stream, TcpListener, TcpStream, WriteHalf};
use crate::io::{Error, Result};
use wakebox_abi::status::Status;

impl<K> Readable for Stream<K> {
    async fn readable(&mut self) -> Result<()> {
        Self::readable(self).await
    }
}

impl<K> Readable for ReadHalf<'_, K> {
    async fn readable(&mut self) -> Result<()> {
        Self::readable(self).await
    }
}

impl<K> Readable for OwnedReadHalf<K> {
    async fn readable(&mut self) -> Result<()> {
        Self::readable(self).await
    }
}

impl<K> TcpSplit for Stream<K> {
    type Read<'a>
        = ReadHalf<'a, K>
    where
        Self: 'a;
    type Write<'a>
        = WriteHalf<'a, K>
    where
        Self: 'a;

    fn split(&mut self) -> (Self::Read<'_>, Self::Write<'_>) {
        Self::split(self)
    }
}

impl<K> TcpShutdown for Stream<K> {
    /// Does not wait for what the peer still sends.
    async fn close(&mut self, what: Close) -> Result<()> {
        self.shutdown(match what {
            Close::Read => Shutdown::Read,
            Close::Write => Shutdown::Write,
            Close::Both => Shutdown::Both,
        })
        .await
    }

    /// As closing both: a connection ends when it is dropped.
    async fn abort(&mut self) -> Result<()> {
        self.shutdown(Shutdown::Both).await
    }
}

/// Cancel-safe: a connection that comes too late is closed.
impl edge_nal::TcpConnect for Stack {
    type Error = Error;
    type Socket<'a> = TcpStream;

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream> {
        self.reach(remote).await
    }
}

impl TcpBind for Stack {
    type Error = Error;
    type Accept<'a> = TcpListener;

    async fn bind(&self, local: SocketAddr) -> Result<TcpListener> {
        TcpListener::bind(local).await
    }
}

/// Cancel-safe, except that a connection whose future is dropped while small writes are told not to wait is closed.
impl TcpAccept for TcpListener {
    type Error = Error;
    type Socket<'a> = TcpStream;

    async fn accept(&self) -> Result<(SocketAddr, TcpStream)> {
        let (stream, peer) = self.accept_from().await?;
        stream.set_nodelay(true).await?;
        Ok((peer, stream))
    }
}

/// Cancel-safe. What is allowed is that of [`lookup`](super::lookup).
impl edge_nal::Dns for Stack {
    type Error = Error;

    async fn get_host_by_name(&self, host: &str, kind: AddrType) -> Result<IpAddr> {
        let is_wanted: fn(&IpAddr) -> bool = match kind {
            AddrType::IPv4 => IpAddr::is_ipv4,
            AddrType::IPv6 => IpAddr::is_ipv6,
            AddrType::Either => |_| true,
        };
        lookup_one(host, is_wanted, kind).await
    }

    /// `Unsupported`: a sandbox learns no names.
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize> {
        Err(Status::Unsupported.into())
    }
}
