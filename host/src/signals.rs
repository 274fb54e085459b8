//! Signals of a process that is the embedder's: what this library does must not bring it any, and
//! its threads take none of those that it gets.

use std::io;
use std::thread::JoinHandle;

use wakebox_vmm::thread::{self, Blocked, Set};

use crate::outside;

/// What a write brings the thread that makes it, besides an error: beyond RLIMIT_FSIZE, and to a
/// pipe that nobody reads (setrlimit(2), pipe(7)). Either ends a process that has not said otherwise.
const OF_WRITES: [i32; 2] = [libc::SIGXFSZ, libc::SIGPIPE];

/// Makes a call that writes to a file or a pipe. Its failure is an error and no signal, whatever
/// the process does about such signals; what it does stays as it is.
pub(crate) fn write<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let set = Set::of(&OF_WRITES);
    let blocked = Blocked::new(&set);
    // Held back by the embedder, and not taken yet: those are not of this call.
    let before = OF_WRITES
        .iter()
        .any(|signal| blocked.before.has(*signal))
        .then(Set::pending);
    let result = call();
    if let Err(error) = &result {
        let signal = match error.raw_os_error() {
            Some(libc::EFBIG) => libc::SIGXFSZ,
            Some(libc::EPIPE) => libc::SIGPIPE,
            _ => return result,
        };
        if !before.is_some_and(|before| before.has(signal)) {
            Set::of(&[signal]).take();
        }
    }
    result
}

/// Starts a thread of this library, as [`thread::spawn`] does, on which the embedder's code must not
/// run.
///
/// # Errors
///
/// The kernel gave no thread.
pub(crate) fn spawn(
    name: &str,
    stack: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::spawn(name, stack, || {
        outside::this_thread_is_ours();
        body();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A pipe that nobody reads.
    fn widowed() -> std::io::PipeWriter {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    }

    #[test]
    fn a_write_that_fails_leaves_no_signal_and_the_mask_as_it_was() {
        let before = Set::blocked().bits();
        let error = write(|| (&widowed()).write(b"x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!Set::pending().has(libc::SIGPIPE));
        assert_eq!(Set::blocked().bits(), before);
    }

    #[test]
    fn a_signal_that_the_embedder_has_not_taken_yet_stays() {
        let thread = std::thread::spawn(|| {
            let _held = Blocked::new(&Set::of(&[libc::SIGPIPE]));
            // SAFETY: it sends a signal, which is held back, to this thread.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGPIPE) };
            write(|| (&widowed()).write(b"x")).unwrap_err();
            assert!(Set::of(&[libc::SIGPIPE]).take(), "the embedder's");
            write(|| (&widowed()).write(b"x")).unwrap_err();
            assert!(!Set::of(&[libc::SIGPIPE]).take(), "the library's");
        });
        thread.join().unwrap();
    }
}
