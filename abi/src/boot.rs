//! What the host tells a guest before its first instruction, the clock, and what sets one sandbox
//! apart from another of the same template.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::wake::Mode;

/// First word of a boot page: "WAKEBOX1", little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"WAKEBOX1");

/// What a host offers and a guest may require, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// `rdtsc` together with the [`Clock`] page gives the time without an exit.
    pub const TSC_CLOCK: u64 = 1 << 0;
    /// Another thread looks at the rings while the guest runs: a guest that watches
    /// the completion ring will see it filled.
    pub const EXITLESS: u64 = 1 << 1;

    /// All bits that this version gives a meaning.
    pub const KNOWN: u64 = Self::TSC_CLOCK | Self::EXITLESS;

    /// Whether all bits of `mask` are set.
    #[must_use]
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }
}

/// A range of guest-virtual addresses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Range {
    /// First address past the range.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The boot page at [`crate::layout::BOOT`]: written by the host before the start,
/// never changed after, read-only to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Boot {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`] of the guest, which the host has found to be one that it runs.
    pub version: u32,
    /// Virtual processors of this guest, at most [`crate::layout::PROCESSORS_MAX`]. All but the first begin when they are
    /// started ([`crate::port::START`]).
    pub vcpus: u32,
    /// [`Features`] that the host offers.
    pub features: u64,
    /// How the guest should sleep: a [`Mode`] as a number.
    pub wake_mode: u32,
    /// Nanoseconds that a guest may at most watch the completion ring before it
    /// leaves with [`crate::port::WAIT`] (modes `poll` and `auto`).
    pub spin_ns: u32,
    /// Entries of the submission ring, a power of two.
    pub submissions: u32,
    /// Entries of the completion ring, a power of two: most operations in flight.
    pub completions: u32,
    /// The loaded image, from the lowest to the highest segment.
    pub image: Range,
    /// The first processor's stack; grows down from its end. Those of the others are as long
    /// ([`crate::layout::stack_of`]).
    pub stack: Range,
    /// The I/O arena.
    pub arena: Range,
    /// The heap, zeroed.
    pub heap: Range,
    /// The arguments that the guest was first started with: UTF-8 strings, each ended by a NUL. They
    /// lie behind the [`Instance`], which has those of now.
    pub args: Range,
    /// The environment that the guest was first started with: `KEY=value` strings, each ended by a
    /// NUL. As `args`.
    pub env: Range,
    /// The first [`Instance::seed`]. All sandboxes of one template have it in common.
    pub seed: [u64; 4],
    /// Slots of the trace ring at [`crate::layout::TRACE`], a power of two; zero if nobody watched when
    /// the guest was first started, and there was none ([`crate::trace`]).
    pub trace_records: u32,
    /// How many windows the guest has ([`crate::window`]), as many as it has asked for, or none.
    pub windows: u32,
}

const _: () = {
    assert!(
        size_of::<Boot>() == 176 && align_of::<Boot>() == 8,
        "Boot: raise ABI_VERSION"
    );
    assert!(
        core::mem::offset_of!(Boot, wake_mode) == 24,
        "Boot: raise ABI_VERSION"
    );
    assert!(
        core::mem::offset_of!(Boot, image) == 40,
        "Boot: raise ABI_VERSION"
    );
    assert!(
        core::mem::offset_of!(Boot, seed) == 136,
        "Boot: raise ABI_VERSION"
    );
    assert!(
        core::mem::offset_of!(Boot, trace_records) == 168,
        "Boot: raise ABI_VERSION"
    );
};

impl Boot {
    /// The bytes of the page's beginning, as the guest will see them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Boot` is `repr(C)` of integers without padding (its size is the
        // sum of its fields', asserted above), so every byte is initialized.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// How the guest should sleep; [`Mode::Out`] for a number that this version does not know.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        Mode::from_code(self.wake_mode)
    }

    /// The boot page of the guest that this code runs in.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest.
    #[must_use]
    pub unsafe fn get() -> &'static Self {
        // SAFETY: the host maps an initialized `Boot` here, read-only, for ever.
        unsafe { &*(crate::layout::BOOT as *const Self) }
    }
}

/// The clock page at [`crate::layout::CLOCK`]: one moment, in three clocks, and how to
/// get from there to now.
///
/// A sequence lock: `sequence` is odd while the host writes. The monotonic clock
/// starts near zero with the sandbox, so that it does not tell how long the host
/// has been up.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Clock {
    /// Odd while the other fields change.
    pub sequence: AtomicU32,
    /// Number of bits by which `tsc difference * multiplier` is shifted right to give nanoseconds.
    pub shift: AtomicU32,
    /// Time-stamp counter at the moment.
    pub tsc: AtomicU64,
    /// Monotonic time at the moment, nanoseconds since the sandbox was made.
    pub monotonic_ns: AtomicU64,
    /// Wall-clock time at the moment, nanoseconds since 1970-01-01T00:00:00Z.
    pub wall_ns: AtomicU64,
    /// See `shift`.
    pub multiplier: AtomicU64,
}

const _: () = assert!(size_of::<Clock>() == 64, "Clock: raise ABI_VERSION");

/// A consistent copy of a [`Clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// See [`Clock::shift`].
    pub shift: u32,
    /// See [`Clock::tsc`].
    pub tsc: u64,
    /// See [`Clock::monotonic_ns`].
    pub monotonic_ns: u64,
    /// See [`Clock::wall_ns`].
    pub wall_ns: u64,
    /// See [`Clock::multiplier`].
    pub multiplier: u64,
}

impl Moment {
    /// Nanoseconds from the moment until the counter shows `tsc`, zero if that is earlier.
    #[inline]
    #[must_use]
    pub const fn elapsed_ns(&self, tsc: u64) -> u64 {
        // Wrapping, then as a signed number: two cores' counters may differ a little.
        let ticks = tsc.wrapping_sub(self.tsc) as i64;
        if ticks <= 0 {
            return 0;
        }
        ((ticks as u128 * self.multiplier as u128) >> (self.shift & 63)) as u64
    }
}

impl Clock {
    /// A copy that the host did not change meanwhile.
    #[inline]
    #[must_use]
    pub fn read(&self) -> Moment {
        loop {
            // Acquire, with the Release store that ends `write`: the fields of that
            // write are visible.
            let before = self.sequence.load(Ordering::Acquire);
            let moment = Moment {
                shift: self.shift.load(Ordering::Relaxed),
                tsc: self.tsc.load(Ordering::Relaxed),
                monotonic_ns: self.monotonic_ns.load(Ordering::Relaxed),
                wall_ns: self.wall_ns.load(Ordering::Relaxed),
                multiplier: self.multiplier.load(Ordering::Relaxed),
            };
            // Keeps the loads above from sinking below the second look; pairs with
            // the Release fence in `write`.
            core::sync::atomic::fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return moment;
            }
            core::hint::spin_loop();
        }
    }

    /// Replaces the moment. There is one writer, the host.
    pub fn write(&self, moment: &Moment) {
        let sequence = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(sequence, Ordering::Relaxed);
        // Keeps the stores below from rising above the odd number; pairs with the
        // Acquire fence in `read`.
        core::sync::atomic::fence(Ordering::Release);
        self.shift.store(moment.shift, Ordering::Relaxed);
        self.tsc.store(moment.tsc, Ordering::Relaxed);
        self.monotonic_ns
            .store(moment.monotonic_ns, Ordering::Relaxed);
        self.wall_ns.store(moment.wall_ns, Ordering::Relaxed);
        self.multiplier.store(moment.multiplier, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// The clock page of the guest that this code runs in.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest.
    #[must_use]
    pub unsafe fn get() -> &'static Self {
        // SAFETY: the host maps a `Clock` here for ever; it is made of atomics, and
        // the mapping is read-only, which `read` does not mind.
        unsafe { &*(crate::layout::CLOCK as *const Self) }
    }
}

/// A [`Range`] that changes under its reader.
#[derive(Debug, Default)]
#[repr(C)]
pub struct AtomicRange {
    /// See [`Range::start`].
    pub start: AtomicU64,
    /// See [`Range::len`].
    pub len: AtomicU64,
}

impl AtomicRange {
    fn load(&self) -> Range {
        Range {
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
        }
    }

    fn store(&self, range: Range) {
        self.start.store(range.start, Ordering::Relaxed);
        self.len.store(range.len, Ordering::Relaxed);
    }
}

/// The instance page at [`crate::layout::INSTANCE`]: what sets this sandbox apart from another that
/// was made of the same template. Read-only to the guest.
///
/// The host writes it before the first entry, and writes it anew when it restores a sandbox from a
/// template, with all that lies behind it. It does so only while the guest sleeps (`out WAIT`, or
/// `hlt`), never while it runs or is merely interrupted: between two sleeps nothing here changes, so
/// no lock is needed. The fields are atomics because the compiler must load them again after a sleep.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Instance {
    /// 128 random bits, never the same twice: whoever finds them changed was restored. Neither word
    /// is zero. One word is enough to compare: two are the same once in 2^64.
    pub generation: [AtomicU64; 2],
    /// Random bits of this sandbox's own, to seed hash maps and generators.
    pub seed: [AtomicU64; 4],
    /// The arguments: UTF-8 strings, each ended by a NUL.
    pub args: AtomicRange,
    /// The environment: `KEY=value` strings, each ended by a NUL.
    pub env: AtomicRange,
    /// Slots of the trace ring at [`crate::layout::TRACE`], a power of two; zero if nobody watches now.
    pub trace_records: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 5],
}

const _: () = {
    assert!(
        size_of::<Instance>() == 128 && align_of::<Instance>() == 64,
        "Instance: raise ABI_VERSION"
    );
    assert!(
        core::mem::offset_of!(Instance, seed) == 16
            && core::mem::offset_of!(Instance, args) == 48
            && core::mem::offset_of!(Instance, env) == 64
            && core::mem::offset_of!(Instance, trace_records) == 80,
        "Instance: raise ABI_VERSION"
    );
};

/// A copy of an [`Instance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// See [`Instance::generation`].
    pub generation: [u64; 2],
    /// See [`Instance::seed`].
    pub seed: [u64; 4],
    /// See [`Instance::args`].
    pub args: Range,
    /// See [`Instance::env`].
    pub env: Range,
    /// See [`Instance::trace_records`].
    pub trace_records: u32,
}

impl Instance {
    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Identity {
        Identity {
            generation: self.generation(),
            seed: self
                .seed
                .each_ref()
                .map(|word| word.load(Ordering::Relaxed)),
            args: self.args.load(),
            env: self.env.load(),
            trace_records: self.trace_records(),
        }
    }

    /// How many slots the trace ring has; zero for a number that cannot be, too.
    #[must_use]
    pub fn trace_records(&self) -> u32 {
        u32::try_from(self.trace_records.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The generation alone.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> [u64; 2] {
        self.generation
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed))
    }

    /// The first word of the generation, which is enough to see whether it changed: one load.
    #[inline]
    #[must_use]
    pub fn mark(&self) -> u64 {
        let [mark, _] = &self.generation;
        mark.load(Ordering::Relaxed)
    }

    /// Makes it another. There is one writer, the host, and meanwhile the guest sleeps.
    pub fn write(&self, identity: &Identity) {
        let words = self.generation.iter().chain(&self.seed);
        let values = identity.generation.iter().chain(&identity.seed);
        for (word, value) in words.zip(values) {
            word.store(*value, Ordering::Relaxed);
        }
        self.args.store(identity.args);
        self.env.store(identity.env);
        let records = identity.trace_records.into();
        self.trace_records.store(records, Ordering::Relaxed);
    }

    /// The instance page of the guest that this code runs in.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest.
    #[must_use]
    pub unsafe fn get() -> &'static Self {
        // SAFETY: the host maps an `Instance` here for ever; it is made of atomics, and the
        // mapping is read-only, which loads do not mind.
        unsafe { &*(crate::layout::INSTANCE as *const Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_returns_what_was_written() {
        let instance = Instance::default();
        let identity = Identity {
            generation: [1, 2],
            seed: [3, 4, 5, 6],
            args: Range { start: 7, len: 8 },
            env: Range { start: 9, len: 10 },
            trace_records: 64,
        };
        instance.write(&identity);
        assert_eq!(instance.read(), identity);
        assert_eq!(instance.generation(), [1, 2]);
        assert_eq!(instance.mark(), 1);
    }

    #[test]
    fn a_moment_counts_forward_and_never_back() {
        let moment = Moment {
            shift: 32,
            tsc: 1_000,
            multiplier: 1 << 31,
            ..Moment::default()
        };
        assert_eq!(moment.elapsed_ns(3_000), 1_000);
        assert_eq!(moment.elapsed_ns(999), 0);
        // A month at 5 GHz does not overflow.
        assert_eq!(
            moment.elapsed_ns(1_000 + 5_000_000_000 * 2_592_000),
            5_000_000_000 * 1_296_000
        );
    }

    #[test]
    fn a_clock_returns_what_was_written() {
        let clock = Clock::default();
        let moment = Moment {
            shift: 1,
            tsc: 2,
            monotonic_ns: 3,
            wall_ns: 4,
            multiplier: 5,
        };
        clock.write(&moment);
        assert_eq!(clock.read(), moment);
        assert_eq!(clock.sequence.load(Ordering::Relaxed), 2);
    }
}
