//! Resolving names, and which of their addresses may be reached.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::Arc;

use wakebox_abi::op::{Lookup, SocketAddress};
use wakebox_abi::status::Status;

use super::blocking::BlockingPool;
use super::tcp::host_text;
use super::{End, Start, Started, TokioBackend};
use crate::policy::check::{Guard, Protocol, Refusal};
use crate::policy::{HostPort, zone};

/// Most addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 64;

/// Resolves names for one sandbox, as its policy allows.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    guard: Arc<Guard>,
    pool: BlockingPool,
}

impl Resolver {
    /// With so many questions at a time.
    pub(crate) fn new(guard: Arc<Guard>, most: usize) -> Self {
        Self {
            guard,
            pool: BlockingPool::new(most),
        }
    }

    /// The addresses of a name that may be resolved, as this host's resolver has them.
    async fn resolve(&self, name: String) -> Result<Vec<IpAddr>, Status> {
        let asked = name.clone();
        let call = move || {
            // The resolver's own errors have no number: the name is not known to it.
            let found = (asked.as_str(), 0).to_socket_addrs().map_err(|error| {
                match error.raw_os_error() {
                    None => Status::NotFound,
                    Some(_) => super::status_of(&error),
                }
            })?;
            let mut addresses = Vec::new();
            for address in found.map(|address| address.ip()) {
                if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                    addresses.push(address);
                }
            }
            Ok(addresses)
        };
        let addresses = self.pool.run(call).await.flatten()?;
        self.guard.learn(&name, &addresses);
        Ok(addresses)
    }

    /// The addresses of a host that may be reached, in the resolver's order; at least one.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` if none may be, `NotFound` if the name is not known.
    pub(super) async fn reachable(
        &self,
        protocol: Protocol,
        to: &HostPort,
    ) -> Result<Vec<SocketAddr>, Status> {
        let kind = match protocol {
            Protocol::Tcp => Refusal::Connect,
            Protocol::Udp => Refusal::Udp,
        };
        if let Some(ip) = to.ip() {
            let zone = to.zone().map(zone::index_of);
            let address = match (ip, zone.flatten()) {
                (IpAddr::V6(ip), Some(index)) => SocketAddrV6::new(ip, to.port, 0, index).into(),
                _ => SocketAddr::new(ip, to.port),
            };
            return match self.guard.may_reach(protocol, None, address) {
                // There is no such interface.
                true if zone == Some(None) => Err(Status::NotFound),
                true => Ok(vec![address]),
                false => Err(self.guard.refuse(kind, to)),
            };
        }
        if !self.guard.may_resolve(&to.host) {
            return Err(self.guard.refuse(kind, to));
        }
        let found = self.resolve(to.host.clone()).await?;
        let allowed: Vec<_> = found
            .iter()
            .map(|ip| SocketAddr::new(*ip, to.port))
            .filter(|address| self.guard.may_reach(protocol, Some(&to.host), *address))
            .collect();
        if allowed.is_empty() {
            return Err(self.guard.refuse(kind, format_args!("{to} at {found:?}")));
        }
        Ok(allowed)
    }
}

impl Start for Lookup {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let name = host_text(resources, self.name)?;
        // Parsed as what it is a part of, and brought into the same form.
        let address = name.as_str().split('%').next().unwrap_or_default();
        let with_port = match address.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{}]:0", *name),
            Err(_) => format!("{}:0", *name),
        };
        let host: HostPort = with_port.parse().map_err(|_| Status::InvalidInput)?;
        let encode = move |addresses: &[IpAddr]| {
            let bytes: Vec<u8> = addresses
                .iter()
                .flat_map(|ip| SocketAddress(SocketAddr::new(*ip, 0)).to_bytes())
                .collect();
            let whole = into.len().min(bytes.len()) / SocketAddress::SIZE * SocketAddress::SIZE;
            End::bytes(into.fill(&bytes[..whole]))
        };
        if let Some(ip) = host.ip() {
            return Ok(Started::Done(encode(&[ip])));
        }
        if !resources.policy.may_resolve(&host.host) {
            return Err(resources.policy.refuse(Refusal::Resolve, &host.host));
        }
        let resolver = resources.resolver.clone();
        Ok(Started::pending(async move {
            match resolver.resolve(host.host).await {
                Ok(addresses) => encode(&addresses),
                Err(status) => status.into(),
            }
        }))
    }
}
