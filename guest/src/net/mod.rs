//! TCP, UDP, Unix sockets and names, as far as the sandbox's policy allows.
//!
//! Each operation says whether it is *cancel-safe*: whether its future may be dropped before it is
//! ready, by a timeout or a `select`, without losing or doubling anything.

#[cfg(feature = "edge-nal")]
mod edge;
#[cfg(feature = "embedded-io-async")]
mod embedded;
mod listener;
mod lookup;
mod movable;
#[cfg(feature = "embedded-nal-async")]
mod nal;
mod outbox;
#[cfg(feature = "picoserve")]
pub mod picoserve;
mod split;
#[cfg(any(feature = "edge-nal", feature = "embedded-nal-async"))]
mod stack;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod unix;

use core::fmt::Display;
use core::net::SocketAddr;

#[cfg(feature = "stream")]
pub use self::listener::Incoming;
pub use self::listener::TcpListener;
pub use self::lookup::lookup;
pub use self::movable::Movable;
pub use self::split::{NotOne, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
#[cfg(any(feature = "edge-nal", feature = "embedded-nal-async"))]
pub use self::stack::Stack;
pub use self::stream::Stream;
pub use self::tcp::{Tcp, TcpStream};
pub use self::udp::{Datagrams, UdpSocket};
pub use self::unix::{Unix, UnixStream};
pub use wakebox_abi::op::Shutdown;

use wakebox_abi::op::{Close, End, Handle, SocketAddress, SocketName};
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::reactor::{Orphan, Owner};
use crate::runtime::runtime;

/// An open resource of the host, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct OwnedHandle(pub(crate) Handle);

impl Drop for OwnedHandle {
    fn drop(&mut self) {
        let close = Close { handle: self.0 };
        runtime()
            .reactor
            .submit_urgent(close.into(), Owner::Nobody(Orphan::default()));
    }
}

/// The address of one end of a socket.
async fn socket_name(socket: Handle, end: End) -> Result<SocketAddr> {
    let mut buf = IoBuf::with_capacity(SocketAddress::SIZE).await?;
    buf.set_len(SocketAddress::SIZE);
    let into = buf.filled();
    let (outcome, buf) = Op::with_buf(SocketName { socket, end, into }, buf).await;
    outcome?;
    Ok(buf
        .as_ref()
        .and_then(written_address)
        .ok_or(Status::InvalidData)?)
}

/// The address that the host has written into a buffer.
fn written_address(buf: &IoBuf) -> Option<SocketAddr> {
    let address = SocketAddress::from_bytes(buf.first_chunk()?)?;
    Some(address.0)
}

/// An address as the host wants it, and the same for messages.
async fn encode(address: &impl Display) -> Result<(IoBuf, alloc::string::String)> {
    let text = alloc::format!("{address}");
    Ok((IoBuf::copy_of(text.as_bytes()).await?, text))
}
