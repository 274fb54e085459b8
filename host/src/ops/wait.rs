//! What operations on sockets wait for, and where.
//!
//! A socket that has failed is said to be neither readable nor writable unless the kernel says so
//! besides: a connected UDP socket whose peer is gone only has an error condition (`EPOLLERR`), and
//! who waits for input alone waits for ever. So whoever waits for a socket waits for these. The
//! call that follows takes the error (`SO_ERROR`) and returns it.
//!
//! Which reactor is looked at changes while a sandbox runs: in mode `auto` the runtime's own while the task that runs the guest
//! takes the turns, and the poller's while that is there, since the runtime's thread is in the guest then. Whoever takes a turn
//! has entered the right one. So nothing is registered when it is opened, but when an operation first has to wait for it
//! ([`Waitable::here`]), and it moves when one has to that finds it registered elsewhere. One for which another operation waits
//! stays where that waits. Nothing is lost: the kernel tells a reactor of what is ready by the time of the registration.

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::runtime::{self, Handle};

/// Input, or an error.
pub(super) const FOR_INPUT: Interest = Interest::READABLE.add(Interest::ERROR);

/// Room for output, or an error.
pub(super) const FOR_OUTPUT: Interest = Interest::WRITABLE.add(Interest::ERROR);

/// What such a wait is for, without errors: a call of Tokio's `try_io` is made if it is known to be there, and for a sum of
/// interests never.
const fn alone(interest: Interest) -> Interest {
    if interest.is_writable() {
        Interest::WRITABLE
    } else {
        Interest::READABLE
    }
}

/// Something open that operations wait for, with calls that do not block.
#[derive(Debug)]
pub(crate) struct Waitable<T> {
    // Dropped first: a number that is another file's by then must not be deregistered.
    registration: Mutex<Option<Arc<Registration>>>,
    open: T,
}

/// That it is registered, and where.
#[derive(Debug)]
struct Registration {
    fd: AsyncFd<RawFd>,
    reactor: runtime::Id,
}

impl<T> Deref for Waitable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.open
    }
}

impl<T: AsFd> AsFd for Waitable<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open.as_fd()
    }
}

impl<T: AsFd + AsRawFd> Waitable<T> {
    /// Something that owns its descriptor.
    pub(super) fn new(open: T) -> Self {
        Self {
            registration: Mutex::default(),
            open,
        }
    }
}

impl Waitable<RawFd> {
    /// A descriptor.
    ///
    /// # Safety
    ///
    /// It stays open, and is that of the same file, as long as the value lives.
    pub(super) const unsafe fn of(descriptor: RawFd) -> Self {
        Self {
            registration: Mutex::new(None),
            open: descriptor,
        }
    }
}

impl<T: AsRawFd> Waitable<T> {
    fn registration(&self) -> MutexGuard<'_, Option<Arc<Registration>>> {
        self.registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits, in the current reactor, unless somebody else does in another.
    ///
    /// # Errors
    ///
    /// There is no current reactor, or it cannot take it.
    pub(super) fn here(&self) -> io::Result<Waits<'_>> {
        let reactor = match Handle::try_current() {
            Ok(runtime) => runtime.id(),
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut registration = self.registration();
        let is_kept =
            |there: &Arc<Registration>| there.reactor == reactor || Arc::strong_count(there) > 1;
        let there = match registration.take() {
            Some(there) if is_kept(&there) => there,
            // Gone there before it is here.
            _elsewhere => Arc::new(Registration {
                fd: self.register()?,
                reactor,
            }),
        };
        *registration = Some(there.clone());
        Ok(Waits {
            registration: there,
            _waitable: PhantomData,
        })
    }

    fn register(&self) -> io::Result<AsyncFd<RawFd>> {
        let interest = FOR_INPUT.add(Interest::WRITABLE);
        // SAFETY: the descriptor is that of `open`, which stays open for as long as this value lives. It has the registration,
        // and who waits borrows it.
        let registered =
            unsafe { AsyncFd::register_with_interest(self.open.as_raw_fd(), interest) };
        Ok(registered?)
    }

    /// Makes a call that does not wait, unless it is known not to be ready.
    ///
    /// # Errors
    ///
    /// What the call says. `WouldBlock` also if it was not made.
    pub(super) fn try_io<R>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match &*self.registration() {
            None => call(),
            Some(there) => there.fd.try_io(alone(interest), |_| call()),
        }
    }
}

/// Somebody who waits for something open.
#[derive(Debug)]
pub(super) struct Waits<'a> {
    registration: Arc<Registration>,
    _waitable: PhantomData<&'a ()>,
}

impl Waits<'_> {
    /// The descriptor in its reactor.
    pub(super) fn fd(&self) -> &AsyncFd<RawFd> {
        &self.registration.fd
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        Ok(self.registration.fd.ready(interest).await?.ready())
    }

    /// Makes a call that does not wait whenever it is ready, until it need not wait.
    ///
    /// # Errors
    ///
    /// What the call says.
    pub(super) async fn async_io<R>(
        &self,
        interest: Interest,
        mut call: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        self.registration.fd.async_io(interest, |_| call()).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::io::{PipeReader, PipeWriter, Read, Write};
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// A runtime whose reactor nobody looks at but in [`Runtime::block_on`].
    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn pipe() -> (Waitable<PipeReader>, PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        (Waitable::new(reader), writer)
    }

    /// Reads a byte as operations do.
    async fn read(pipe: &Waitable<PipeReader>) -> u8 {
        let mut byte = [0];
        let call = || (&**pipe).read_exact(&mut byte);
        let waits = pipe.here().unwrap();
        waits.async_io(FOR_INPUT, call).await.unwrap();
        byte[0]
    }

    /// Polls once in a runtime that does nothing besides.
    fn poll_in<T>(runtime: &Runtime, future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let _context = runtime.enter();
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Where it is registered.
    fn place<T>(waitable: &Waitable<T>) -> Option<runtime::Id>
    where
        T: AsRawFd,
    {
        let registration = waitable.registration();
        registration.as_ref().map(|there| there.reactor)
    }

    #[test]
    fn who_waits_does_so_where_somebody_looks() {
        let (pipe, mut writer) = pipe();
        let (away, here) = (runtime(), runtime());
        assert_eq!(place(&pipe), None, "nobody has waited yet");
        let mut reads = Box::pin(read(&pipe));
        assert!(poll_in(&away, reads.as_mut()).is_pending());
        assert_eq!(place(&pipe), Some(away.handle().id()));
        drop(reads);
        // The kernel tells the other of what was there before it came there, and of what comes then.
        writer.write_all(b"12").unwrap();
        for byte in [b'1', b'2'] {
            assert_eq!(here.block_on(read(&pipe)), byte);
            assert_eq!(place(&pipe), Some(here.handle().id()));
        }
        writer.write_all(b"3").unwrap();
        assert_eq!(away.block_on(read(&pipe)), b'3');
        assert_eq!(place(&pipe), Some(away.handle().id()));
    }

    #[test]
    fn while_somebody_waits_another_waits_there_too() {
        let (pipe, mut writer) = pipe();
        let (first, second) = (runtime(), runtime());
        let mut reads = Box::pin(read(&pipe));
        assert!(poll_in(&first, reads.as_mut()).is_pending());
        let mut reads_too = pin!(read(&pipe));
        assert!(poll_in(&second, reads_too.as_mut()).is_pending());
        assert_eq!(place(&pipe), Some(first.handle().id()));
        writer.write_all(b"11").unwrap();
        assert_eq!(
            first.block_on(async { (reads.await, reads_too.await) }),
            (b'1', b'1')
        );
        // Neither waits any more: it follows whoever does.
        assert!(poll_in(&second, pin!(read(&pipe))).is_pending());
        assert_eq!(place(&pipe), Some(second.handle().id()));
    }

    #[test]
    fn before_somebody_has_waited_each_call_is_made() {
        let (pipe, _writer) = pipe();
        let mut calls = 0;
        let mut call = || {
            let call = || -> io::Result<()> {
                calls += 1;
                Err(io::ErrorKind::WouldBlock.into())
            };
            let tried = pipe.try_io(FOR_INPUT, call);
            assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            calls
        };
        assert_eq!([call(), call()], [1, 2]);
        let runtime = runtime();
        assert!(poll_in(&runtime, pin!(read(&pipe))).is_pending());
        assert_eq!(call(), 2, "it is known not to be ready");
    }

    #[test]
    fn outside_a_runtime_nobody_waits() {
        let (pipe, _writer) = pipe();
        assert!(pipe.here().is_err());
    }
}
