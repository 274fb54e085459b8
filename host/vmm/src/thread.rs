//! Threads in a process that is the embedder's, and the signals that they hold back: this library's own
//! take none of those that the process gets.

use std::io;
use std::mem::MaybeUninit;
use std::thread::JoinHandle;

/// A set of signals.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "the kernel's set has none")]
pub struct Set(libc::sigset_t);

impl Set {
    /// No signals.
    pub fn empty() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the call fills the set in.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// These signals.
    pub fn of(signals: &[i32]) -> Self {
        let mut set = Self::empty();
        for signal in signals {
            // SAFETY: the set is initialized, and lives through the call.
            unsafe { libc::sigaddset(&raw mut set.0, *signal) };
        }
        set
    }

    /// Those that the calling thread holds back.
    pub fn blocked() -> Self {
        let mut set = Self::empty();
        // SAFETY: without a new set the call only writes the old one.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set.0) };
        set
    }

    /// Those that wait until the calling thread takes them.
    pub fn pending() -> Self {
        let mut set = Self::empty();
        // SAFETY: the call writes a set, which lives through it.
        unsafe { libc::sigpending(&raw mut set.0) };
        set
    }

    /// Whether a signal is among them.
    pub fn has(&self, signal: i32) -> bool {
        // SAFETY: the set is initialized, and lives through the call.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    /// As the kernel writes it: the first signal is the lowest bit.
    pub fn bits(&self) -> u64 {
        (1..=64)
            .filter(|signal| self.has(*signal))
            .map(|signal| 1 << (signal - 1))
            .sum()
    }

    /// Takes one of them that waits for the calling thread, if any does.
    pub fn take(&self) -> bool {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time live through the call, which wants to write nothing.
        unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const now) > 0 }
    }
}

/// Signals that the calling thread holds back until this is dropped.
#[allow(missing_debug_implementations, reason = "the kernel's set has none")]
pub struct Blocked {
    /// Those that it held back already.
    pub before: Set,
    /// A thread has a mask of its own.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Blocked {
    /// Holds these back, besides those that are held back already.
    #[must_use]
    pub fn new(signals: &Set) -> Self {
        let mut before = Set::empty();
        // SAFETY: both sets live through the call.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals.0, &raw mut before.0) };
        Self {
            before,
            _thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set lives through the call.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before.0,
                std::ptr::null_mut(),
            );
        }
    }
}

/// Starts a thread of this library: `name` is at most 15 bytes, `stack` is in bytes.
///
/// It takes none of the process's signals: a handler of the embedder's may want a larger stack, or
/// the thread that it knows. Those that a thread brings upon itself, and that of profilers, it takes.
///
/// # Errors
///
/// The kernel gave no thread.
pub fn spawn(
    name: &str,
    stack: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: the call fills the set in.
    let mut all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    for own in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
        libc::SIGPROF,
    ] {
        // SAFETY: the set is initialized, and lives through the call.
        unsafe { libc::sigdelset(&raw mut all, own) };
    }
    let mut builder = std::thread::Builder::new().name(name.into());
    if let Some(stack) = stack {
        builder = builder.stack_size(stack);
    }
    // A thread begins with the mask of the one that starts it (pthread_create(3)).
    let _blocked = Blocked::new(&Set(all));
    builder.spawn(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_the_library_takes_no_signals() {
        let before = Set::blocked().bits();
        let (tell, told) = std::sync::mpsc::channel();
        let body = move || tell.send(Set::blocked()).unwrap();
        spawn("wakebox-test", None, body).unwrap().join().unwrap();
        let blocked = told.recv().unwrap();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGXFSZ] {
            assert!(blocked.has(signal), "{signal}");
        }
        assert!(!blocked.has(libc::SIGSEGV) && !blocked.has(libc::SIGPROF));
        assert_eq!(Set::blocked().bits(), before);
    }
}
