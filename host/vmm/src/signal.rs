//! The signal by which a thread is made to leave the guest, and the flag beside it.
//!
//! # What it does not rest on
//!
//! Threads, their signal masks and what signals do belong to the embedder. So the kick works whatever
//! those are:
//!
//! * *blocked*, by the embedder or by whoever started the process: while a vCPU is in its guest, its
//!   thread takes the signals that it takes otherwise, and the kick (`KVM_SET_SIGNAL_MASK`, KVM API,
//!   4.21). What of it is left pending afterwards is taken out ([`swallow`]);
//! * *no place in the queue of pending signals* (RLIMIT_SIGPENDING): only real-time signals need one
//!   (signal(7)), so it is none;
//! * *a disposition that somebody else has changed*: it is looked at before each kick ([`install`]);
//! * *a thread that ended, or a process that forked*: thread ids are kept with the number of their
//!   process ([`crate::process`]).

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::kick::{Kick, Processor};
use crate::process;
use crate::thread::Set;
use rustix::time::{ClockId, clock_gettime};

/// The signal whose only effect is that `KVM_RUN` returns. A standard one that Linux has no use
/// for (signal(7)), so that nobody else has one either.
pub const KICK: i32 = libc::SIGSTKFLT;

/// A vCPU's `kvm_run` page, as far as a kick needs it.
#[derive(Debug)]
pub struct RunPage {
    immediate_exit: NonNull<AtomicU8>,
}

// SAFETY: the flag is an atomic, reached only under the mutex in `Kick` that also guards its
// lifetime.
unsafe impl Send for RunPage {}

impl RunPage {
    /// For the vCPU whose `immediate_exit` flag lies at `flag`.
    ///
    /// # Safety
    ///
    /// The address stays mapped until the [`Kick`] that gets this is disarmed.
    pub unsafe fn new(flag: NonNull<u8>) -> Self {
        Self {
            immediate_exit: flag.cast(),
        }
    }
}

impl Processor for RunPage {
    fn set_immediate_exit(&self, on: bool) {
        // SAFETY: not yet disarmed, so the page is mapped; the kernel reads the byte whenever it
        // likes, which an atomic allows.
        unsafe { self.immediate_exit.as_ref() }.store(u8::from(on), Ordering::Relaxed);
    }

    fn signal(&self, thread: i32) -> bool {
        if install().is_err() {
            return false;
        }
        // SAFETY: a system call on numbers.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, KICK) };
        sent == 0
    }
}

/// The kick of a vCPU of KVM.
pub type VcpuKick = Kick<RunPage>;

/// For how long the thread that calls was on a processor. A system call.
pub fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// This thread's id, asked of the kernel once a thread. The thread that goes on in a child after
/// `fork` is another one.
pub fn thread_id() -> i32 {
    thread_local! {
        static ID: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }
    let process = process::generation();
    let (of, id) = ID.get();
    if of == process && id != 0 {
        return id;
    }
    let id = rustix::thread::gettid().as_raw_nonzero().get();
    ID.set((process, id));
    id
}

/// The signals that a vCPU's thread holds back while it is in the guest, as the kernel writes them:
/// those that it holds back now, without the kick; and whether it holds that back now.
pub fn held_back() -> (u64, bool) {
    let now = Set::blocked();
    let kick = Set::of(&[KICK]).bits();
    (now.bits() & !kick, now.has(KICK))
}

/// Takes a kick that the calling thread holds back, so that it does not end the next stay in a guest.
pub fn swallow() {
    Set::of(&[KICK]).take();
}

/// Gives the kick an empty handler, unless it has one: without, it would end the process.
///
/// Other system calls that it meets are restarted (`SA_RESTART`), and it runs where the embedder
/// wants its handlers to run (`SA_ONSTACK`).
///
/// # Errors
///
/// What the kernel says.
pub fn install() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}

    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is plain data for which zeroes are valid; without a new action the call
    // only writes the old one, which lives through it.
    let action = unsafe {
        libc::sigaction(KICK, std::ptr::null(), action.as_mut_ptr());
        action.assume_init_mut()
    };
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
        return Ok(());
    }
    // SAFETY: as above; the handler does nothing, so it is safe in any context.
    let result = unsafe {
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(KICK, action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
