//! The traits of `embedded-nal-async`, which clients for many protocols ask for.

use core::net::{IpAddr, SocketAddr};

use embedded_nal_async::AddrType;
use wakebox_abi::status::Status;

use super::lookup::lookup_one;
use super::{Stack, TcpStream};
use crate::io::{Error, Result};

/// Cancel-safe: a connection that comes too late is closed.
impl embedded_nal_async::TcpConnect for Stack {
    type Error = Error;
    type Connection<'a> = TcpStream;

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream> {
        self.reach(remote).await
    }
}

/// Cancel-safe. What is allowed is that of [`lookup`](super::lookup).
impl embedded_nal_async::Dns for Stack {
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
