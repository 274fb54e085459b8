//! This process's own standard streams.
//!
//! Their descriptors are shared with whoever started the process and with all that it starts: their
//! flags are left as they are. Reading and writing are calls that may wait, made on a thread for
//! such calls, as soon as `poll` says that they will not; so a stream that blocks and one that does
//! not (`O_NONBLOCK`) are treated alike. Beside the stream, `poll` watches a bell, which is rung
//! when nobody waits for the call any more: a sandbox that ends keeps no thread.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that a pipe, a terminal or a socket takes at a time: if `poll` calls a pipe writable, it
/// takes so many without waiting (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;

/// A standard stream of this process.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    stream: BorrowedFd<'static>,
    /// Most bytes of one call that writes.
    piece: usize,
    bell: Arc<OwnedFd>,
}

impl Descriptor {
    /// # Errors
    ///
    /// There is no descriptor left for the bell.
    pub(super) fn new(stream: BorrowedFd<'static>) -> io::Result<Self> {
        // What is no open descriptor says so when it is used.
        let is_file = fstat(stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Ok(Self {
            stream,
            piece: if is_file { usize::MAX } else { PIECE },
            bell: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        })
    }

    /// Begins a call on a thread of the current runtime for calls that may wait. One at a time: there
    /// is one bell.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub(super) fn start<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Wait) -> T + Send + 'static,
    ) -> io::Result<Begun<T>> {
        let wait = Wait {
            stream: self.clone(),
            is_over: Arc::default(),
        };
        let guard = Guard(wait.clone());
        // Tokio panics where the system starts no thread.
        let begin = AssertUnwindSafe(|| spawn_blocking(move || call(&wait)));
        let task = catch_unwind(begin)
            .map_err(|_| io::Error::other("no thread could be started for a call that may wait"))?;
        Ok(Begun {
            task,
            _guard: guard,
        })
    }
}

/// A call under way. Dropping it has the call wait no longer; what it has done by then stays done.
#[derive(Debug)]
pub(super) struct Begun<T> {
    task: JoinHandle<T>,
    _guard: Guard,
}

impl<T> Begun<T> {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// The runtime ends.
    pub(super) async fn ended(mut self) -> io::Result<T> {
        (&mut self.task).await.map_err(io::Error::other)
    }
}

/// Rings when it goes.
#[derive(Debug)]
struct Guard(Wait);

impl Drop for Guard {
    fn drop(&mut self) {
        // Release: the call that takes the flag for raised need see nothing else, but a later one
        // must not take this ring for its own.
        if !self.0.is_over.swap(true, Ordering::AcqRel) {
            // An eventfd takes 2^64 - 2 rings.
            let _ = rustix::io::write(&self.0.stream.bell, &1_u64.to_ne_bytes());
        }
    }
}

/// What a call on a thread works with.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    stream: Descriptor,
    is_over: Arc<AtomicBool>,
}

impl Wait {
    /// Writes all of `bytes`; `wrote` is told of each piece that has left.
    ///
    /// # Errors
    ///
    /// What the kernel says; `Interrupted` if nobody waits any more.
    pub(super) fn write_all(
        &self,
        mut bytes: &[u8],
        mut wrote: impl FnMut(usize),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            self.until(PollFlags::OUT)?;
            let piece = &bytes[..bytes.len().min(self.stream.piece)];
            match rustix::io::write(self.stream.stream, piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    wrote(count);
                    bytes = &bytes[count..];
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is, at least a byte unless it is at its end.
    ///
    /// # Errors
    ///
    /// As [`Self::write_all`].
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.until(PollFlags::IN)?;
            match rustix::io::read(self.stream.stream, &mut *bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the stream is ready, or has an error, which the call tells then.
    fn until(&self, flags: PollFlags) -> io::Result<()> {
        loop {
            if self.is_over.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut waiting = [
                PollFd::new(&self.stream.stream, flags),
                PollFd::new(&*self.stream.bell, PollFlags::IN),
            ];
            match poll(&mut waiting, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [stream, bell] = waiting.map(|waiting| waiting.revents());
            if !bell.is_empty() {
                // Perhaps for a call before this one, which had ended by then.
                let _ = rustix::io::read(&self.stream.bell, &mut [0; 8]);
            } else if !stream.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read as _, Write as _, pipe};
    use std::os::fd::AsFd as _;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    /// A stream that lives as long as the test's process, as the standard ones do; one that blocks,
    /// or one that does not.
    fn for_ever(end: impl Into<OwnedFd>, blocks: bool) -> Descriptor {
        let end: &OwnedFd = Box::leak(Box::new(end.into()));
        let end = end.as_fd();
        if !blocks {
            let flags = fcntl_getfl(end).unwrap();
            fcntl_setfl(end, flags | OFlags::NONBLOCK).unwrap();
        }
        Descriptor::new(end).unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime")
    }

    #[test]
    fn more_than_a_pipe_holds_arrives_whether_it_blocks_or_not() {
        for blocks in [true, false] {
            let (mut from, into) = pipe().unwrap();
            let sent: Vec<u8> = (0..300_001).map(|byte| byte as u8).collect();
            let stream = for_ever(into, blocks);
            let runtime = runtime();
            let _context = runtime.enter();
            let (bytes, mut told) = (sent.clone(), 0);
            let call = stream
                .start(move |wait| wait.write_all(&bytes, |count| told += count).map(|()| told));
            let mut arrived = vec![0; sent.len()];
            from.read_exact(&mut arrived).unwrap();
            assert!(arrived == sent);
            let told = runtime.block_on(call.unwrap().ended()).unwrap().unwrap();
            assert_eq!(told, sent.len());
        }
    }

    #[test]
    fn an_empty_pipe_is_waited_for_whether_it_blocks_or_not() {
        for blocks in [true, false] {
            let (from, mut into) = pipe().unwrap();
            let stream = for_ever(from, blocks);
            let runtime = runtime();
            let _context = runtime.enter();
            let call = stream.start(|wait| {
                let mut bytes = [0; 8];
                wait.read(&mut bytes).map(|count| bytes[..count].to_vec())
            });
            into.write_all(b"late").unwrap();
            let read = runtime.block_on(call.unwrap().ended()).unwrap();
            assert_eq!(read.unwrap(), b"late");
        }
    }

    #[test]
    fn a_call_that_nobody_waits_for_ends_and_the_next_one_works() {
        let (from, mut into) = pipe().unwrap();
        let stream = for_ever(from, true);
        let runtime = runtime();
        let _context = runtime.enter();
        let (tell, ended) = std::sync::mpsc::channel();
        let call = stream.start(move |wait| {
            let _ = tell.send(wait.read(&mut [0]).map_err(|error| error.kind()));
        });
        drop(call);
        assert_eq!(ended.recv().unwrap(), Err(io::ErrorKind::Interrupted));
        // Also if the ring comes when the call has ended already.
        into.write_all(b"a").unwrap();
        let call = stream.start(|wait| wait.read(&mut [0]));
        let call = call.unwrap();
        while !call.task.is_finished() {
            std::thread::yield_now();
        }
        drop(call);
        into.write_all(b"b").unwrap();
        let call = stream.start(|wait| wait.read(&mut [0]));
        let read = runtime.block_on(call.unwrap().ended()).unwrap();
        assert_eq!(read.unwrap(), 1);
    }

    #[test]
    fn a_runtime_is_not_kept_by_a_call_that_was_dropped() {
        let (from, _into) = pipe().unwrap();
        let stream = for_ever(from, true);
        let runtime = runtime();
        let inside = runtime.enter();
        let call = stream.start(|wait| wait.read(&mut [0]));
        drop(call);
        drop(inside);
        // Waits for the threads that are at work.
        drop(runtime);
    }

    #[test]
    fn a_stream_that_takes_nothing_says_so() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let stream = for_ever(full.unwrap(), true);
        let runtime = runtime();
        let _context = runtime.enter();
        let call = stream.start(|wait| wait.write_all(b"word", |_| {}));
        let wrote = runtime.block_on(call.unwrap().ended()).unwrap();
        assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
