//! Reading, writing and shutting down connections.
//!
//! Bytes go straight between the kernel and the arena: one system call, no copy. A call
//! that would have to wait becomes a future; one that need not ends on the spot.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::sync::{Mutex, OwnedMutexGuard};
use wakebox_abi::op::{Amount, ReadStream, Shutdown, ShutdownStream, WriteStream};
use wakebox_abi::status::Status;

use super::wait::{self, Waitable, Waits};
use super::{End, Start, Started, TokioBackend, status_of};
use crate::allowance::{self, REACH};
use crate::arena::ArenaSlice;
use crate::limits::LimitKind;
use crate::meter::Meter;

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) socket: Socket,
    writes: Arc<Writes>,
}

/// Its writes, which are done in the order in which they were submitted.
#[derive(Debug, Default)]
struct Writes {
    /// First come, first served.
    turn: Arc<Mutex<()>>,
    /// How the first of them failed that has. Those behind it fail as it did: else there would be a gap.
    failed: OnceLock<Status>,
}

/// A connection of whichever kind.
#[derive(Debug)]
pub(super) enum Socket {
    /// Over TCP.
    Tcp(Waitable<TcpStream>),
    /// Over a Unix socket.
    Unix(Waitable<UnixStream>),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::new(Socket::Tcp(Waitable::new(stream)))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::new(Socket::Unix(Waitable::new(stream)))
    }
}

impl Stream {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            writes: Arc::default(),
        }
    }

    /// Makes a call that does not wait, unless the socket is known not to be ready.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_io(interest, call),
            Socket::Unix(stream) => stream.try_io(interest, call),
        }
    }

    fn wait_here(&self) -> io::Result<Waits<'_>> {
        match &self.socket {
            Socket::Tcp(stream) => stream.here(),
            Socket::Unix(stream) => stream.here(),
        }
    }

    /// Moves bytes whenever the socket is ready, until at least so many are moved, of which so many are by now, or there are
    /// no more. `call` moves those behind so many. Returns how many there are.
    async fn transfer(
        &self,
        interest: Interest,
        (mut moved, least): (usize, usize),
        mut call: impl FnMut(usize) -> io::Result<Moved>,
    ) -> io::Result<usize> {
        let waits = self.wait_here()?;
        loop {
            let ready = waits.ready(interest).await?;
            let tried = match ready.is_error() {
                // Perhaps for nothing else: the call takes the error.
                true => waits.async_io(interest, || Ok(call(moved)?.bytes)).await,
                false => self.try_transfer(interest, || call(moved)),
            };
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
                Ok(0) => return Ok(moved),
                Ok(bytes) => moved += bytes,
            }
            if moved >= least {
                return Ok(moved);
            }
            // More may go at once, if this turn lets it.
            allowance::give_way().await;
        }
    }

    /// Moves bytes without waiting, unless the socket is known not to be ready.
    ///
    /// Where fewer were moved than were asked for, the kernel has no more, or no more room: the socket is known not to be
    /// ready from then on, as if the next call had said so, and that call is spared (as Tokio's own reads do). Not for Unix
    /// sockets, which also end a read where descriptors were sent along.
    fn try_transfer(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<Moved>,
    ) -> io::Result<usize> {
        let mut short = None;
        let tried = self.try_io(interest, || match call()? {
            Moved { bytes, asked } if 0 < bytes && bytes < asked && self.is_tcp() => {
                short = Some(bytes);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Moved { bytes, .. } => Ok(bytes),
        });
        short.map_or(tried, Ok)
    }

    fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }
}

/// What a system call has done.
struct Moved {
    bytes: usize,
    /// As many as it might have.
    asked: usize,
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
    amount: Amount,
) -> Result<Started, Status> {
    let (interest, call): (_, Transfer) = match kind {
        LimitKind::NetworkOut => (wait::FOR_OUTPUT, send),
        _ => (wait::FOR_INPUT, receive),
    };
    let metered = move |meter: &Meter, stream: &Stream, slice: &ArenaSlice| -> io::Result<Moved> {
        let taken = meter.take(kind, slice.len()).map_err(io::Error::other)?;
        // What the host cuts is not short.
        let asked = taken.len().min(REACH);
        let bytes = call(stream.as_fd(), slice, asked)?;
        taken.keep(bytes);
        Ok(Moved { bytes, asked })
    };
    let least = match amount {
        Amount::Some => 0,
        Amount::All => slice.len(),
    };
    let stream = resources.handles.stream(handle)?;
    let turn = stream.turn(kind)?;
    let moved = match turn {
        // Behind others.
        Some(Err(_)) => 0,
        _ => {
            let call = || metered(&resources.meter, stream, &slice);
            match stream.try_transfer(interest, call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Ok(moved) if moved == 0 || moved >= least => {
                    return Ok(Started::Done(End::bytes(moved)));
                }
                Ok(moved) => moved,
                Err(error) => return Err(stream.failed(kind, status_of(&error))),
            }
        }
    };
    let (stream, meter) = (stream.clone(), resources.meter.clone());
    Ok(Started::pending_on(handle, async move {
        let _turn = match turn {
            Some(Err(comes)) => Some(comes.await),
            Some(Ok(has)) => Some(has),
            None => None,
        };
        if let Err(status) = stream.check(kind) {
            return status.into();
        }
        let call = |moved| metered(&meter, &stream, &slice.behind(moved));
        match stream.transfer(interest, (moved, least), call).await {
            Ok(moved) => End::bytes(moved),
            Err(error) => stream.failed(kind, status_of(&error)).into(),
        }
    }))
}

/// The turn of a write, or its coming.
type Turn = Result<OwnedMutexGuard<()>, Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>>;

impl Stream {
    /// A turn for what writes.
    ///
    /// # Errors
    ///
    /// How an earlier write has failed.
    fn turn(&self, kind: LimitKind) -> Result<Option<Turn>, Status> {
        if kind != LimitKind::NetworkOut {
            return Ok(None);
        }
        self.check(kind)?;
        let turn = &self.writes.turn;
        Ok(Some(match turn.clone().try_lock_owned() {
            Ok(turn) => Ok(turn),
            Err(_) => {
                let mut comes: Pin<Box<dyn Future<Output = _> + Send>> =
                    Box::pin(turn.clone().lock_owned());
                // Stands in line from now on.
                let mut context = Context::from_waker(Waker::noop());
                match comes.as_mut().poll(&mut context) {
                    Poll::Ready(turn) => Ok(turn),
                    Poll::Pending => Err(comes),
                }
            }
        }))
    }

    /// A transfer has failed. Returns how.
    fn failed(&self, kind: LimitKind, status: Status) -> Status {
        match kind {
            LimitKind::NetworkOut => *self.writes.failed.get_or_init(|| status),
            _ => status,
        }
    }

    fn check(&self, kind: LimitKind) -> Result<(), Status> {
        match self.writes.failed.get() {
            Some(status) if kind == LimitKind::NetworkOut => Err(*status),
            _ => Ok(()),
        }
    }
}

impl Start for ReadStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let (stream, kind) = (self.stream, LimitKind::NetworkIn);
        transfer(resources, stream, into, kind, Amount::Some)
    }
}

impl Start for WriteStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        let (stream, kind) = (self.stream, LimitKind::NetworkOut);
        transfer(resources, stream, from, kind, self.amount)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as Peer};

    use super::*;

    fn pair() -> (Stream, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        own.set_nonblocking(true).unwrap();
        (Stream::from(own), peer)
    }

    async fn readable(stream: &Stream) {
        let waits = stream.wait_here().unwrap();
        waits.ready(wait::FOR_INPUT).await.unwrap();
    }

    /// Receives at most so many bytes if the socket is ready. Returns whether a call was made, besides.
    fn try_receive(stream: &Stream, most: usize) -> (bool, io::Result<usize>) {
        let mut called = false;
        let received = stream.try_transfer(wait::FOR_INPUT, || {
            called = true;
            let mut bytes = [0; 8];
            let (got, _) =
                rustix::net::recv(stream, &mut bytes[..most], rustix::net::RecvFlags::empty())?;
            Ok(Moved {
                bytes: got,
                asked: most,
            })
        });
        (called, received)
    }

    #[tokio::test]
    async fn a_read_that_comes_short_spares_the_call_that_would_find_nothing() {
        let (stream, mut peer) = pair();
        for round in 0..3 {
            peer.write_all(&[round; 3]).unwrap();
            readable(&stream).await;
            // A read that is filled may have left something.
            assert!(matches!(try_receive(&stream, 2), (true, Ok(2))));
            assert!(matches!(try_receive(&stream, 2), (true, Ok(1))));
            let (called, nothing) = try_receive(&stream, 2);
            assert!(!called, "round {round}");
            assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        // The end is no short read: it is there for every call.
        drop(peer);
        readable(&stream).await;
        for _ in 0..2 {
            assert!(matches!(try_receive(&stream, 2), (true, Ok(0))));
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_input_alone_is_told_of_an_error() {
        let (stream, peer) = pair();
        // What was not read when it is closed is a reset for the other.
        rustix::io::write(&stream, b"unread").unwrap();
        let mut byte = [0];
        peer.peek(&mut byte).unwrap();
        drop(peer);
        let received = stream.transfer(wait::FOR_INPUT, (0, 0), |_| {
            let mut bytes = [0; 8];
            let (got, _) =
                rustix::net::recv(&stream, &mut bytes[..], rustix::net::RecvFlags::empty())?;
            Ok(Moved {
                bytes: got,
                asked: 8,
            })
        });
        let error = received.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_is_to_be_moved_whole_goes_on_as_the_peer_takes_it() {
        let (stream, mut peer) = pair();
        // More than the kernel keeps for both.
        let bytes = vec![7; 32 << 20];
        let (begin, begun) = std::sync::mpsc::channel();
        let reads = std::thread::spawn(move || {
            let mut all = Vec::new();
            begun.recv().unwrap();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let mut calls = 0;
        let sent = stream.transfer(wait::FOR_OUTPUT, (0, bytes.len()), |moved| {
            calls += 1;
            let rest = &bytes[moved..];
            let sent = rustix::net::send(&stream, rest, rustix::net::SendFlags::NOSIGNAL)?;
            // It reads when the first is over.
            let _ = begin.send(());
            Ok(Moved {
                bytes: sent,
                asked: rest.len(),
            })
        });
        assert_eq!(sent.await.unwrap(), bytes.len());
        assert!(calls > 1);
        drop(stream);
        assert!(reads.join().unwrap() == bytes);
    }
}
