//! Standard input and output of a guest, and where they lead.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use wakebox_abi::op::Stream;
use wakebox_abi::status::Status;

use crate::allowance;
use crate::embedded::{Embedded, Home, Inside, Theirs};
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

    fn open(self, stream: Stream, home: &Home) -> Option<Owned<Writer>> {
        Some(Owned::Ours(match (self, stream) {
            (Self::Null, _) => return None,
            (Self::Inherit, Stream::Out) => Box::new(tokio::io::stdout()),
            (Self::Inherit, Stream::Err) => Box::new(tokio::io::stderr()),
            (Self::Capture(captured), _) => Box::new(captured),
            (Self::Writer(writer), _) => {
                return Some(Owned::Theirs(Embedded::new(writer, home.clone())));
            }
        }))
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

    fn open(self, home: &Home) -> Owned<Reader> {
        Owned::Ours(match self {
            Self::Null => Box::new(tokio::io::empty()),
            Self::Inherit => Box::new(tokio::io::stdin()),
            Self::Reader(reader) => return Owned::Theirs(Embedded::new(reader, home.clone())),
        })
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

type Writer = Box<dyn AsyncWrite + Send + Unpin>;
type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// An end of a stream: the library's own, or the embedder's.
enum Owned<T: Send + 'static> {
    Ours(T),
    Theirs(Embedded<T>),
}

impl<T: Send + 'static> Owned<T> {
    /// The end, for who may use both kinds.
    fn get(&mut self, inside: Inside) -> &mut T {
        match self {
            Self::Ours(end) => end,
            Self::Theirs(end) => end.get_mut(inside),
        }
    }
}

/// What takes what is written to each stream; nobody does if it leads nowhere.
struct Writers {
    out: Option<Owned<Writer>>,
    err: Option<Owned<Writer>>,
}

impl Writers {
    fn get(&mut self, stream: Stream) -> Option<&mut Owned<Writer>> {
        match stream {
            Stream::Out => self.out.as_mut(),
            Stream::Err => self.err.as_mut(),
        }
    }

    /// Waits until everything written has left.
    async fn flush(&mut self, inside: Inside) {
        // A reader that has gone away is no reason to complain at the end.
        for stream in [Stream::Out, Stream::Err] {
            if let Some(writer) = self.get(stream) {
                let _ = writer.get(inside).flush().await;
            }
        }
    }
}

/// Both output streams, behind one fair lock: what a guest writes to either comes out in the
/// order in which it was written, and a slow reader slows the guest that writes to it.
#[derive(Clone)]
pub(crate) struct Console {
    writers: Arc<AsyncMutex<Writers>>,
    home: Home,
}

impl Console {
    /// `home` is where writers of the embedder's are used.
    pub(crate) fn new(out: Output, err: Output, home: &Home) -> Self {
        let writers = Writers {
            out: out.open(Stream::Out, home),
            err: err.open(Stream::Err, home),
        };
        Self {
            writers: Arc::new(AsyncMutex::new(writers)),
            home: home.clone(),
        }
    }

    /// Writes all of a part of the arena, piece by piece.
    pub(crate) fn write(
        &self,
        stream: Stream,
        from: ArenaSlice,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let Self { writers, home } = self.clone();
        async move {
            // Whose turn it is, is found out here, in the order of the writes.
            let mut writers = writers.lock_owned().await;
            for piece in from.pieces() {
                allowance::give_way().await;
                let bytes = match writers.get(stream) {
                    // Nobody reads it: it need not be copied.
                    None => return Ok(from.len()),
                    Some(Owned::Ours(writer)) => {
                        writer.write_all(&piece.to_vec()).await?;
                        continue;
                    }
                    Some(Owned::Theirs(_)) => piece.to_vec(),
                };
                let write = move |inside: Inside| -> Result<Theirs<io::Result<_>>, Status> {
                    Ok(Box::pin(async move {
                        if let Some(writer) = writers.get(stream)
                            && let Err(error) = writer.get(inside).write_all(&bytes).await
                        {
                            return Ok(Err(error));
                        }
                        Ok(Ok(writers))
                    }))
                };
                writers = run(&home, write).await?;
            }
            Ok(from.len())
        }
    }

    /// Waits until everything written has left.
    pub(crate) async fn flush(&self) {
        let mut writers = self.writers.clone().lock_owned().await;
        let flush = move |inside: Inside| -> Result<Theirs<io::Result<()>>, Status> {
            Ok(Box::pin(async move {
                writers.flush(inside).await;
                Ok(Ok(()))
            }))
        };
        let _ = run(&self.home, flush).await;
    }
}

/// Does something with what is the embedder's, in its runtime.
async fn run<T, B>(home: &Home, begin: B) -> io::Result<T>
where
    T: Send + 'static,
    B: FnOnce(Inside) -> Result<Theirs<io::Result<T>>, Status> + Send + Unpin + 'static,
{
    let task = home.run(begin, None).map_err(io::Error::other)?;
    task.await.map_err(io::Error::other)?
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Console")
    }
}

struct Source {
    reader: Owned<Reader>,
    /// Read, and given to nobody yet.
    rest: Vec<u8>,
}

/// Standard input behind a fair lock: two reads at once get one piece each.
#[derive(Clone)]
pub(crate) struct Stdin {
    source: Arc<AsyncMutex<Source>>,
    home: Home,
}

/// Most bytes that one read gives.
const READ_MAX: usize = 64 << 10;

impl Stdin {
    /// `home` is where a reader of the embedder's is used.
    pub(crate) fn new(input: Input, home: &Home) -> Self {
        let source = Source {
            reader: input.open(home),
            rest: Vec::new(),
        };
        Self {
            source: Arc::new(AsyncMutex::new(source)),
            home: home.clone(),
        }
    }

    /// Reads what there is into a part of the arena. Dropping the future loses no bytes.
    pub(crate) fn read(
        &self,
        into: ArenaSlice,
        meter: Arc<Meter>,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let Self { source, home } = self.clone();
        async move {
            let mut source = source.lock_owned().await;
            let wanted = into.len().min(READ_MAX);
            let taken = meter
                .take(LimitKind::Stdin, wanted)
                .map_err(io::Error::other)?;
            let most = taken.len();
            if source.rest.is_empty() {
                source = Self::fill(source, most, &home).await?;
            }
            let count = into.fill(&source.rest[..most.min(source.rest.len())]);
            source.rest.drain(..count);
            taken.keep(count);
            Ok(count)
        }
    }

    /// Reads at most so many bytes.
    async fn fill(
        mut source: OwnedMutexGuard<Source>,
        most: usize,
        home: &Home,
    ) -> io::Result<OwnedMutexGuard<Source>> {
        let mut bytes = vec![0; most];
        if let Owned::Ours(reader) = &mut source.reader {
            let count = reader.read(&mut bytes).await?;
            bytes.truncate(count);
            source.rest = bytes;
            return Ok(source);
        }
        let read = move |inside: Inside| -> Result<Theirs<io::Result<_>>, Status> {
            Ok(Box::pin(async move {
                let read = source.reader.get(inside).read(&mut bytes).await;
                Ok(read.map(|count| {
                    bytes.truncate(count);
                    // There before anybody may lose interest.
                    source.rest = bytes;
                    source
                }))
            }))
        };
        run(home, read).await
    }
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stdin")
    }
}
