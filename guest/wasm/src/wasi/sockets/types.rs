//! The values of `wasi:sockets`, and what they are here.

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use wakebox_guest::io::Status;

use super::super::value::{cases, record, variant};

cases! {
    pub(super) enum Family {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

cases! {
    pub(super) enum Shutdown {
        Receive = "receive",
        Send = "send",
        Both = "both",
    }
}

type V4 = (u8, u8, u8, u8);
type V6 = (u16, u16, u16, u16, u16, u16, u16, u16);

variant! {
    #[derive(Clone, Copy)]
    pub(super) enum IpAddress {
        Ipv4(value: V4) = "ipv4",
        Ipv6(value: V6) = "ipv6",
    }
}

record! {
    #[derive(Clone, Copy)]
    pub(super) struct Ipv4SocketAddress {
        port: u16 = "port",
        address: V4 = "address",
    }
}

record! {
    #[derive(Clone, Copy)]
    pub(super) struct Ipv6SocketAddress {
        port: u16 = "port",
        flow_info: u32 = "flow-info",
        address: V6 = "address",
        scope_id: u32 = "scope-id",
    }
}

variant! {
    #[derive(Clone, Copy)]
    pub(super) enum IpSocketAddress {
        Ipv4(value: Ipv4SocketAddress) = "ipv4",
        Ipv6(value: Ipv6SocketAddress) = "ipv6",
    }
}

fn v4(address: Ipv4Addr) -> V4 {
    let [a, b, c, d] = address.octets();
    (a, b, c, d)
}

fn v6(address: Ipv6Addr) -> V6 {
    let [a, b, c, d, e, f, g, h] = address.segments();
    (a, b, c, d, e, f, g, h)
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(v4(address)),
            IpAddr::V6(address) => Self::Ipv6(v6(address)),
        }
    }
}

impl From<SocketAddr> for IpSocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::Ipv4(Ipv4SocketAddress {
                port: address.port(),
                address: v4(*address.ip()),
            }),
            SocketAddr::V6(address) => Self::Ipv6(Ipv6SocketAddress {
                port: address.port(),
                flow_info: address.flowinfo(),
                address: v6(*address.ip()),
                scope_id: address.scope_id(),
            }),
        }
    }
}

impl From<IpSocketAddress> for SocketAddr {
    fn from(address: IpSocketAddress) -> Self {
        match address {
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }) => {
                let (a, b, c, d) = address;
                SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into()
            }
            IpSocketAddress::Ipv6(of) => {
                let (a, b, c, d, e, f, g, h) = of.address;
                let address = Ipv6Addr::new(a, b, c, d, e, f, g, h);
                SocketAddrV6::new(address, of.port, of.flow_info, of.scope_id).into()
            }
        }
    }
}

impl Family {
    /// The address, for a socket of this family.
    pub(super) fn local(self, address: IpSocketAddress) -> Result<SocketAddr, ErrorCode> {
        let address = SocketAddr::from(address);
        let fits = match address.ip() {
            IpAddr::V4(_) => self == Self::Ipv4,
            IpAddr::V6(ip) => self == Self::Ipv6 && ip.to_ipv4_mapped().is_none(),
        };
        fits.then_some(address).ok_or(ErrorCode::InvalidArgument)
    }

    /// The address, of somebody to whom one can send.
    pub(super) fn remote(self, address: IpSocketAddress) -> Result<SocketAddr, ErrorCode> {
        let address = self.local(address)?;
        let ip = address.ip();
        let is_somebody = address.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
        is_somebody
            .then_some(address)
            .ok_or(ErrorCode::InvalidArgument)
    }
}

cases! {
    pub(super) enum ErrorCode (newer:
        "unknown" => "other",
        "concurrency-conflict" => "invalid-state",
        "not-in-progress" => "invalid-state",
        "would-block" => "other",
        "new-socket-limit" => "other",
        "name-unresolvable" => "other",
        "temporary-resolver-failure" => "other",
        "permanent-resolver-failure" => "other"
    ) {
        Unknown = "unknown",
        AccessDenied = "access-denied",
        NotSupported = "not-supported",
        InvalidArgument = "invalid-argument",
        OutOfMemory = "out-of-memory",
        Timeout = "timeout",
        ConcurrencyConflict = "concurrency-conflict",
        NotInProgress = "not-in-progress",
        WouldBlock = "would-block",
        InvalidState = "invalid-state",
        NewSocketLimit = "new-socket-limit",
        AddressNotBindable = "address-not-bindable",
        AddressInUse = "address-in-use",
        RemoteUnreachable = "remote-unreachable",
        ConnectionRefused = "connection-refused",
        ConnectionReset = "connection-reset",
        ConnectionAborted = "connection-aborted",
        DatagramTooLarge = "datagram-too-large",
        NameUnresolvable = "name-unresolvable",
        TemporaryResolverFailure = "temporary-resolver-failure",
        PermanentResolverFailure = "permanent-resolver-failure",
    }
}

variant! {
    /// Why a name has no addresses, in 0.3.
    pub(super) enum LookupError {
        AccessDenied = "access-denied",
        InvalidArgument = "invalid-argument",
        NameUnresolvable = "name-unresolvable",
        Other(value: Option<String>) = "other",
    }
}

impl From<Status> for LookupError {
    fn from(status: Status) -> Self {
        match status {
            Status::PermissionDenied => Self::AccessDenied,
            Status::InvalidInput => Self::InvalidArgument,
            Status::NotFound => Self::NameUnresolvable,
            other => Self::Other(Some(other.text().into())),
        }
    }
}

impl From<Status> for ErrorCode {
    fn from(status: Status) -> Self {
        match status {
            Status::PermissionDenied => Self::AccessDenied,
            Status::Unsupported => Self::NotSupported,
            Status::InvalidInput => Self::InvalidArgument,
            Status::OutOfMemory => Self::OutOfMemory,
            Status::TimedOut => Self::Timeout,
            Status::Busy => Self::ConcurrencyConflict,
            Status::NotConnected => Self::InvalidState,
            Status::LimitReached => Self::NewSocketLimit,
            Status::AddrNotAvailable => Self::AddressNotBindable,
            Status::AddrInUse => Self::AddressInUse,
            Status::NetworkUnreachable | Status::HostUnreachable => Self::RemoteUnreachable,
            Status::ConnectionRefused => Self::ConnectionRefused,
            Status::ConnectionReset | Status::BrokenPipe => Self::ConnectionReset,
            Status::ConnectionAborted => Self::ConnectionAborted,
            Status::MessageTooLarge => Self::DatagramTooLarge,
            Status::NotFound => Self::NameUnresolvable,
            _ => Self::Unknown,
        }
    }
}

impl From<wakebox_guest::io::Error> for ErrorCode {
    fn from(error: wakebox_guest::io::Error) -> Self {
        error.status().into()
    }
}
