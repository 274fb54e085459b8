//! Transfers between files and the arena by io_uring(7): calls that would wait take no thread of the embedder's.
//!
//! A sandbox has a ring of its own, made when it first needs one. An operation puts an entry into it, and all that a turn of
//! the driver has begun goes to the kernel together, when it [ends](Ring::submit). The ring's descriptor is readable when
//! something is done: one of the operations waits for that, takes what is done, and wakes those whose it is.
//!
//! What the kernel works on belongs to the ring and not to the operation that asked for it: the file stays open and the memory
//! mapped until the kernel is done, whoever is dropped meanwhile. When the sandbox has ended, a thread waits for what is left.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use io_uring::{IoUring, opcode, squeue, types};
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wakebox_vmm::process;

use super::blocking::Reach;
use super::regular::Regular;
use super::wait::Waitable;
use crate::arena::{ArenaSlice, Lasting};
use crate::error::{Error, Result};
use crate::later::Later;
use crate::signals;

/// Transfers of one sandbox under way at once, and entries of its ring.
const ENTRIES: u32 = 64;

/// How a sandbox waits for files that are not in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Io {
    /// As [`Io::Uring`] where the kernel allows it and no filter of system calls (seccomp(2)) is upon the process, which might
    /// end it for asking: one and a half to three and a half times as many reads of 4 KiB a second were measured as by threads. Else
    /// as [`Io::Epoll`].
    #[default]
    Auto,
    /// Sockets wait for epoll(7), files on threads for blocking calls of the runtime.
    Epoll,
    /// The same, but files wait for io_uring(7), on threads of the kernel's. A sandbox that may not have that cannot be built.
    Uring,
}

impl Io {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Epoll, Self::Uring];

    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Epoll => "epoll",
            Self::Uring => "uring",
        }
    }
}

/// What does the transfers of one sandbox that would wait.
#[derive(Debug, Default)]
pub(crate) enum Files {
    /// Threads for blocking calls.
    #[default]
    Threads,
    /// A ring when it is needed, if that may be.
    Perhaps,
    /// A ring when it is needed.
    Surely,
    /// A ring.
    Ring(Ring),
}

impl Files {
    /// As a sandbox was told.
    ///
    /// # Errors
    ///
    /// It is to use rings, and the kernel gives none.
    pub(crate) fn new(io: Io) -> Result<Self> {
        match io {
            Io::Auto => Ok(Self::Perhaps),
            Io::Epoll => Ok(Self::Threads),
            Io::Uring => match make() {
                Ok(_) => Ok(Self::Surely),
                Err(error) => Err(Error::Setting(format!(
                    "the kernel gives no ring of io_uring ({error}): it is too old (Linux 5.6), `kernel.io_uring_disabled` \
                     forbids it, or a filter of system calls does; use `Io::Auto` (`--io auto`)"
                ))),
            },
        }
    }

    /// The ring, made now if it is needed for the first time; `None` where threads do.
    pub(super) fn ring(&mut self) -> Option<Ring> {
        let may = match self {
            Self::Threads => return None,
            Self::Ring(ring) => return Some(ring.clone()),
            Self::Perhaps => !is_filtered(),
            Self::Surely => true,
        };
        let ring = may.then(Ring::new).and_then(io::Result::ok);
        *self = ring.clone().map_or(Self::Threads, Self::Ring);
        ring
    }

    /// A turn has begun all that it will.
    pub(super) fn submit(&self) {
        if let Self::Ring(ring) = self {
            ring.submit();
        }
    }
}

/// Whether a filter of system calls is upon this thread, or may be (proc_pid_status(5)).
fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status");
    !status.is_ok_and(|status| status.lines().any(|line| line == "Seccomp:\t0"))
}

/// A ring. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Ring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    room: Arc<Semaphore>,
    /// The ring's descriptor, until it is closed.
    readable: Option<Waitable<RawFd>>,
    state: Mutex<State>,
}

struct State {
    ring: Option<IoUring>,
    transfers: Slab<Under>,
    /// Entries that are not the kernel's yet.
    unsubmitted: usize,
    /// The process that has made it: a child after `fork` must leave it alone.
    process: u32,
}

/// A transfer under way.
struct Under {
    stage: Stage,
    /// Read and written by the kernel until it is done.
    _held: (Lasting, Arc<Later<Regular>>),
    /// Room for another.
    _room: OwnedSemaphorePermit,
}

enum Stage {
    Asked,
    Waits(Waker),
    /// Nobody waits any more.
    Left,
    /// What the kernel has returned.
    Done(i32),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("transfers", &self.transfers.len())
            .field("unsubmitted", &self.unsubmitted)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// An empty ring.
    ///
    /// # Errors
    ///
    /// The kernel has none (`ENOSYS`), does not give it (`EPERM`: `kernel.io_uring_disabled`, a filter of system calls), or has
    /// no memory for it.
    fn new() -> io::Result<Self> {
        let ring = make()?;
        // SAFETY: the ring's descriptor stays open until this is dropped: `Inner::drop` drops it first.
        let readable = unsafe { Waitable::of(ring.as_raw_fd()) };
        Ok(Self(Arc::new(Inner {
            room: Arc::new(Semaphore::new(ENTRIES as usize)),
            readable: Some(readable),
            state: Mutex::new(State {
                ring: Some(ring),
                transfers: Slab::new(),
                unsubmitted: 0,
                process: process::generation(),
            }),
        })))
    }

    /// Waits for room for a transfer, with which the operation [reaches](Reach) into the arena.
    pub(super) async fn entry(&self, reach: &Reach) -> Entry {
        let room = self.0.room.clone().acquire_owned().await;
        Entry {
            ring: self.0.clone(),
            room: room.expect("nobody closes the semaphore"),
            reach: reach.clone(),
        }
    }

    /// Tells the kernel of what was begun.
    fn submit(&self) {
        let mut state = self.0.lock();
        if state.unsubmitted > 0 {
            state.submit();
            state.reap();
        }
    }
}

/// Room for a transfer. To be used by who takes the driver's turns: the kernel is told at the end of one.
pub(super) struct Entry {
    ring: Arc<Inner>,
    room: OwnedSemaphorePermit,
    reach: Reach,
}

impl Entry {
    /// Reads at most so many bytes of a file, from this offset on, into a part of the arena.
    ///
    /// # Errors
    ///
    /// What the kernel says. `ECANCELED` if a thread has ended that had begun it: nothing was moved.
    pub(super) async fn read(
        self,
        file: Arc<Later<Regular>>,
        into: ArenaSlice,
        most: usize,
        offset: u64,
    ) -> io::Result<usize> {
        self.transfer(file, into, most, move |fd, base, len| {
            opcode::Read::new(fd, base, len).offset(offset).build()
        })
        .await
    }

    /// Writes at most so many bytes to a file, likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(super) async fn write(
        self,
        file: Arc<Later<Regular>>,
        from: ArenaSlice,
        most: usize,
        offset: u64,
    ) -> io::Result<usize> {
        self.transfer(file, from, most, move |fd, base, len| {
            opcode::Write::new(fd, base, len).offset(offset).build()
        })
        .await
    }

    async fn transfer(
        self,
        file: Arc<Later<Regular>>,
        slice: ArenaSlice,
        most: usize,
        entry: impl FnOnce(types::Fd, *mut u8, u32) -> squeue::Entry,
    ) -> io::Result<usize> {
        let Self { ring, room, reach } = self;
        let lasting = slice.lasting().ok_or(io::ErrorKind::Other)?;
        let (base, len) = lasting.range();
        let len = u32::try_from(len.min(most)).unwrap_or(u32::MAX);
        let entry = entry(types::Fd(file.file.as_raw_fd()), base, len);
        let under = Under {
            stage: Stage::Asked,
            _held: (lasting, file),
            _room: room,
        };
        reach.begin();
        let key = ring.lock().begin(entry, under)?;
        let asked = Asked { ring: &ring, key };
        let returned = std::future::poll_fn(|context| ring.poll(asked.key, context)).await;
        usize::try_from(returned).map_err(|_| io::Error::from_raw_os_error(-returned))
    }
}

pub(crate) fn make() -> io::Result<IoUring> {
    IoUring::builder().dontfork().build(ENTRIES)
}

/// Somebody who waits for a transfer.
struct Asked<'a> {
    ring: &'a Inner,
    key: usize,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        if let Some(Under { stage, .. }) = state.transfers.get_mut(self.key) {
            let is_done = matches!(stage, Stage::Done(_));
            *stage = Stage::Left;
            if is_done {
                state.transfers.remove(self.key);
            }
        }
        // It may have been the one that waits for the descriptor.
        let others = state.transfers.iter();
        let mut waiting = others.filter_map(|(_, other)| match &other.stage {
            Stage::Waits(waker) => Some(waker.clone()),
            _ => None,
        });
        let next = waiting.next();
        drop(state);
        next.into_iter().for_each(crate::outside::wake);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, key: usize, context: &mut Context<'_>) -> Poll<i32> {
        loop {
            {
                let mut state = self.lock();
                state.reap();
                let under = &mut state.transfers[key];
                if let Stage::Done(returned) = under.stage {
                    return Poll::Ready(returned);
                }
                under.stage = Stage::Waits(context.waker().clone());
            }
            // Who asks last is woken. Looked before, and once more if it was readable by then.
            let readable = self
                .readable
                .as_ref()
                .expect("it is there until it is dropped");
            let looked = match readable.here() {
                Ok(waits) => {
                    ready!(waits.fd().poll_read_ready(context)).map(|mut guard| guard.clear_ready())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                return Poll::Ready(-error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }
}

impl State {
    /// Puts an entry into the queue, which has the kernel work on what `under` holds and nothing else.
    fn begin(&mut self, entry: squeue::Entry, under: Under) -> io::Result<usize> {
        let key = self.transfers.insert(under);
        // By a thread of the kernel's: what might be done on the spot was tried before.
        let entry = entry.flags(squeue::Flags::ASYNC).user_data(key as u64);
        let ring = self.ring.as_mut().expect("it is there until it is dropped");
        // SAFETY: the range lies in mapped guest memory, which `under` keeps where it is, as it keeps the file open, until the
        // kernel has said that it is done: the slab gives neither away before. The kernel reads or writes there as a device
        // would; the host holds no reference into it.
        let pushed = unsafe { ring.submission().push(&entry) };
        if pushed.is_err() {
            // There are as many entries as permits.
            self.transfers.remove(key);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsubmitted += 1;
        Ok(key)
    }

    fn submit(&mut self) {
        let ring = self.ring.as_ref().expect("it is there until it is dropped");
        match ring.submit() {
            Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken),
            // The next turn tries again; whoever waits is woken by what is under way.
            Err(error) => tracing::debug!("io_uring_enter: {error}"),
        }
    }

    /// Takes what is done, and wakes those whose it is.
    fn reap(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        for done in ring.completion() {
            let key = done.user_data() as usize;
            let Some(under) = self.transfers.get_mut(key) else {
                continue;
            };
            match std::mem::replace(&mut under.stage, Stage::Done(done.result())) {
                Stage::Waits(waker) => crate::outside::wake(waker),
                Stage::Left => drop(self.transfers.remove(key)),
                Stage::Asked | Stage::Done(_) => {}
            }
        }
    }

    /// Waits for all that the kernel has.
    fn drain(mut self) {
        loop {
            self.reap();
            self.transfers
                .retain(|_, under| !matches!(under.stage, Stage::Done(_)));
            let ring = self.ring.as_ref().expect("it is there until it is dropped");
            // What it was never told of stays in the queue, and is never done.
            if self.transfers.len() <= self.unsubmitted {
                return;
            }
            if ring
                .submitter()
                .submit_and_wait(1)
                .is_err_and(|error| is_final(&error))
            {
                // Nobody knows what the kernel still works on: it stays for good.
                return std::mem::forget(self);
            }
            self.unsubmitted = 0;
        }
    }
}

fn is_final(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A number that is another file's by then must not be deregistered.
        drop(self.readable.take());
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let state = std::mem::replace(
            state,
            State {
                ring: None,
                transfers: Slab::new(),
                unsubmitted: 0,
                process: state.process,
            },
        );
        if state.process != process::generation() {
            // A child's copy: its mappings are the parent's.
            std::mem::forget(state);
            return;
        }
        if state.transfers.len() > state.unsubmitted {
            // Without a thread it goes with the attempt: what the kernel works on stays mapped for good.
            let left = std::mem::ManuallyDrop::new(state);
            let _ = signals::spawn("wakebox-io", None, move || {
                std::mem::ManuallyDrop::into_inner(left).drain();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::poll_fn;
    use std::io::{PipeWriter, Write};
    use std::os::fd::OwnedFd;
    use std::pin::pin;

    use rustix::event::{PollFd, PollFlags};
    use rustix::fs::OFlags;
    use wakebox_abi::op::Buf;
    use wakebox_vmm::memory::GuestMemory;

    use super::*;
    use crate::arena::Arena;
    use crate::loader::Image;

    /// A file that gives what is written to the other end.
    fn slow() -> (Arc<Later<Regular>>, PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = Regular::new(
            File::from(OwnedFd::from(reader)),
            OFlags::RDONLY,
            false,
            false,
        );
        (Arc::new(Later::new(file)), writer)
    }

    fn slice() -> (Arc<GuestMemory>, ArenaSlice) {
        let image = Image::from_bytes(crate::probe::program()).unwrap();
        let memory = crate::proof::memory(&image);
        let buf = Buf { offset: 8, len: 8 };
        let slice = Arena::of(&memory).slice(buf).unwrap();
        (memory, slice)
    }

    /// Reads as operations do.
    async fn read(ring: Ring, file: Arc<Later<Regular>>, into: ArenaSlice, most: usize) -> usize {
        let entry = ring.entry(&Reach::default()).await;
        let read = entry.read(file, into, most, u64::MAX).await;
        read.unwrap()
    }

    /// Whether a first poll leaves something to wait for.
    async fn begins(future: impl Future<Output = usize>) -> bool {
        let mut future = pin!(future);
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn the_kernel_begins_at_the_end_of_a_turn_and_wakes_who_waits() {
        let (ring, (_memory, into), (file, mut writer)) = (Ring::new().unwrap(), slice(), slow());
        let mut reads = pin!(read(ring.clone(), file.clone(), into.clone(), 5));
        assert!(begins(&mut reads).await);
        assert_eq!(ring.0.lock().unsubmitted, 1);
        ring.submit();
        assert_eq!(ring.0.lock().unsubmitted, 0);
        writer.write_all(b"12345678").unwrap();
        assert_eq!(reads.await, 5);
        assert_eq!(into.copied().unwrap(), b"12345\0\0\0");
        assert!(ring.0.lock().transfers.is_empty());
        assert_eq!(ring.0.room.available_permits(), ENTRIES as usize);
    }

    #[tokio::test]
    async fn who_stops_to_wait_lets_another_watch_the_descriptor() {
        let ring = Ring::new().unwrap();
        let ((_first, into), (_second, other)) = (slice(), slice());
        let ((file, mut writer), (never, _kept)) = (slow(), slow());
        let reads = tokio::spawn(read(ring.clone(), file, into, 8));
        tokio::task::yield_now().await;
        // Who asks last is woken for all.
        let left = tokio::spawn(read(ring.clone(), never, other, 8));
        tokio::task::yield_now().await;
        ring.submit();
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        writer.write_all(b"1").unwrap();
        assert_eq!(reads.await.unwrap(), 1);
        // What nobody waits for any more is still the kernel's.
        assert_eq!(ring.0.lock().transfers.len(), 1);
    }

    #[tokio::test]
    async fn what_the_kernel_works_on_stays_when_everybody_is_gone() {
        let (ring, (memory, into), (file, mut writer)) = (Ring::new().unwrap(), slice(), slow());
        let mut reads = Box::pin(read(ring.clone(), file, into, 8));
        assert!(begins(&mut reads).await);
        ring.submit();
        let (weak, strong) = (Arc::downgrade(&memory), memory);
        drop((reads, ring, strong));
        assert!(weak.upgrade().is_some());
        writer.write_all(b"1").unwrap();
        // Its thread closes the file then, and gives the memory away before.
        let mut closed = [PollFd::new(&writer, PollFlags::empty())];
        rustix::event::poll(&mut closed, None).unwrap();
        assert!(closed[0].revents().contains(PollFlags::ERR));
        assert!(weak.upgrade().is_none());
    }

    #[tokio::test]
    async fn what_the_kernel_was_never_told_of_is_not_waited_for() {
        let (ring, (memory, into), (file, writer)) = (Ring::new().unwrap(), slice(), slow());
        let mut reads = Box::pin(read(ring.clone(), file, into, 8));
        assert!(begins(&mut reads).await);
        let (weak, strong) = (Arc::downgrade(&memory), memory);
        drop((reads, ring, strong));
        assert!(weak.upgrade().is_none());
        drop(writer);
    }

    #[tokio::test]
    async fn a_ring_is_made_when_it_is_needed_and_not_again() {
        let mut files = Files::new(Io::Uring).unwrap();
        assert!(matches!(files, Files::Surely));
        let (first, second) = (files.ring().unwrap(), files.ring().unwrap());
        assert!(Arc::ptr_eq(&first.0, &second.0));
        let mut perhaps = Files::new(Io::default()).unwrap();
        assert_eq!(perhaps.ring().is_none(), is_filtered());
    }

    #[test]
    fn a_name_is_told_for_each() {
        assert_eq!(Io::ALL.map(Io::name), ["auto", "epoll", "uring"]);
        assert!(matches!(Files::new(Io::Epoll), Ok(Files::Threads)));
    }
}
