//! The network as one value, for crates that are written for somebody's traits of one.

use core::net::SocketAddr;

use super::TcpStream;
use crate::io::Result;

/// The network, as far as the sandbox's policy allows: what crates take that are written for the
/// traits of `embedded-nal-async` or `edge-nal`.
///
/// What it connects sends small writes at once ([`TcpStream::set_nodelay`]): whoever knows a connection by
/// such traits cannot ask for it, and protocols of questions and answers stand still without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stack;

impl Stack {
    /// Connects. Cancel-safe: a connection that comes too late is closed.
    pub(super) async fn reach(self, remote: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect(remote).await?;
        stream.set_nodelay(true).await?;
        Ok(stream)
    }
}
