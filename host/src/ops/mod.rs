//! The backend of Tokio: the operations, one file a kind. This one only dispatches.
//!
//! To add a kind: a row in `wakebox_abi::op`, a file here with an `impl Start` for the row's
//! struct, and a line in [`dispatch`].

mod address;
pub(crate) mod blocking;
mod call;
mod clock;
mod close;
mod console;
mod deadline;
mod describe;
mod directory;
mod entropy;
mod file;
pub(crate) mod handles;
mod links;
pub(crate) mod lookup;
pub(crate) mod mounts;
mod nop;
mod option;
mod path;
pub(crate) mod regular;
mod snapshot;
mod stdin;
pub(crate) mod stream;
pub(crate) mod tcp;
mod times;
pub(crate) mod udp;
mod udp_many;
mod unix;
pub(crate) mod uring;
mod wait;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::task::unconstrained;
use wakebox_abi::entry::Token;
use wakebox_abi::file::PATH_MAX;
use wakebox_abi::op::{self, Effort, Handle, Opcode, Request};
use wakebox_abi::status::Status;
use wakebox_vmm::signal::RunPage;

use self::blocking::{BlockingPool, Reach};
use self::handles::{Handles, Resource, Vacancy};
use self::lookup::Resolver;
use self::mounts::Mounts;
use self::uring::Files;
use crate::account::{Account, Charged};
use crate::allowance;
use crate::arena::{Arena, ArenaSlice};
use crate::calls::guest::{CallQueue, GuestEnd};
use crate::calls::host::Callables;
use crate::driver::backend::{self, Backend};
use crate::meter::Meter;
use crate::policy::check::Guard;
pub(crate) use crate::status::status_of;
use crate::stdio::{Console, Stdin};
use crate::stop::Stop;
use crate::template::requests::Requests;

/// Does operations with Tokio: what they work with.
#[derive(Debug)]
pub(crate) struct TokioBackend {
    pub(crate) arena: Arena,
    pub(crate) handles: Handles,
    pub(crate) policy: Arc<Guard>,
    pub(crate) resolver: Resolver,
    pub(crate) mounts: Mounts,
    /// For calls that may wait for a disk.
    pub(crate) disk: BlockingPool,
    /// For transfers of files that may.
    pub(crate) files: Files,
    pub(crate) console: Console,
    pub(crate) stdin: Stdin,
    pub(crate) callables: Callables,
    pub(crate) call_queue: Arc<CallQueue>,
    pub(crate) account: Account,
    pub(crate) meter: Arc<Meter>,
    /// Ends the sandbox at a limit that does.
    pub(crate) stop: Arc<Stop<RunPage>>,
    /// Who wants a template.
    pub(crate) requests: Arc<Requests>,
    /// Zero of the guest's monotonic clock.
    pub(crate) start: Instant,
}

impl TokioBackend {
    /// The text of at most `most` bytes that a buffer holds, charged for as long as it is kept.
    fn text(&self, buf: op::Buf, most: usize) -> Result<Charged<String>, Status> {
        if buf.len as usize > most {
            return Err(Status::InvalidInput);
        }
        let bytes = self.slice(buf)?.keep(&self.account)?;
        bytes.try_map(|bytes| String::from_utf8(bytes).map_err(|_| Status::InvalidInput))
    }

    /// An entry of the handle table for something that is to be opened.
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
    /// With something open, whose handle is the value, in the entry that was taken before it was
    /// opened.
    Open(Resource, Vacancy),
    /// With a message that did not fit, whose handle goes into the buffer instead.
    Overflow(Resource, ArenaSlice),
}

impl End {
    pub(crate) const OK: Self = Self::Done(Status::Ok, 0);

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
pub(crate) type Started = backend::Started<TokioBackend>;

type Boxed = Pin<Box<dyn Future<Output = End> + Send>>;

/// An operation that could not be done at once.
pub(crate) struct Pending {
    /// What it is on: it is cancelled when that is closed.
    handle: Option<Handle>,
    /// If it reaches into the arena: it is not dropped once it has begun to.
    reach: Option<Reach>,
    future: Boxed,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("handle", &self.handle)
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

impl Pending {
    fn new(handle: Option<Handle>, future: impl Future<Output = End> + Send + 'static) -> Self {
        Self {
            handle,
            reach: None,
            future: Box::pin(future),
        }
    }
}

impl Future for Pending {
    type Output = End;

    /// The driver polls hundreds of operations in one poll of its task, and has an
    /// [allowance] of its own. Tokio's budget for a task would put off all but the first 128, again and
    /// again until the task gives way, and chance would say who is served then.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        Pin::new(&mut unconstrained(self.future.as_mut())).poll(context)
    }
}

impl backend::Operation for Pending {
    type End = End;

    fn may_be_dropped(&self) -> bool {
        !self.reach.as_ref().is_some_and(Reach::is_begun)
    }
}

impl Started {
    /// Something that goes on.
    fn pending(future: impl Future<Output = End> + Send + 'static) -> Self {
        Self::boxed(None, Box::pin(future))
    }

    /// Something that goes on with an open resource, and is cancelled when that is closed.
    fn pending_on(handle: Handle, future: impl Future<Output = End> + Send + 'static) -> Self {
        Self::boxed(Some(handle), Box::pin(future))
    }

    fn boxed(handle: Option<Handle>, future: Boxed) -> Self {
        Self::Pending(Pending {
            handle,
            reach: None,
            future,
        })
    }

    /// With something that is held until it is done.
    fn holding(self, held: impl Send + 'static) -> Self {
        match self {
            Self::Pending(Pending {
                handle,
                reach: None,
                future,
            }) => Self::pending_with(handle, async move {
                let _held = held;
                future.await
            }),
            other => other,
        }
    }

    fn pending_with(
        handle: Option<Handle>,
        future: impl Future<Output = End> + Send + 'static,
    ) -> Self {
        Self::Pending(Pending::new(handle, future))
    }
}

impl Backend for TokioBackend {
    type Operation = Pending;
    type End = End;
    type Open = (Resource, Vacancy);

    #[inline]
    fn price(opcode: u16) -> usize {
        price(opcode)
    }

    #[inline]
    fn start(&mut self, request: Request) -> Started {
        let started = match path_bytes(&request) {
            0 => dispatch(request, self),
            // The whole path, and what lies beneath the granted directory.
            bytes => self
                .account
                .charge(2 * bytes)
                .and_then(|charge| Ok(dispatch(request, self)?.holding(charge))),
        };
        started.unwrap_or_else(Into::into)
    }

    fn start_again(&mut self, request: Request) -> Started {
        match after_restore(&request) {
            AfterRestore::GoesOn => self.start(request),
            AfterRestore::Asks => Started::Done(End::Done(Status::Ok, op::RESTORED)),
            AfterRestore::EndsSoon | AfterRestore::Ends(_) => Status::Restored.into(),
        }
    }

    #[inline]
    fn goes_on(&mut self, token: Token, operation: &Pending) {
        self.handles.started(operation.handle, token);
    }

    #[inline]
    fn ended(&mut self, token: Token, operation: Pending) {
        let handle = operation.handle;
        drop(operation);
        self.handles.ended(handle, token);
    }

    fn settle(&mut self, end: End) -> (Status, u32) {
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

    #[inline]
    fn flush(&mut self) {
        self.files.submit();
    }

    #[inline]
    fn is_killed(&self) -> bool {
        self.stop.is_killed()
    }

    fn end(&mut self) -> impl Iterator<Item = Self::Open> + Send + 'static {
        self.call_queue.end(GuestEnd::Dropped);
        self.handles.take_all()
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
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status>;
}

/// What starting an operation costs of the turn's allowance, besides the bytes that it moves.
#[inline]
pub(crate) fn price(opcode: u16) -> usize {
    match Opcode::from_code(opcode).map(Opcode::effort) {
        Some(Effort::Light) | None => allowance::LIGHT,
        Some(Effort::Calls) => allowance::CALL,
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
        | Request::ReadLink(op::ReadLink { path, .. })
        | Request::SetPathTimes(op::SetPathTimes { path, .. })
        | Request::UnixConnect(op::UnixConnect { path, .. }) => len(path),
        Request::Rename(op::Rename { from, to })
        | Request::HardLink(op::HardLink { from, to })
        | Request::SymbolicLink(op::SymbolicLink {
            target: from,
            path: to,
        }) => len(from) + len(to),
        _ => 0,
    }
}

/// What becomes of an operation that is in flight when a template is taken.
pub(crate) enum AfterRestore {
    /// It is begun again in whoever is made of the template.
    GoesOn,
    /// It asks for the template.
    Asks,
    /// It ends by itself, and the template waits for that.
    EndsSoon,
    /// It cannot go on. It may be on something that is open, or is named here.
    Ends(Option<&'static str>),
}

/// What becomes of an operation.
pub(crate) fn after_restore(request: &Request) -> AfterRestore {
    match request {
        Request::Deadline(_) | Request::NextCall(_) | Request::ReadStdin(_) => AfterRestore::GoesOn,
        Request::Snapshot(_) => AfterRestore::Asks,
        Request::Nop(_)
        | Request::Cancel(_)
        | Request::ReadClock(_)
        | Request::Entropy(_)
        | Request::WriteConsole(_)
        | Request::Close(_)
        | Request::TcpListen(_)
        | Request::SocketName(_)
        | Request::ShutdownStream(_)
        | Request::SetSocketOption(_)
        | Request::Lookup(_)
        | Request::UdpBind(_)
        | Request::UdpConnect(_)
        | Request::OpenFile(_)
        | Request::ReadFile(_)
        | Request::WriteFile(_)
        | Request::StatFile(_)
        | Request::SetFileLength(_)
        | Request::SyncFile(_)
        | Request::StatPath(_)
        | Request::Rename(_)
        | Request::RemoveFile(_)
        | Request::RemoveDirectory(_)
        | Request::CreateDirectory(_)
        | Request::OpenDirectory(_)
        | Request::ReadDirectory(_)
        | Request::ListMounts(_)
        | Request::HardLink(_)
        | Request::SymbolicLink(_)
        | Request::ReadLink(_)
        | Request::SetPathTimes(_)
        | Request::SetFileTimes(_)
        | Request::ReadMessage(_)
        | Request::Reply(_) => AfterRestore::EndsSoon,
        Request::TcpAccept(_)
        | Request::ReadStream(_)
        | Request::WriteStream(_)
        | Request::UdpSend(_)
        | Request::UdpReceive(_)
        | Request::UdpSendMany(_)
        | Request::UdpReceiveMany(_)
        | Request::NextItem(_) => AfterRestore::Ends(None),
        Request::TcpConnect(_) | Request::UnixConnect(_) => {
            AfterRestore::Ends(Some("connections that are being made"))
        }
        Request::CallHost(_) | Request::OpenHostStream(_) => {
            AfterRestore::Ends(Some("calls of host functions"))
        }
    }
}

fn dispatch(request: Request, resources: &mut TokioBackend) -> Result<Started, Status> {
    match request {
        Request::Nop(operation) => operation.start(resources),
        // The driver's own.
        Request::Cancel(_) => Err(Status::InvalidInput),
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
        Request::UdpSendMany(operation) => operation.start(resources),
        Request::UdpReceiveMany(operation) => operation.start(resources),
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
        Request::ListMounts(operation) => operation.start(resources),
        Request::HardLink(operation) => operation.start(resources),
        Request::SymbolicLink(operation) => operation.start(resources),
        Request::ReadLink(operation) => operation.start(resources),
        Request::SetPathTimes(operation) => operation.start(resources),
        Request::CallHost(operation) => operation.start(resources),
        Request::OpenHostStream(operation) => operation.start(resources),
        Request::NextItem(operation) => operation.start(resources),
        Request::ReadMessage(operation) => operation.start(resources),
        Request::NextCall(operation) => operation.start(resources),
        Request::Reply(operation) => operation.start(resources),
        Request::Snapshot(operation) => operation.start(resources),
        Request::SetFileTimes(operation) => operation.start(resources),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn what_is_ready_is_done_in_one_poll_of_the_task_however_much_it_is() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let permits = Arc::new(Semaphore::new(1000));
        let mut operations: Vec<_> = (0..1000)
            .map(|_| {
                let permits = permits.clone();
                Pending::new(None, async move {
                    let permit = permits.acquire().await;
                    End::bytes(permit.is_ok().into())
                })
            })
            .collect();
        // Tokio's budget belongs to the task, and is whole at each of its polls.
        let polled_once = poll_fn(|context| {
            let polls = operations
                .iter_mut()
                .map(|operation| Pin::new(operation).poll(context));
            Poll::Ready(polls.filter(Poll::is_ready).count())
        });
        assert_eq!(runtime.block_on(polled_once), 1000);
    }
}
