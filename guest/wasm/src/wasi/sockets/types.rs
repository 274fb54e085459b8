//! The values of `wasi:sockets`, and what they are here.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use wakebox_guest::io::Status;
use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(ComponentType, Lower, Lift, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Family {
    #[component(name = "ipv4")]
    Ipv4,
    #[component(name = "ipv6")]
    Ipv6,
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "all that there are")]
pub(super) enum Shutdown {
    #[component(name = "receive")]
    Receive,
    #[component(name = "send")]
    Send,
    #[component(name = "both")]
    Both,
}

type V4 = (u8, u8, u8, u8);
type V6 = (u16, u16, u16, u16, u16, u16, u16, u16);

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(variant)]
pub(super) enum IpAddress {
    #[component(name = "ipv4")]
    Ipv4(V4),
    #[component(name = "ipv6")]
    Ipv6(V6),
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(record)]
pub(super) struct Ipv4SocketAddress {
    port: u16,
    address: V4,
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(record)]
pub(super) struct Ipv6SocketAddress {
    port: u16,
    #[component(name = "flow-info")]
    flow_info: u32,
    address: V6,
    #[component(name = "scope-id")]
    scope_id: u32,
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(variant)]
pub(super) enum IpSocketAddress {
    #[component(name = "ipv4")]
    Ipv4(Ipv4SocketAddress),
    #[component(name = "ipv6")]
    Ipv6(Ipv6SocketAddress),
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

#[derive(ComponentType, Lower, Lift, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "all that there are")]
pub(super) enum ErrorCode {
    #[component(name = "unknown")]
    Unknown,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "not-supported")]
    NotSupported,
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "out-of-memory")]
    OutOfMemory,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "concurrency-conflict")]
    ConcurrencyConflict,
    #[component(name = "not-in-progress")]
    NotInProgress,
    #[component(name = "would-block")]
    WouldBlock,
    #[component(name = "invalid-state")]
    InvalidState,
    #[component(name = "new-socket-limit")]
    NewSocketLimit,
    #[component(name = "address-not-bindable")]
    AddressNotBindable,
    #[component(name = "address-in-use")]
    AddressInUse,
    #[component(name = "remote-unreachable")]
    RemoteUnreachable,
    #[component(name = "connection-refused")]
    ConnectionRefused,
    #[component(name = "connection-reset")]
    ConnectionReset,
    #[component(name = "connection-aborted")]
    ConnectionAborted,
    #[component(name = "datagram-too-large")]
    DatagramTooLarge,
    #[component(name = "name-unresolvable")]
    NameUnresolvable,
    #[component(name = "temporary-resolver-failure")]
    TemporaryResolverFailure,
    #[component(name = "permanent-resolver-failure")]
    PermanentResolverFailure,
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
