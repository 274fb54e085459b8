//! The signal by which a thread is made to leave the guest, and the flag beside it.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use super::kick::{Kick, Processor};
use crate::error::{Error, Result};

/// A vCPU's `kvm_run` page, as far as a kick needs it.
#[derive(Debug)]
pub(crate) struct RunPage {
    immediate_exit: NonNull<AtomicU8>,
    signal: i32,
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
    pub(crate) unsafe fn new(flag: NonNull<u8>, signal: i32) -> Self {
        Self {
            immediate_exit: flag.cast(),
            signal,
        }
    }
}

impl Processor for RunPage {
    fn set_immediate_exit(&self, on: bool) {
        // SAFETY: not yet disarmed, so the page is mapped; the kernel reads the byte whenever it
        // likes, which an atomic allows.
        unsafe { self.immediate_exit.as_ref() }.store(u8::from(on), Ordering::Relaxed);
    }

    fn signal(&self, thread: i32) {
        // SAFETY: a system call on numbers.
        unsafe {
            libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, self.signal);
        }
    }
}

/// The kick of a vCPU of KVM.
pub(crate) type VcpuKick = Kick<RunPage>;

/// This thread's id, asked of the kernel once a thread.
pub(crate) fn thread_id() -> i32 {
    thread_local! {
        static ID: i32 = rustix::thread::gettid().as_raw_nonzero().get();
    }
    ID.with(|id| *id)
}

/// The signal whose only effect is that `KVM_RUN` returns.
fn kick_signal() -> i32 {
    libc::SIGRTMIN() + 4
}

/// Installs an empty handler for the kick signal and returns its number.
///
/// Other system calls that it meets are restarted (`SA_RESTART`).
pub(crate) fn install_signal_handler() -> Result<i32> {
    extern "C" fn nothing(_: libc::c_int) {}

    let signal = kick_signal();
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is plain data for which zeroes are valid; the handler does nothing,
    // so it is safe in any context; the pointers live through the calls.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, action, std::ptr::null_mut())
    };
    if result != 0 {
        return Err(Error::Kvm {
            action: "install the handler of the signal that interrupts guests",
            source: io::Error::last_os_error(),
        });
    }
    Ok(signal)
}
