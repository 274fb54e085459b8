//! What `getrandom` 0.2 calls to ask Linux, whatever it is told: the C library's names for system calls, of which
//! one does something.

use core::ffi::{c_int, c_long};

use crate::generator;

/// The number of `getrandom` (`asm/unistd_64.h`).
const GETRANDOM: c_long = 318;

/// `ENOSYS` (`asm-generic/errno.h`).
pub const UNKNOWN: c_int = 38;

/// `syscall(SYS_getrandom, to, len, flags)`; whether it was that one and in a guest.
///
/// # Safety
///
/// If the number is that one, the `len` bytes at `to` may be written; they need not be initialized.
#[must_use]
pub unsafe fn random(number: c_long, to: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's promise.
    number == GETRANDOM && unsafe { generator::fill_at(to, len) }
}

/// Defines what `getrandom` 0.2 calls. Of these, only `syscall` is ever reached: the others are for a kernel that
/// does not know `getrandom`.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_random {
    () => {
        const _: () = {
            use ::core::ffi::{c_int, c_long, c_void};
            use ::core::sync::atomic::{AtomicI32, Ordering};

            static ERRNO: AtomicI32 = AtomicI32::new(0);

            fn unknown() -> c_int {
                ERRNO.store($crate::__private::UNKNOWN_CALL, Ordering::Relaxed);
                -1
            }

            #[unsafe(no_mangle)]
            extern "C" fn __errno_location() -> *mut c_int {
                ERRNO.as_ptr()
            }

            // In C it takes any number of arguments, which are passed as these are.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn syscall(number: c_long, to: *mut u8, len: usize) -> c_long {
                // SAFETY: what its caller promises Linux.
                match unsafe { $crate::__private::random_call(number, to, len) } {
                    true => len as c_long,
                    false => unknown().into(),
                }
            }

            #[unsafe(no_mangle)]
            extern "C" fn open(_path: *const c_void, _flags: c_int) -> c_int {
                unknown()
            }

            #[unsafe(no_mangle)]
            extern "C" fn read(_file: c_int, _to: *mut c_void, _len: usize) -> isize {
                unknown() as isize
            }

            #[unsafe(no_mangle)]
            extern "C" fn close(_file: c_int) -> c_int {
                unknown()
            }

            #[unsafe(no_mangle)]
            extern "C" fn poll(_files: *mut c_void, _count: usize, _timeout: c_int) -> c_int {
                unknown()
            }

            /// `strerror_r`, of which an error's words would come: there are none.
            #[unsafe(no_mangle)]
            extern "C" fn __xpg_strerror_r(_code: c_int, _to: *mut c_void, _len: usize) -> c_int {
                $crate::__private::UNKNOWN_CALL
            }

            #[unsafe(no_mangle)]
            extern "C" fn pthread_mutex_lock(_mutex: *mut c_void) -> c_int {
                0
            }

            #[unsafe(no_mangle)]
            extern "C" fn pthread_mutex_unlock(_mutex: *mut c_void) -> c_int {
                0
            }
        };
    };
}
