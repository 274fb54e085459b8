//! TCP: connecting, listening, accepting.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wakebox_abi::op::{Buf, TcpAccept, TcpConnect, TcpListen};
use wakebox_abi::status::Status;

use super::stream::Stream;
use super::{End, Resources, Start, Started, status_of};
use crate::account::Charged;
use crate::driver::handles::Resource;
use crate::policy::check::{Protocol, Refusal};
use crate::policy::{HostPort, LocalAddress};

/// Longest address: a DNS name (RFC 1035, 2.3.4), a colon and a port.
const ADDRESS_MAX: usize = 255 + 6;

/// The text of an address, or of the name of a host.
pub(super) fn host_text(resources: &Resources, buf: Buf) -> Result<Charged<String>, Status> {
    resources.text(buf, ADDRESS_MAX)
}

/// The host and the port that a buffer names.
pub(super) fn host_port(resources: &Resources, buf: Buf) -> Result<HostPort, Status> {
    let text = host_text(resources, buf)?;
    text.parse().map_err(|_| Status::InvalidInput)
}

/// The address of this host that a buffer names. A number: resolving a name could block.
pub(super) fn local_address(resources: &Resources, buf: Buf) -> Result<LocalAddress, Status> {
    let text = host_text(resources, buf)?;
    text.parse().map_err(|_| Status::InvalidInput)
}

impl Start for TcpConnect {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let to = host_port(resources, self.address)?;
        let resolver = resources.resolver.clone();
        Ok(Started::pending(async move {
            let addresses = match resolver.reachable(Protocol::Tcp, &to).await {
                Ok(addresses) => addresses,
                Err(status) => return status.into(),
            };
            let mut last = End::from(Status::NotFound);
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        let stream = Arc::new(Stream::Tcp(stream));
                        return End::Open(Resource::Stream(stream));
                    }
                    Err(error) => last = error.into(),
                }
            }
            last
        }))
    }
}

impl Start for TcpListen {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        if !resources.policy.grants_listening() {
            // Before an interface is looked for.
            let address = host_port(resources, self.address)?;
            address.ip().ok_or(Status::InvalidInput)?;
            return Err(resources.policy.refuse(Refusal::Listen, address));
        }
        let address = local_address(resources, self.address)?;
        if !resources.policy.may_listen(address) {
            return Err(resources.policy.refuse(Refusal::Listen, address));
        }
        let listener = listen(address.0, self.backlog).map_err(|error| status_of(&error))?;
        Ok(Started::Done(End::Open(Resource::Listener(Arc::new(
            listener,
        )))))
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // As `tokio::net::TcpListener::bind` does: a restarted server finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog.clamp(1, 4096))
}

impl Start for TcpAccept {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let listener = resources.handles.listener(self.listener)?.clone();
        Ok(Started::pending_on(self.listener, async move {
            match listener.accept().await {
                Ok((stream, _)) => End::Open(Resource::Stream(Arc::new(Stream::Tcp(stream)))),
                Err(error) => error.into(),
            }
        }))
    }
}
