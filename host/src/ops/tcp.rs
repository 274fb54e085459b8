//! TCP: connecting, listening, accepting.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wakebox_abi::op::{Buf, TcpAccept, TcpConnect, TcpListen};
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started, status_of};
use crate::driver::handles::Resource;
use crate::policy::HostPort;

/// Longest address: a DNS name (RFC 1035, 2.3.4), a colon and a port.
const ADDRESS_MAX: u32 = 255 + 6;

fn address(resources: &Resources, buf: Buf) -> Result<HostPort, Status> {
    if buf.len > ADDRESS_MAX {
        return Err(Status::InvalidInput);
    }
    let bytes = resources.slice(buf)?.to_vec();
    let text = std::str::from_utf8(&bytes).map_err(|_| Status::InvalidInput)?;
    text.parse().map_err(|_| Status::InvalidInput)
}

impl Start for TcpConnect {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let address = address(resources, self.address)?;
        if !resources.policy.may_connect(&address) {
            return Err(resources.policy.refused("connect", &address));
        }
        Ok(Started::pending(async move {
            match TcpStream::connect((address.host.as_str(), address.port)).await {
                Ok(stream) => End::Open(Resource::Stream(Arc::new(stream))),
                Err(error) => error.into(),
            }
        }))
    }
}

impl Start for TcpListen {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let address = address(resources, self.address)?;
        if !resources.policy.may_listen(&address) {
            return Err(resources.policy.refused("listen", &address));
        }
        // A listening address is a number: resolving a name could block.
        let ip = address.host.parse().map_err(|_| Status::InvalidInput)?;
        let listener = listen(SocketAddr::new(ip, address.port), self.backlog)
            .map_err(|error| status_of(&error))?;
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
                Ok((stream, _)) => End::Open(Resource::Stream(Arc::new(stream))),
                Err(error) => error.into(),
            }
        }))
    }
}
