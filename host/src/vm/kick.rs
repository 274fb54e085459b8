//! Making a vCPU leave the guest from another thread.
//!
//! `KVM_RUN` returns with `EINTR` when its thread has a signal, or at once when
//! `immediate_exit` is set in the shared `kvm_run` page (KVM API, 5). A kick does both:
//! the flag covers the moment before the thread is in the guest, the signal the time in it.
//!
//! ```text
//! runner                                    kicker
//! R1 in_guest = true                        K1 reasons |= why
//! R2 fence                                  K2 immediate_exit = 1
//! R3 KVM_RUN (looks at immediate_exit)      K3 fence
//! R4 in_guest = false                       K4 if in_guest: signal the runner's thread
//! R5 immediate_exit = 0
//! R6 take reasons
//! ```
//!
//! If K4 does not see R1, then R3 sees K2 by the two fences. A kick between R5 and R6 is
//! taken at R6 and leaves `immediate_exit` set, which costs one needless exit.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Why a vCPU was kicked, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons(u32);

impl Reasons {
    /// It has had its quantum.
    pub(crate) const QUANTUM: Self = Self(1 << 0);
    /// There are completions for it.
    pub(crate) const COMPLETION: Self = Self(1 << 1);
    /// The sandbox is to end.
    pub(crate) const STOP: Self = Self(1 << 2);

    /// Whether the other's bits are all in this.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The shared part of a vCPU that others may kick.
#[derive(Debug)]
pub(crate) struct Kick {
    /// `kvm_run.immediate_exit`, as long as the vCPU exists.
    immediate_exit: Mutex<Option<Flag>>,
    reasons: AtomicU32,
    in_guest: AtomicBool,
    thread: AtomicI32,
    /// The ticker's tick at which the guest was entered.
    entered_at: AtomicU64,
    signal: i32,
}

/// The address of `immediate_exit` in a mapped `kvm_run` page.
#[derive(Debug)]
struct Flag(NonNull<AtomicU8>);

// SAFETY: the flag is an atomic, reached only under the mutex that also guards its lifetime.
unsafe impl Send for Flag {}

impl Kick {
    /// A kick for the vCPU whose `immediate_exit` flag lies at `flag`.
    ///
    /// # Safety
    ///
    /// The address stays mapped until [`Self::disarm`] is called.
    pub(crate) unsafe fn new(flag: NonNull<u8>, signal: i32) -> Self {
        Self {
            immediate_exit: Mutex::new(Some(Flag(flag.cast()))),
            reasons: AtomicU32::new(0),
            in_guest: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            entered_at: AtomicU64::new(0),
            signal,
        }
    }

    fn flag(&self) -> MutexGuard<'_, Option<Flag>> {
        self.immediate_exit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_immediate_exit(&self, value: u8) {
        if let Some(flag) = &*self.flag() {
            // SAFETY: under the mutex and not yet disarmed, so the page is mapped; the kernel
            // reads the byte whenever it likes, which an atomic allows.
            unsafe { flag.0.as_ref() }.store(value, Ordering::Relaxed);
        }
    }

    /// Forgets the vCPU: a later kick does nothing.
    pub(crate) fn disarm(&self) {
        *self.flag() = None;
    }

    /// Makes the vCPU leave the guest, now or as soon as it enters.
    pub(crate) fn kick(&self, why: Reasons) {
        self.reasons.fetch_or(why.0, Ordering::Relaxed); // K1
        self.set_immediate_exit(1); // K2
        fence(Ordering::SeqCst); // K3, partner: R2
        if self.in_guest.load(Ordering::Relaxed) {
            // K4. The thread may have left the guest, or ended, meanwhile: then the signal
            // finds an empty handler or nobody.
            // SAFETY: a system call on numbers.
            unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    libc::getpid(),
                    self.thread.load(Ordering::Relaxed),
                    self.signal,
                );
            }
        }
    }

    /// Whether the vCPU runs now. A hint: it may change at any time.
    pub(crate) fn is_in_guest(&self) -> bool {
        self.in_guest.load(Ordering::Relaxed)
    }

    /// The tick at which the guest was entered last.
    pub(crate) fn entered_at(&self) -> u64 {
        self.entered_at.load(Ordering::Relaxed)
    }

    /// R1 and R2: this thread is about to call `KVM_RUN`.
    pub(crate) fn enter(&self, tick: u64) {
        self.entered_at.store(tick, Ordering::Relaxed);
        self.thread.store(thread_id(), Ordering::Relaxed);
        self.in_guest.store(true, Ordering::Relaxed); // R1
        fence(Ordering::SeqCst); // R2, partner: K3
    }

    /// R4 to R6: `KVM_RUN` has returned, perhaps because it was interrupted. Returns why the
    /// vCPU was kicked, if it was.
    pub(crate) fn leave(&self, interrupted: bool) -> Reasons {
        self.in_guest.store(false, Ordering::Relaxed); // R4
        if !interrupted && self.reasons.load(Ordering::Relaxed) == 0 {
            // A kick that is under way right now shows at the next exit, which its K2 causes.
            return Reasons::default();
        }
        self.set_immediate_exit(0); // R5
        Reasons(self.reasons.swap(0, Ordering::Relaxed)) // R6
    }
}

/// This thread's id, asked of the kernel once a thread.
fn thread_id() -> i32 {
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
