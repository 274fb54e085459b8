//! Settings of sockets.

use std::time::Duration;

use rustix::net::sockopt;
use wakebox_abi::op::{SetSocketOption, SocketOption};
use wakebox_abi::status::Status;

use super::stream::Socket;
use super::{End, Start, Started, TokioBackend};

/// Most seconds that the kernel takes (`MAX_TCP_KEEPIDLE` in its net/tcp.h).
const KEEP_ALIVE_MAX: u32 = 32_767;

impl Start for SetSocketOption {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let Socket::Tcp(stream) = &resources.handles.stream(self.socket)?.socket else {
            return Err(Status::InvalidInput);
        };
        let done = match (self.option, self.value) {
            (SocketOption::NoDelay, value @ 0..=1) => sockopt::set_tcp_nodelay(stream, value == 1),
            (SocketOption::NoDelay, _) => return Err(Status::InvalidInput),
            (SocketOption::KeepAlive, 0) => sockopt::set_socket_keepalive(stream, false),
            (SocketOption::KeepAlive, seconds) => {
                let time = Duration::from_secs(seconds.min(KEEP_ALIVE_MAX).into());
                sockopt::set_tcp_keepidle(stream, time)
                    .and_then(|()| sockopt::set_tcp_keepintvl(stream, time))
                    .and_then(|()| sockopt::set_socket_keepalive(stream, true))
            }
        };
        Ok(Started::Done(match done {
            Ok(()) => End::OK,
            Err(error) => std::io::Error::from(error).into(),
        }))
    }
}
