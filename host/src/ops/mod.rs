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
mod stdin;
pub(crate) mod stream;
mod tcp;
pub(crate) mod udp;
mod unix;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::op::{self, Handle, Opcode, Operation as _};
use wakebox_abi::status::Status;

use self::blocking::{Lanes, Reach};
use self::lookup::Resolver;
use crate::calls::Budget;
use crate::calls::guest::Mailbox;
use crate::calls::host::Callables;
use crate::driver::handles::{Handles, Resource};
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
    pub(crate) budget: Budget,
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
            End::Open(resource) => match self.handles.open(resource) {
                Ok(handle) => (Status::Ok, handle.0),
                Err(status) => (status, 0),
            },
            End::Overflow(message, into) => match self.handles.open(message) {
                Ok(handle) if into.fill(&handle.0.to_le_bytes()) == 4 => (Status::Ok, op::OVERFLOW),
                Ok(handle) => {
                    // No room even for the handle.
                    let _ = self.handles.close(handle);
                    (Status::MessageTooLarge, 0)
                }
                Err(status) => (status, 0),
            },
        }
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
    /// With something open, whose handle is the value.
    Open(Resource),
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
    /// It closed a resource on which these operations were in flight.
    Closed(Vec<Token>),
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

/// Starts what a submission asks for.
#[inline]
pub(crate) fn start(submission: &Submission, resources: &mut Resources) -> Started {
    fn of<O: Start>(submission: &Submission, resources: &mut Resources) -> Result<Started, Status> {
        let operation = O::from_params(&submission.params).map_err(|_| Status::InvalidInput)?;
        operation.start(resources)
    }

    let started = match Opcode::from_code(submission.opcode) {
        Some(Opcode::Nop) => of::<op::Nop>(submission, resources),
        Some(Opcode::Cancel) => op::Cancel::from_params(&submission.params)
            .map(|cancel| Started::Cancel(cancel.target))
            .map_err(|_| Status::InvalidInput),
        Some(Opcode::Deadline) => of::<op::Deadline>(submission, resources),
        Some(Opcode::ReadClock) => of::<op::ReadClock>(submission, resources),
        Some(Opcode::Entropy) => of::<op::Entropy>(submission, resources),
        Some(Opcode::WriteConsole) => of::<op::WriteConsole>(submission, resources),
        Some(Opcode::ReadStdin) => of::<op::ReadStdin>(submission, resources),
        Some(Opcode::Close) => of::<op::Close>(submission, resources),
        Some(Opcode::TcpConnect) => of::<op::TcpConnect>(submission, resources),
        Some(Opcode::TcpListen) => of::<op::TcpListen>(submission, resources),
        Some(Opcode::TcpAccept) => of::<op::TcpAccept>(submission, resources),
        Some(Opcode::SocketName) => of::<op::SocketName>(submission, resources),
        Some(Opcode::ReadStream) => of::<op::ReadStream>(submission, resources),
        Some(Opcode::WriteStream) => of::<op::WriteStream>(submission, resources),
        Some(Opcode::ShutdownStream) => of::<op::ShutdownStream>(submission, resources),
        Some(Opcode::SetSocketOption) => of::<op::SetSocketOption>(submission, resources),
        Some(Opcode::Lookup) => of::<op::Lookup>(submission, resources),
        Some(Opcode::UdpBind) => of::<op::UdpBind>(submission, resources),
        Some(Opcode::UdpConnect) => of::<op::UdpConnect>(submission, resources),
        Some(Opcode::UdpSend) => of::<op::UdpSend>(submission, resources),
        Some(Opcode::UdpReceive) => of::<op::UdpReceive>(submission, resources),
        Some(Opcode::UnixConnect) => of::<op::UnixConnect>(submission, resources),
        Some(Opcode::OpenFile) => of::<op::OpenFile>(submission, resources),
        Some(Opcode::ReadFile) => of::<op::ReadFile>(submission, resources),
        Some(Opcode::WriteFile) => of::<op::WriteFile>(submission, resources),
        Some(Opcode::StatFile) => of::<op::StatFile>(submission, resources),
        Some(Opcode::SetFileLength) => of::<op::SetFileLength>(submission, resources),
        Some(Opcode::SyncFile) => of::<op::SyncFile>(submission, resources),
        Some(Opcode::StatPath) => of::<op::StatPath>(submission, resources),
        Some(Opcode::Rename) => of::<op::Rename>(submission, resources),
        Some(Opcode::RemoveFile) => of::<op::RemoveFile>(submission, resources),
        Some(Opcode::RemoveDirectory) => of::<op::RemoveDirectory>(submission, resources),
        Some(Opcode::CreateDirectory) => of::<op::CreateDirectory>(submission, resources),
        Some(Opcode::OpenDirectory) => of::<op::OpenDirectory>(submission, resources),
        Some(Opcode::ReadDirectory) => of::<op::ReadDirectory>(submission, resources),
        Some(Opcode::CallHost) => of::<op::CallHost>(submission, resources),
        Some(Opcode::OpenHostStream) => of::<op::OpenHostStream>(submission, resources),
        Some(Opcode::NextItem) => of::<op::NextItem>(submission, resources),
        Some(Opcode::ReadMessage) => of::<op::ReadMessage>(submission, resources),
        Some(Opcode::NextCall) => of::<op::NextCall>(submission, resources),
        Some(Opcode::Reply) => of::<op::Reply>(submission, resources),
        Some(_) | None => Err(Status::Unsupported),
    };
    started.unwrap_or_else(Into::into)
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
