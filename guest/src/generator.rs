//! Random bytes at once, for the crate `getrandom`, whose callers cannot await.

use core::slice;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::runtime::try_runtime;

/// Sets this stream of bytes apart from those that a guest makes of [`crate::random::seed`] itself.
const STREAM: u64 = u64::from_le_bytes(*b"getrando");

/// A generator for a sandbox that was started with this seed.
pub(crate) fn from_seed(words: [u64; 4]) -> ChaCha20Rng {
    let mut seed = [0; 32];
    for (bytes, word) in seed.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut generator = ChaCha20Rng::from_seed(seed);
    generator.set_stream(STREAM);
    generator
}

/// What `getrandom` calls. [`crate::main`] puts it in.
///
/// # Errors
///
/// `UNSUPPORTED` outside of a guest.
///
/// # Safety
///
/// The `len` bytes at `to` may be written; they need not be initialized.
#[doc(hidden)]
pub unsafe fn fill(to: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    let runtime = try_runtime().ok_or(getrandom::Error::UNSUPPORTED)?;
    // SAFETY: the caller's promise; the zeros make it initialized.
    let bytes = unsafe {
        to.write_bytes(0, len);
        slice::from_raw_parts_mut(to, len)
    };
    runtime.generator.borrow_mut().fill_bytes(bytes);
    Ok(())
}

/// Defines what `getrandom` calls.
#[cfg(getrandom_backend = "custom")]
#[doc(hidden)]
#[macro_export]
macro_rules! __getrandom {
    () => {
        #[unsafe(no_mangle)]
        unsafe extern "Rust" fn __getrandom_v03_custom(
            to: *mut u8,
            len: usize,
        ) -> ::core::result::Result<(), $crate::__private::getrandom::Error> {
            // SAFETY: the caller's promise.
            unsafe { $crate::__private::fill_random(to, len) }
        }
    };
}

/// Says what is missing.
#[cfg(not(getrandom_backend = "custom"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __getrandom {
    () => {
        ::core::compile_error!(
            "the feature `getrandom` of wakebox-guest wants `--cfg getrandom_backend=\"custom\"`: \
             put `[build]` and `rustflags = ['--cfg', 'getrandom_backend=\"custom\"']` into the \
             file .cargo/config.toml"
        );
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_has_a_stream_of_its_own() {
        let bytes = |seed| {
            let mut bytes = [0; 64];
            from_seed(seed).fill_bytes(&mut bytes);
            bytes
        };
        assert_eq!(bytes([1, 2, 3, 4]), bytes([1, 2, 3, 4]));
        assert_ne!(bytes([1, 2, 3, 4]), bytes([1, 2, 3, 5]));
        let mut plain = [0; 64];
        ChaCha20Rng::from_seed([0; 32]).fill_bytes(&mut plain);
        assert_ne!(bytes([0; 4]), plain);
    }
}
