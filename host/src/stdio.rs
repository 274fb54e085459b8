//! Standard input and output of a guest, and where they lead.

mod console;
mod descriptor;
mod ledger;
mod stdin;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::console::Console;
pub(crate) use self::stdin::Stdin;
use crate::account::{Account, Parts};

/// What an embedding program gives to write to.
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What an embedding program gives to read from.
type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where a guest's output goes.
#[derive(Default)]
#[non_exhaustive]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// To this process's own stream of the same name, with nothing in between that would keep it.
    Inherit,
    /// Into memory, as much as the limit on host memory allows.
    Capture(Captured),
    /// To whatever takes bytes. It is polled by tasks of the runtime in which the sandbox runs, flushed
    /// after each write of the guest, and dropped when the run ends.
    Writer(Writer),
}

impl Output {
    /// To whatever takes bytes.
    pub fn writer(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::Writer(Box::new(writer))
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Capture(_) => "Capture",
            Self::Writer(_) => "Writer",
        })
    }
}

/// Output kept in memory. Clones share it.
///
/// What a sandbox writes to it counts as host memory of that sandbox
/// ([`LimitKind::HostMemory`](crate::LimitKind::HostMemory)) for as long as it is kept: beyond the limit
/// a write ends with an error in the guest, and what did not fit is
/// [lost output](crate::Sandbox::lost_output). What is written to it as to any other writer
/// ([`Output::writer`]) counts for nobody.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Parts>>);

impl Captured {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    ///
    /// There is no memory for it, or the account has no room.
    fn append(&self, bytes: &[u8], account: &Account) -> io::Result<()> {
        let part = account.concat(&[bytes]).map_err(io::Error::other)?;
        self.parts().add(part).map_err(io::Error::other)
    }

    /// What was written so far.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().to_vec()
    }

    /// What was written so far, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.to_vec()).into_owned()
    }
}

impl AsyncWrite for Captured {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(
            self.append(bytes, &Account::new(u64::MAX))
                .map(|()| bytes.len()),
        )
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where a guest's input comes from.
#[derive(Default)]
#[non_exhaustive]
pub enum Input {
    /// Nowhere: it is at its end.
    #[default]
    Null,
    /// From this process's own standard input. What the guest does not ask for stays there; a read
    /// that is under way when the run ends keeps no thread.
    Inherit,
    /// From whatever gives bytes. It is polled by tasks of the runtime in which the sandbox runs, and
    /// dropped when the run ends.
    Reader(Reader),
}

impl Input {
    /// From whatever gives bytes.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Reader(Box::new(reader))
    }

    /// From memory.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::reader(io::Cursor::new(bytes.into()))
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Reader(_) => "Reader",
        })
    }
}
