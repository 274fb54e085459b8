//! SIGHUP, SIGINT and SIGTERM: the first ends the run in order, another one the command at once. SIGQUIT
//! asks what the guest waits for.
//!
//! The handlers are there before anything else is done: so the signals mean the same while the guest
//! is loaded, runs, and has its output waited for; and they end a process that is the first of its
//! namespace, for which the kernel does nothing by itself (pid_namespaces(7)).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const SIGNALS: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Another signal sooner than this after the first is the same wish: `timeout` sends one to its
/// child and to the child's group, a service manager SIGHUP behind SIGTERM. In nanoseconds.
const SAME_WISH: u64 = 500_000_000;

/// The first signal, or 0.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// When it came.
static FIRST_AT: AtomicU64 = AtomicU64::new(0);
/// Rung by the handler; -1 before there is one.
static BELL: AtomicI32 = AtomicI32::new(-1);
/// Rung by that of SIGQUIT.
static QUESTION: AtomicI32 = AtomicI32::new(-1);

/// Catches the signals from now on, except a SIGHUP that whoever started the process wants ignored, as
/// `nohup` does. A shell has what it puts into the background ignore SIGINT, so that no key ends it;
/// whoever sends that by name means it.
///
/// # Errors
///
/// The kernel did not do its part.
pub(super) fn catch() -> Result<()> {
    static OWNED: [OnceLock<OwnedFd>; 2] = [const { OnceLock::new() }; 2];
    for (owned, bell) in OWNED.iter().zip([&BELL, &QUESTION]) {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context("no descriptor for the signals that end the command")?;
        // As long as the process lives.
        bell.store(owned.get_or_init(|| made).as_raw_fd(), Ordering::Release);
    }
    for signal in SIGNALS {
        handle(signal, heard).context("the signals that end the command cannot be caught")?;
    }
    handle(libc::SIGQUIT, asked).context("SIGQUIT cannot be caught")
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: all-zero bytes are a `sigaction` and a `sigset_t`; the calls read and write these
    // values alone. The handler does nothing that a handler may not do (signal-safety(7)).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
            return Err(io::Error::last_os_error());
        }
        if signal == libc::SIGHUP && action.sa_sigaction == libc::SIG_IGN {
            return Ok(());
        }
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // A mask is inherited, from a program that wanted to have no signals itself.
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        match libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

extern "C" fn heard(signal: libc::c_int) {
    let now = now();
    if FIRST
        .compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        if now.saturating_sub(FIRST_AT.load(Ordering::Acquire)) >= SAME_WISH {
            // SAFETY: it ends the process.
            unsafe { libc::_exit(status_of(FIRST.load(Ordering::Acquire)).into()) };
        }
        return;
    }
    FIRST_AT.store(now, Ordering::Release);
    ring(&BELL);
}

extern "C" fn asked(_signal: libc::c_int) {
    ring(&QUESTION);
}

/// Rings a bell, as a handler may.
fn ring(bell: &AtomicI32) {
    // SAFETY: the descriptor is never closed, eight bytes are read, and the interrupted code finds
    // its error number as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let ring = 1_u64;
        libc::write(
            bell.load(Ordering::Acquire),
            (&raw const ring).cast(),
            size_of::<u64>(),
        );
        *errno = before;
    }
}

/// Nanoseconds on a clock that only goes forward.
fn now() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to `now`, and a handler may make it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The exit status of a command that a signal has ended, as shells show it.
fn status_of(signal: libc::c_int) -> u8 {
    128 + signal as u8
}

/// Whether a signal has come, and what the command's exit status is then.
pub(super) fn caught() -> Option<u8> {
    match FIRST.load(Ordering::Acquire) {
        0 => None,
        signal => Some(status_of(signal)),
    }
}

/// Waits for the first signal; for ever, if none is caught.
pub(super) async fn first() {
    if caught().is_none() {
        rung(&BELL).await;
    }
}

/// Waits for SIGQUIT, and once for each number of them that come before it is called again.
pub(super) async fn question() {
    let bell = rung(&QUESTION).await;
    let mut count = [0; size_of::<u64>()];
    // Whoever else read it has answered.
    let _ = rustix::io::read(bell, &mut count);
}

/// Waits until a bell was rung; for ever, if there is none.
async fn rung(bell: &AtomicI32) -> BorrowedFd<'static> {
    let bell = bell.load(Ordering::Acquire);
    if bell >= 0 {
        // SAFETY: the descriptor is never closed.
        let bell = unsafe { BorrowedFd::borrow_raw(bell) };
        // SAFETY: it stays the same descriptor, whatever is done with the value.
        let readable = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
        if let Ok(readable) = readable
            && readable.readable().await.is_ok()
        {
            return bell;
        }
    }
    std::future::pending().await
}
