//! The operations, one file a kind. This one only dispatches.
//!
//! To add a kind: a row in `wakebox_abi::op`, a file here with an `impl Start` for the row's
//! struct, and a line in [`start`].

mod address;
pub(crate) mod blocking;
mod call;
mod clock;
mod close;
mod console;
mod deadline;
mod directory;
mod entropy;
mod file;
pub(crate) mod lookup;
mod nop;
mod option;
mod path;
pub(crate) mod regular;
mod stdin;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
mod unix;
mod wait;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::file::PATH_MAX;
use wakebox_abi::op::{self, Handle, Opcode, Request};
use wakebox_abi::status::Status;

use self::blocking::{Lanes, Reach};
use self::lookup::Resolver;
use crate::account::{Account, Charged};
use crate::allowance;
use crate::calls::guest::Mailbox;
use crate::calls::host::Callables;
use crate::driver::handles::{Closed, Handles, Resource, Vacancy};
use crate::driver::inflight::Operation;
use crate::meter::Meter;
use crate::policy::check::Guard;
use crate::stdio::{Console, Stdin};
use crate::stop::Stop;
use crate::tree::Tree;
use crate::vm::memory::{Arena, ArenaSlice};
use crate::vm::signal::RunPage;

/// What operations work with.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) arena: Arena,
    pub(crate) handles: Handles,
    pub(crate) policy: Arc<Guard>,
    pub(crate) resolver: Resolver,
    pub(crate) tree: Tree,
    /// For calls that may wait for a disk.
    pub(crate) disk: Lanes,
    pub(crate) console: Console,
    pub(crate) stdin: Stdin,
    pub(crate) callables: Callables,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) account: Account,
    pub(crate) meter: Arc<Meter>,
    /// Ends the sandbox at a limit that does.
    pub(crate) stop: Arc<Stop<RunPage>>,
    /// Zero of the guest's monotonic clock.
    pub(crate) start: Instant,
}

impl Resources {
    /// Turns an operation's end into what stands in its completion.
    pub(crate) fn settle(&mut self, end: End) -> (Status, u32) {
        match end {
            End::Done(status, value) => (status, value),
            End::Open(resource, vacancy) => (Status::Ok, self.handles.open(resource, vacancy).0),
            End::Overflow(message, into) => match self.handles.vacancies().take() {
                Ok(vacancy) => {
                    let handle = self.handles.open(message, vacancy);
                    if into.fill(&handle.0.to_le_bytes()) == 4 {
                        return (Status::Ok, op::OVERFLOW);
                    }
                    // No room even for the handle.
                    let _ = self.handles.close(handle);
                    (Status::MessageTooLarge, 0)
                }
                Err(status) => (status, 0),
            },
        }
    }

    /// The text of at most `most` bytes that a buffer holds, charged for as long as it is kept.
    fn text(&self, buf: op::Buf, most: usize) -> Result<Charged<String>, Status> {
        if buf.len as usize > most {
            return Err(Status::InvalidInput);
        }
        let bytes = self.slice(buf)?.keep(&self.account)?;
        bytes.try_map(|bytes| String::from_utf8(bytes).map_err(|_| Status::InvalidInput))
    }

    /// A place for something that is to be opened.
    ///
    /// # Errors
    ///
    /// `LimitReached` if there is none.
    fn vacancy(&self) -> Result<Vacancy, Status> {
        self.handles.vacancies().take()
    }

    /// The part of the arena that a buffer names.
    fn slice(&self, buf: op::Buf) -> Result<ArenaSlice, Status> {
        self.arena.slice(buf).ok_or(Status::InvalidInput)
    }
}

/// How an operation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With a status and a value.
    Done(Status, u32),
    /// With something open, whose handle is the value, in the place that was taken before it was
    /// opened.
    Open(Resource, Vacancy),
    /// With a message that did not fit, whose handle goes into the buffer instead.
    Overflow(Resource, ArenaSlice),
}

impl End {
    pub(crate) const OK: Self = Self::Done(Status::Ok, 0);
    pub(crate) const CANCELLED: Self = Self::Done(Status::Cancelled, 0);

    /// With a count of bytes.
    fn bytes(count: usize) -> Self {
        Self::Done(Status::Ok, count as u32)
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Done(status, 0)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        status_of(&error).into()
    }
}

/// How an operation began.
pub(crate) enum Started {
    /// It is done already.
    Done(End),
    /// It goes on, perhaps on an open resource.
    Pending(Option<Handle>, Operation),
    /// It goes on with an open resource, and is not dropped once it has begun to reach into the
    /// arena.
    Reaching(Handle, Operation, Reach),
    /// It cancels another one, and has no completion.
    Cancel(Token),
    /// It closed a resource on which operations were in flight, perhaps.
    Closed(Closed),
}

impl Started {
    /// Something that goes on.
    fn pending(future: impl Future<Output = End> + Send + 'static) -> Self {
        Self::Pending(None, Box::pin(future))
    }

    /// Something that goes on with an open resource, and is cancelled when that is closed.
    fn pending_on(handle: Handle, future: impl Future<Output = End> + Send + 'static) -> Self {
        Self::Pending(Some(handle), Box::pin(future))
    }

    /// With something that is held until it is done.
    fn holding(self, held: impl Send + 'static) -> Self {
        match self {
            Self::Pending(handle, operation) => {
                let holding = async move {
                    let _held = held;
                    operation.await
                };
                Self::Pending(handle, Box::pin(holding))
            }
            other => other,
        }
    }
}

impl From<Status> for Started {
    fn from(status: Status) -> Self {
        Self::Done(status.into())
    }
}

/// The host's part of an operation.
trait Start: op::Operation {
    /// Does it, or begins to. Must not block.
    ///
    /// # Errors
    ///
    /// The status with which it ends at once.
    fn start(self, resources: &mut Resources) -> Result<Started, Status>;
}

/// What starting an operation costs of the turn's allowance, besides the bytes that it moves. Those
/// that are done without the kernel are cheap; whatever is not known to be is worth a few system
/// calls.
#[inline]
pub(crate) fn price(opcode: u16) -> usize {
    match Opcode::from_code(opcode) {
        Some(Opcode::Nop | Opcode::Cancel | Opcode::Deadline | Opcode::ReadClock) | None => {
            allowance::LIGHT
        }
        Some(_) => allowance::CALL,
    }
}

/// Bytes of paths that an operation names, and keeps until it is done; one that is too long it does
/// not.
fn path_bytes(request: &Request) -> usize {
    let len = |path: &op::Buf| (path.len as usize).min(PATH_MAX);
    match request {
        Request::OpenFile(op::OpenFile { path, .. })
        | Request::OpenDirectory(op::OpenDirectory { path, .. })
        | Request::StatPath(op::StatPath { path, .. })
        | Request::RemoveFile(op::RemoveFile { path, .. })
        | Request::RemoveDirectory(op::RemoveDirectory { path, .. })
        | Request::CreateDirectory(op::CreateDirectory { path, .. })
        | Request::UnixConnect(op::UnixConnect { path, .. }) => len(path),
        Request::Rename(op::Rename { from, to }) => len(from) + len(to),
        _ => 0,
    }
}

/// Starts what a submission asks for.
#[inline]
pub(crate) fn start(submission: &Submission, resources: &mut Resources) -> Started {
    let started = Request::decode(submission).and_then(|request| match path_bytes(&request) {
        0 => dispatch(request, resources),
        bytes => {
            // The whole path, and what lies beneath the granted directory.
            let charge = resources.account.charge(2 * bytes)?;
            Ok(dispatch(request, resources)?.holding(charge))
        }
    });
    started.unwrap_or_else(Into::into)
}

fn dispatch(request: Request, resources: &mut Resources) -> Result<Started, Status> {
    match request {
        Request::Nop(operation) => operation.start(resources),
        Request::Cancel(cancel) => Ok(Started::Cancel(cancel.target)),
        Request::Deadline(operation) => operation.start(resources),
        Request::ReadClock(operation) => operation.start(resources),
        Request::Entropy(operation) => operation.start(resources),
        Request::WriteConsole(operation) => operation.start(resources),
        Request::ReadStdin(operation) => operation.start(resources),
        Request::Close(operation) => operation.start(resources),
        Request::TcpConnect(operation) => operation.start(resources),
        Request::TcpListen(operation) => operation.start(resources),
        Request::TcpAccept(operation) => operation.start(resources),
        Request::SocketName(operation) => operation.start(resources),
        Request::ReadStream(operation) => operation.start(resources),
        Request::WriteStream(operation) => operation.start(resources),
        Request::ShutdownStream(operation) => operation.start(resources),
        Request::SetSocketOption(operation) => operation.start(resources),
        Request::Lookup(operation) => operation.start(resources),
        Request::UdpBind(operation) => operation.start(resources),
        Request::UdpConnect(operation) => operation.start(resources),
        Request::UdpSend(operation) => operation.start(resources),
        Request::UdpReceive(operation) => operation.start(resources),
        Request::UnixConnect(operation) => operation.start(resources),
        Request::OpenFile(operation) => operation.start(resources),
        Request::ReadFile(operation) => operation.start(resources),
        Request::WriteFile(operation) => operation.start(resources),
        Request::StatFile(operation) => operation.start(resources),
        Request::SetFileLength(operation) => operation.start(resources),
        Request::SyncFile(operation) => operation.start(resources),
        Request::StatPath(operation) => operation.start(resources),
        Request::Rename(operation) => operation.start(resources),
        Request::RemoveFile(operation) => operation.start(resources),
        Request::RemoveDirectory(operation) => operation.start(resources),
        Request::CreateDirectory(operation) => operation.start(resources),
        Request::OpenDirectory(operation) => operation.start(resources),
        Request::ReadDirectory(operation) => operation.start(resources),
        Request::CallHost(operation) => operation.start(resources),
        Request::OpenHostStream(operation) => operation.start(resources),
        Request::NextItem(operation) => operation.start(resources),
        Request::ReadMessage(operation) => operation.start(resources),
        Request::NextCall(operation) => operation.start(resources),
        Request::Reply(operation) => operation.start(resources),
    }
}

/// The status that tells a guest of an error.
pub(crate) fn status_of(error: &io::Error) -> Status {
    use io::ErrorKind as Kind;
    if let Some(status) = error.get_ref().and_then(|error| error.downcast_ref()) {
        // One that this program has put there.
        return *status;
    }
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
            return Status::OutOfMemory;
        }
        Some(libc::EADDRNOTAVAIL) => return Status::AddrNotAvailable,
        Some(libc::EAFNOSUPPORT | libc::ENAMETOOLONG) => return Status::InvalidInput,
        Some(libc::EBADF) => return Status::BadHandle,
        Some(libc::EDESTADDRREQ) => return Status::NotConnected,
        Some(libc::ELOOP) => return Status::TooManyLinks,
        Some(libc::EMSGSIZE) => return Status::MessageTooLarge,
        Some(libc::ETXTBSY) => return Status::Busy,
        Some(libc::EXDEV) => return Status::CrossesDevices,
        _ => {}
    }
    match error.kind() {
        Kind::NotFound => Status::NotFound,
        Kind::PermissionDenied => Status::PermissionDenied,
        Kind::ConnectionRefused => Status::ConnectionRefused,
        Kind::ConnectionReset => Status::ConnectionReset,
        Kind::ConnectionAborted => Status::ConnectionAborted,
        Kind::NotConnected => Status::NotConnected,
        Kind::AddrInUse => Status::AddrInUse,
        Kind::AddrNotAvailable => Status::AddrNotAvailable,
        Kind::NetworkUnreachable | Kind::NetworkDown => Status::NetworkUnreachable,
        Kind::HostUnreachable => Status::HostUnreachable,
        Kind::BrokenPipe | Kind::WriteZero => Status::BrokenPipe,
        Kind::TimedOut => Status::TimedOut,
        Kind::AlreadyExists => Status::AlreadyExists,
        Kind::IsADirectory => Status::IsADirectory,
        Kind::NotADirectory => Status::NotADirectory,
        Kind::DirectoryNotEmpty => Status::DirectoryNotEmpty,
        Kind::ReadOnlyFilesystem => Status::ReadOnly,
        Kind::StorageFull | Kind::QuotaExceeded => Status::StorageFull,
        Kind::FileTooLarge => Status::FileTooLarge,
        Kind::InvalidInput => Status::InvalidInput,
        Kind::InvalidData => Status::InvalidData,
        Kind::UnexpectedEof => Status::UnexpectedEof,
        Kind::OutOfMemory => Status::OutOfMemory,
        Kind::ResourceBusy => Status::Busy,
        Kind::Unsupported => Status::Unsupported,
        _ => Status::Other,
    }
}
