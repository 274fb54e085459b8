//! Reading, writing and shutting down connections.
//!
//! Bytes go straight between the kernel and the arena: one system call, no copy. A call
//! that would have to wait becomes a future; one that need not ends on the spot.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use wakebox_abi::op::{ReadStream, Shutdown, ShutdownStream, WriteStream};
use wakebox_abi::status::Status;

use super::{End, Start, Started, TokioBackend, status_of, wait};
use crate::arena::ArenaSlice;
use crate::limits::LimitKind;
use crate::meter::Meter;

/// A connection of whichever kind.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    /// Makes a call that does not wait, unless the socket is known not to be ready.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, call),
            Self::Unix(stream) => stream.try_io(interest, call),
        }
    }

    /// Makes a call that does not wait whenever the socket is ready, until it need not wait.
    async fn async_io<R>(
        &self,
        interest: Interest,
        call: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.async_io(interest, call).await,
            Self::Unix(stream) => stream.async_io(interest, call).await,
        }
    }
}

/// A system call between a socket and at most so many bytes of a part of the arena.
type Transfer = fn(BorrowedFd<'_>, &ArenaSlice, most: usize) -> io::Result<usize>;

fn receive(stream: BorrowedFd<'_>, into: &ArenaSlice, most: usize) -> io::Result<usize> {
    into.in_kernel(most, |base, len| {
        // SAFETY: the range lies in mapped guest memory, which `into` keeps mapped; the kernel
        // writes to it as a device would, and the host holds no reference into it.
        let count = unsafe { libc::recv(stream.as_raw_fd(), base.cast(), len, libc::MSG_DONTWAIT) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })
}

fn send(stream: BorrowedFd<'_>, from: &ArenaSlice, most: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    from.in_kernel(most, |base, len| {
        // SAFETY: as in `receive`; the kernel reads what the guest makes of the bytes meanwhile.
        let count = unsafe { libc::send(stream.as_raw_fd(), base.cast(), len, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })
}

/// Tries at once, and else whenever the socket is ready.
fn transfer(
    resources: &mut TokioBackend,
    handle: wakebox_abi::op::Handle,
    slice: ArenaSlice,
    kind: LimitKind,
) -> Result<Started, Status> {
    let (interest, call): (_, Transfer) = match kind {
        LimitKind::NetworkOut => (wait::FOR_OUTPUT, send),
        _ => (wait::FOR_INPUT, receive),
    };
    let metered = move |meter: &Meter, stream: &Stream, slice: &ArenaSlice| -> io::Result<usize> {
        let taken = meter.take(kind, slice.len()).map_err(io::Error::other)?;
        let moved = call(stream.as_fd(), slice, taken.len())?;
        taken.keep(moved);
        Ok(moved)
    };
    let stream = resources.handles.stream(handle)?;
    match stream.try_io(interest, || metered(&resources.meter, stream, &slice)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(count) => return Ok(Started::Done(End::bytes(count))),
        Err(error) => return Err(status_of(&error)),
    }
    let (stream, meter) = (stream.clone(), resources.meter.clone());
    Ok(Started::pending_on(handle, async move {
        let call = || metered(&meter, &stream, &slice);
        match stream.async_io(interest, call).await {
            Ok(count) => End::bytes(count),
            Err(error) => error.into(),
        }
    }))
}

impl Start for ReadStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        transfer(resources, self.stream, into, LimitKind::NetworkIn)
    }
}

impl Start for WriteStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        transfer(resources, self.stream, from, LimitKind::NetworkOut)
    }
}

impl Start for ShutdownStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let how = match self.how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        let stream = resources.handles.stream(self.stream)?;
        Ok(Started::Done(match rustix::net::shutdown(stream, how) {
            Ok(()) => End::OK,
            Err(error) => io::Error::from(error).into(),
        }))
    }
}
