//! The addresses of a socket.

use wakebox_abi::op::{End as Side, SocketAddress, SocketName};
use wakebox_abi::status::Status;

use super::handles::Resource;
use super::stream::Socket;
use super::{End, Start, Started, TokioBackend, status_of};

impl Start for SocketName {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < SocketAddress::SIZE {
            return Err(Status::InvalidInput);
        }
        let address = match (resources.handles.any(self.socket)?, self.end) {
            (Resource::Stream(stream), side) => match (&stream.socket, side) {
                (Socket::Tcp(stream), Side::Local) => stream.local_addr(),
                (Socket::Tcp(stream), Side::Peer) => stream.peer_addr(),
                (Socket::Unix(_), _) => return Err(Status::BadHandle),
            },
            (Resource::Udp(udp), Side::Local) => udp.local_addr(),
            (Resource::Udp(udp), Side::Peer) => udp.peer_addr(),
            (Resource::Listener(listener), Side::Local) => listener.local_addr(),
            (Resource::Listener(_), Side::Peer) => return Err(Status::NotConnected),
            _ => return Err(Status::BadHandle),
        };
        let address = SocketAddress(address.map_err(|error| status_of(&error))?);
        Ok(Started::Done(End::bytes(into.fill(&address.to_bytes()))))
    }
}
