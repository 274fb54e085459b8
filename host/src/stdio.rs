//! Standard input and output of a guest, and where they lead.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex as AsyncMutex;
use wakebox_abi::op::Stream;

use crate::allowance;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::vm::memory::ArenaSlice;

/// Where a guest's output goes.
#[derive(Default)]
#[non_exhaustive]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// To this process's own stream of the same name.
    Inherit,
    /// Into memory.
    Capture(Captured),
    /// To whatever takes bytes.
    Writer(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Output {
    /// To whatever takes bytes.
    pub fn writer(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::Writer(Box::new(writer))
    }

    fn open(self, stream: Stream) -> Option<Writer> {
        Some(match (self, stream) {
            (Self::Null, _) => return None,
            (Self::Inherit, Stream::Out) => Box::new(tokio::io::stdout()),
            (Self::Inherit, Stream::Err) => Box::new(tokio::io::stderr()),
            (Self::Capture(captured), _) => Box::new(captured),
            (Self::Writer(writer), _) => writer,
        })
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
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written so far.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    /// What was written so far, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl AsyncWrite for Captured {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
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
    /// From this process's own standard input.
    Inherit,
    /// From whatever gives bytes.
    Reader(Box<dyn AsyncRead + Send + Unpin>),
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

    fn open(self) -> Box<dyn AsyncRead + Send + Unpin> {
        match self {
            Self::Null => Box::new(tokio::io::empty()),
            Self::Inherit => Box::new(tokio::io::stdin()),
            Self::Reader(reader) => reader,
        }
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

/// Takes what is written to one stream; nobody does if it leads nowhere.
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

struct Writers {
    out: Option<Writer>,
    err: Option<Writer>,
}

impl Writers {
    fn get(&mut self, stream: Stream) -> Option<&mut Writer> {
        match stream {
            Stream::Out => self.out.as_mut(),
            Stream::Err => self.err.as_mut(),
        }
    }
}

/// Both output streams, behind one fair lock: what a guest writes to either comes out in the
/// order in which it was written, and a slow reader slows the guest that writes to it.
#[derive(Clone)]
pub(crate) struct Console(Arc<AsyncMutex<Writers>>);

impl Console {
    pub(crate) fn new(out: Output, err: Output) -> Self {
        let writers = Writers {
            out: out.open(Stream::Out),
            err: err.open(Stream::Err),
        };
        Self(Arc::new(AsyncMutex::new(writers)))
    }

    /// Writes all of a part of the arena, piece by piece.
    pub(crate) fn write(
        &self,
        stream: Stream,
        from: ArenaSlice,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let writers = self.0.clone();
        async move {
            let mut writers = writers.lock_owned().await;
            let Some(writer) = writers.get(stream) else {
                // Nobody reads it: it need not be copied.
                return Ok(from.len());
            };
            for piece in from.pieces() {
                allowance::give_way().await;
                writer.write_all(&piece.to_vec()).await?;
            }
            Ok(from.len())
        }
    }

    /// Waits until everything written has left.
    pub(crate) async fn flush(&self) {
        let mut writers = self.0.lock().await;
        // A reader that has gone away is no reason to complain at the end.
        for stream in [Stream::Out, Stream::Err] {
            if let Some(writer) = writers.get(stream) {
                let _ = writer.flush().await;
            }
        }
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Console")
    }
}

/// Standard input behind a fair lock: two reads at once get one piece each.
#[derive(Clone)]
pub(crate) struct Stdin(Arc<AsyncMutex<Box<dyn AsyncRead + Send + Unpin>>>);

/// Most bytes that one read gives.
const READ_MAX: usize = 64 << 10;

impl Stdin {
    pub(crate) fn new(input: Input) -> Self {
        Self(Arc::new(AsyncMutex::new(input.open())))
    }

    /// Reads what there is into a part of the arena. Dropping the future loses no bytes.
    pub(crate) fn read(
        &self,
        into: ArenaSlice,
        meter: Arc<Meter>,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let reader = self.0.clone();
        async move {
            let mut reader = reader.lock_owned().await;
            let wanted = into.len().min(READ_MAX);
            let taken = meter
                .take(LimitKind::Stdin, wanted)
                .map_err(io::Error::other)?;
            let mut bytes = vec![0; taken.len()];
            let count = reader.read(&mut bytes).await?;
            taken.keep(count);
            Ok(into.fill(&bytes[..count]))
        }
    }
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stdin")
    }
}
