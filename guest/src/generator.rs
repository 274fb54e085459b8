//! Random bytes at once, for the crate `getrandom`, whose callers cannot await. A sandbox that was
//! restored from a template goes on with bytes of its own.

use core::slice;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wakebox_abi::boot::{Identity, Instance};

use crate::runtime::try_runtime;

/// Sets this stream of bytes apart from those that a guest makes of [`crate::random::seed`] itself.
const STREAM: u64 = u64::from_le_bytes(*b"getrando");

/// The generator of a sandbox.
#[derive(Debug)]
pub(crate) struct Generator {
    bytes: ChaCha20Rng,
    /// Of the sandbox that it was seeded in.
    generation: [u64; 2],
}

impl Generator {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self {
            bytes: keyed(identity, [0; 4]),
            generation: identity.generation,
        }
    }

    /// Fills a slice. What it is filled with is no other sandbox's, whatever template they have in
    /// common: the generation is compared at each draw.
    pub(crate) fn fill(&mut self, instance: &Instance, to: &mut [u8]) {
        if self.generation != instance.generation() {
            self.reseed(&instance.read());
        }
        self.bytes.fill_bytes(to);
    }

    /// Begins anew, with the instance's own seed and with what the former stream would have given
    /// next: who knows only one of the two does not know the new stream.
    #[cold]
    fn reseed(&mut self, identity: &Identity) {
        let next = core::array::from_fn(|_| self.bytes.next_u64());
        *self = Self {
            bytes: keyed(identity, next),
            generation: identity.generation,
        };
    }
}

/// The stream of an instance's seed and what is mixed into it.
fn keyed(identity: &Identity, mixed: [u64; 4]) -> ChaCha20Rng {
    let mut key = [0; 32];
    let words = identity.seed.into_iter().zip(mixed);
    for (bytes, (seed, mixed)) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&(seed ^ mixed).to_le_bytes());
    }
    let mut generator = ChaCha20Rng::from_seed(key);
    generator.set_stream(STREAM);
    generator
}

/// Fills bytes that are not initialized. Returns whether it could: outside of a guest it cannot.
///
/// # Safety
///
/// The `len` bytes at `to` may be written.
pub(crate) unsafe fn fill_at(to: *mut u8, len: usize) -> bool {
    let Some(runtime) = try_runtime() else {
        return false;
    };
    // SAFETY: the caller's promise; the zeros make it initialized.
    let bytes = unsafe {
        to.write_bytes(0, len);
        slice::from_raw_parts_mut(to, len)
    };
    let mut generator = runtime.generator.borrow_mut();
    generator.fill(runtime.instance, bytes);
    true
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
#[cfg(feature = "getrandom")]
#[doc(hidden)]
pub unsafe fn fill(to: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    // SAFETY: the caller's promise.
    match unsafe { fill_at(to, len) } {
        true => Ok(()),
        false => Err(getrandom::Error::UNSUPPORTED),
    }
}

/// Defines what `getrandom` calls.
#[cfg(all(feature = "getrandom", getrandom_backend = "custom"))]
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
#[cfg(all(feature = "getrandom", not(getrandom_backend = "custom")))]
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

    fn identity(generation: u64, seed: [u64; 4]) -> Identity {
        Identity {
            generation: [generation, 7],
            seed,
            ..Identity::default()
        }
    }

    /// The next bytes that a generator gives in this instance.
    fn bytes(generator: &mut Generator, now: &Identity) -> [u8; 64] {
        let instance = Instance::default();
        instance.write(now);
        let mut bytes = [0; 64];
        generator.fill(&instance, &mut bytes);
        bytes
    }

    #[test]
    fn each_seed_has_a_stream_of_its_own() {
        let first = |seed| {
            let identity = identity(1, seed);
            bytes(&mut Generator::new(&identity), &identity)
        };
        assert_eq!(first([1, 2, 3, 4]), first([1, 2, 3, 4]));
        assert_ne!(first([1, 2, 3, 4]), first([1, 2, 3, 5]));
        let mut plain = [0; 64];
        ChaCha20Rng::from_seed([0; 32]).fill_bytes(&mut plain);
        assert_ne!(first([0; 4]), plain);
    }

    #[test]
    fn clones_share_no_bytes_with_each_other_or_with_their_template() {
        let template = identity(1, [1, 2, 3, 4]);
        let mut seen = std::collections::HashSet::new();
        let mut remember = |bytes: [u8; 64]| {
            for bytes in bytes.as_chunks::<16>().0 {
                assert!(seen.insert(*bytes), "the same 16 bytes twice");
            }
        };
        // What the template has drawn before it is taken, each clone has drawn too.
        let taken = || {
            let mut generator = Generator::new(&template);
            let drawn = bytes(&mut generator, &template);
            (generator, drawn)
        };
        let (mut generator, drawn) = taken();
        remember(drawn);
        for _ in 0..4 {
            remember(bytes(&mut generator, &template));
        }
        for clone in 2..1_000 {
            let (mut generator, _) = taken();
            let identity = identity(clone, [clone, 2, 3, 4]);
            remember(bytes(&mut generator, &identity));
            remember(bytes(&mut generator, &identity));
        }
    }

    #[test]
    fn a_new_stream_needs_both_the_former_one_and_the_seed() {
        let clone = identity(2, [5, 6, 7, 8]);
        let after = |template: [u64; 4], clone: &Identity| {
            bytes(&mut Generator::new(&identity(1, template)), clone)
        };
        assert_eq!(after([1; 4], &clone), after([1; 4], &clone));
        assert_ne!(after([1; 4], &clone), after([2; 4], &clone));
        assert_ne!(
            after([1; 4], &clone),
            after([1; 4], &identity(2, [5, 6, 7, 9]))
        );
        // A host that gives the template's seed again has not given its bytes again.
        let again = identity(2, [1; 4]);
        let first = bytes(
            &mut Generator::new(&identity(1, [1; 4])),
            &identity(1, [1; 4]),
        );
        assert_ne!(after([1; 4], &again), first);
    }
}
