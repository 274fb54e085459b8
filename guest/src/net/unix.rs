//! Connections to Unix sockets of the host.

use wakebox_abi::op::UnixConnect;

use super::{Stream, encode};
use crate::io::Result;

/// The kind of a connection to a Unix socket.
#[derive(Debug)]
pub enum Unix {}

/// A connection to a Unix stream socket. It is closed when it is dropped.
pub type UnixStream = Stream<Unix>;

impl Stream<Unix> {
    /// Connects to the socket at an absolute path of the host, which has to be granted as that.
    ///
    /// Cancel-safe: a connection that comes too late is closed.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` by the policy, `NotFound`, `ConnectionRefused`, and others of the host.
    pub async fn connect(path: impl AsRef<str>) -> Result<Self> {
        let (buf, text) = encode(&path.as_ref()).await?;
        let path = buf.filled();
        Self::open(UnixConnect { path }, buf, &text).await
    }
}
