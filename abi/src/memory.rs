//! The control page's words, and how the two sides reach shared memory.
//!
//! The rings and the wake protocol are generic over [`Control`] and [`Slots`]: the
//! same code runs in the guest and in the host (over [`MappedControl`]), under the loom
//! model (over loom's atomics) and under fuzzing (over plain arrays).

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::layout::PAGE_SIZE;

/// A 32-bit word of the control page. Its number is its offset in bytes.
///
/// Words are grouped by writer, a cache line (or more) each, so that two cores that
/// look at each other's words do not fight over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Word {
    /// Guest: free-running count of submissions published.
    SubmissionTail = 0x00,
    /// Guest: free-running count of completions consumed.
    CompletionHead = 0x40,
    /// Guest: how it sleeps, a [`crate::wake::Sleep`].
    Sleep = 0x80,
    /// Guest: the completion tail that it had seen when it wrote `Sleep`.
    Seen = 0x84,
    /// Guest: exit code, valid when [`crate::port::EXIT`] rings.
    ExitCode = 0x88,
    /// Guest: the lower half of the address where its tasks are found ([`crate::task`]), or zero.
    Tasks = 0x8C,
    /// Guest: the upper half.
    TasksHigh = 0x90,
    /// Guest: where an interrupt goes on in ring 3 ([`crate::upcall`]), or zero: it is to return to what
    /// it interrupted. The host writes zero when it injects one that goes on there.
    Upcall = 0x94,
    /// Guest: the lower half of the address where the processor's runtime keeps itself, or what else the
    /// guest likes.
    Local = 0x98,
    /// Guest: the upper half.
    LocalHigh = 0x9C,
    /// Guest: how much of `Posts` it had seen when it wrote `Sleep`.
    PostsSeen = 0xA0,
    /// Guest: the number of the processor that it means when it rings [`crate::port::START`] or
    /// [`crate::port::NUDGE`].
    Target = 0xA4,
    /// Guest: the lower half of the address where more of its tasks are found, a [`crate::task::List`], or zero.
    MoreTasks = 0xA8,
    /// Guest: the upper half.
    MoreTasksHigh = 0xAC,
    /// Guest: the lower half of the address where it is told of its heap's largest blocks ([`crate::heap`]), or zero.
    Large = 0xB0,
    /// Guest: the upper half.
    LargeHigh = 0xB4,
    /// Guest: where a fault goes on ([`crate::window`]), or zero: it ends the guest. The host writes zero when one goes on there.
    FaultEntry = 0xB8,
    /// Guest, written by the ring-0 stub: interrupts taken, but for those that were upcalls.
    Interrupts = 0xC0,
    /// Guest, written by the ring-0 stub: eight bytes, what an upcall has interrupted.
    UpcallReturn = 0xC8,
    /// Guest: number of the first page of a window that it means when it rings [`crate::port::MAP`].
    WindowPage = 0xD0,
    /// Guest: number of the first page of its heap that is to appear there, or zero: nothing is.
    WindowFrom = 0xD4,
    /// Guest: how many pages.
    WindowCount = 0xD8,
    /// Host: free-running count of completions published.
    CompletionTail = 0x100,
    /// Host: free-running count of submissions consumed.
    SubmissionHead = 0x140,
    /// Host: not zero while the driver polls the submission ring, so that no doorbell is needed.
    DriverPolls = 0x180,
    /// Host, read by the ring-0 stub: eight bytes, where the upcall that is being injected goes on.
    UpcallTarget = 0x1C0,
    /// The upper half of those eight bytes, zero.
    UpcallTargetHigh = 0x1C4,
    /// Host: the lower half of the address of the instruction that has faulted last and goes on at `FaultEntry`.
    FaultAt = 0x1C8,
    /// The upper half.
    FaultAtHigh = 0x1CC,
    /// Host: the lower half of the address that it could not reach.
    FaultAddress = 0x1D0,
    /// The upper half.
    FaultAddressHigh = 0x1D4,
    /// Host: which exception it was, by its vector.
    FaultKind = 0x1D8,
    /// Host: what has become of the last [`crate::port::MAP`], a [`crate::window::Answer`].
    WindowAnswer = 0x1DC,
    /// Guest: free-running count of trace records published.
    TraceTail = 0x280,
    /// Guest: trace records lost because the ring was full, modulo 2³².
    TraceLost = 0x284,
    /// Host: free-running count of trace records consumed.
    TraceHead = 0x2C0,
    /// Any processor of the guest, which adds to it: free-running count of what others have left for this one.
    Posts = 0x300,
    /// Any processor of the guest: the lower half of the address at which this one begins, valid when
    /// [`crate::port::START`] rings.
    StartEntry = 0x340,
    /// Any processor of the guest: the upper half.
    StartEntryHigh = 0x344,
    /// Host, once, before the guest begins: the number of the processor, from 0.
    Processor = 0x380,
}

impl Word {
    /// All words, in the order of their offsets.
    pub const ALL: [Self; 40] = [
        Self::SubmissionTail,
        Self::CompletionHead,
        Self::Sleep,
        Self::Seen,
        Self::ExitCode,
        Self::Tasks,
        Self::TasksHigh,
        Self::Upcall,
        Self::Local,
        Self::LocalHigh,
        Self::PostsSeen,
        Self::Target,
        Self::MoreTasks,
        Self::MoreTasksHigh,
        Self::Large,
        Self::LargeHigh,
        Self::FaultEntry,
        Self::Interrupts,
        Self::UpcallReturn,
        Self::WindowPage,
        Self::WindowFrom,
        Self::WindowCount,
        Self::CompletionTail,
        Self::SubmissionHead,
        Self::DriverPolls,
        Self::UpcallTarget,
        Self::UpcallTargetHigh,
        Self::FaultAt,
        Self::FaultAtHigh,
        Self::FaultAddress,
        Self::FaultAddressHigh,
        Self::FaultKind,
        Self::WindowAnswer,
        Self::TraceTail,
        Self::TraceLost,
        Self::TraceHead,
        Self::Posts,
        Self::StartEntry,
        Self::StartEntryHigh,
        Self::Processor,
    ];

    /// Offset in the control page, in bytes.
    #[must_use]
    pub const fn offset(self) -> usize {
        self as usize
    }
}

/// Declares [`Counter`] and [`GuestCounts`], from one row for each counter: its place in the control
/// page, the counter, and the field.
macro_rules! counters {
    ($($(#[$doc:meta])* $offset:literal $name:ident $field:ident,)*) => {
        /// A 64-bit counter in the control page that the guest keeps for whoever asks how it did.
        ///
        /// The host only prints them: a guest that lies about them lies to its own user.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $name = $offset,)*
        }

        impl Counter {
            /// All counters, in the order of their offsets.
            pub const ALL: [Self; [$($offset),*].len()] = [$(Self::$name),*];

            /// Offset in the control page, in bytes.
            #[must_use]
            pub const fn offset(self) -> usize {
                self as usize
            }
        }

        /// What a guest says of itself: the value of each [`Counter`], since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct GuestCounts {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl FromIterator<(Counter, u64)> for GuestCounts {
            fn from_iter<I: IntoIterator<Item = (Counter, u64)>>(values: I) -> Self {
                let mut counts = Self::default();
                for (counter, value) in values {
                    match counter {
                        $(Counter::$name => counts.$field = value,)*
                    }
                }
                counts
            }
        }
    };
}

counters! {
    /// Turns of the executor: one poll of everything that was ready.
    0x200 Turns turns,
    /// Calls of `Future::poll` on a task.
    0x208 Polls polls,
    /// Tasks spawned.
    0x210 Spawned spawned,
    /// Tasks that ended.
    0x218 Completed completed,
    /// Times that a waker put a task into the run queue.
    0x220 Wakes wakes,
    /// Operations submitted.
    0x228 Operations operations,
    /// Completions consumed.
    0x230 Completions completions,
    /// Operations cancelled because their future was dropped.
    0x238 Cancels cancels,
    /// Idle periods that ended while the guest watched the completion ring.
    0x240 WokenByMemory woken_by_memory,
    /// Idle periods that ended with the return of [`crate::port::WAIT`].
    0x248 WokenByOut woken_by_out,
    /// Idle periods that ended with an interrupt.
    0x250 WokenByInterrupt woken_by_interrupt,
    /// Upcalls: interrupts that have put urgent tasks before what they interrupted.
    0x258 Upcalls upcalls,
}

const _: () = assert!(
    Counter::Upcalls as u64 + 8 <= Word::TraceTail as u64
        && Word::Processor as u64 + 4 <= PAGE_SIZE,
    "the control page is one page, and nothing lies in it twice: see memory.rs"
);

/// The control page.
pub trait Control {
    /// Reads a word.
    fn load(&self, word: Word, order: Ordering) -> u32;
    /// Writes a word.
    fn store(&self, word: Word, value: u32, order: Ordering);
    /// Adds to a word that several write, and returns what it was. The sum wraps around.
    fn add(&self, word: Word, more: u32, order: Ordering) -> u32;
    /// A sequentially consistent fence, as in [`core::sync::atomic::fence`].
    fn full_fence(&self);

    /// Reads an address, whose halves are these words. It is not one read.
    fn load_address(&self, low: Word, high: Word, order: Ordering) -> u64 {
        let half = |word| u64::from(self.load(word, order));
        half(high) << 32 | half(low)
    }

    /// Writes an address, whose halves are these words. It is not one write.
    fn store_address(&self, low: Word, high: Word, address: u64, order: Ordering) {
        self.store(low, address as u32, order);
        self.store(high, (address >> 32) as u32, order);
    }
}

/// The slots of a ring, each `WORDS` 64-bit words.
pub trait Slots<const WORDS: usize> {
    /// Number of slots, a power of two.
    fn len(&self) -> u32;
    /// Reads a slot, each of its words once. `index` is below [`Self::len`].
    fn read(&self, index: u32) -> [u64; WORDS];
    /// Writes a slot. `index` is below [`Self::len`].
    fn write(&self, index: u32, words: [u64; WORDS]);
    /// Whether there is no slot at all; a ring never says yes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A control page somewhere in the address space of this process or guest.
#[derive(Clone, Copy, Debug)]
pub struct MappedControl {
    base: NonNull<u8>,
}

// SAFETY: the page is reached through atomics only, from whichever thread.
unsafe impl Send for MappedControl {}
// SAFETY: as above.
unsafe impl Sync for MappedControl {}

impl MappedControl {
    /// The control page at `base`.
    ///
    /// # Safety
    ///
    /// `base` is aligned to a page, and the page stays mapped readable and writable as
    /// long as the value or a copy of it is used. Other parties may write to it at
    /// any time; code of this process does so through atomics.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self { base }
    }

    #[inline]
    fn word(&self, word: Word) -> &AtomicU32 {
        // SAFETY: the offset is a multiple of four inside the page that the
        // constructor was promised; an atomic allows any concurrent change.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(word.offset()).cast()) }
    }

    /// The index of a counter.
    #[inline]
    #[must_use]
    pub fn counter(&self, counter: Counter) -> &AtomicU64 {
        // SAFETY: as in `word`, with a multiple of eight.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(counter.offset()).cast()) }
    }
}

impl Control for MappedControl {
    #[inline]
    fn load(&self, word: Word, order: Ordering) -> u32 {
        self.word(word).load(order)
    }

    #[inline]
    fn store(&self, word: Word, value: u32, order: Ordering) {
        self.word(word).store(value, order);
    }

    #[inline]
    fn add(&self, word: Word, more: u32, order: Ordering) -> u32 {
        self.word(word).fetch_add(more, order)
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The slots of a ring somewhere in the address space of this process or guest.
#[derive(Clone, Copy, Debug)]
pub struct MappedSlots<const WORDS: usize> {
    base: NonNull<u64>,
    len: u32,
    entries: PhantomData<[u64; WORDS]>,
}

// SAFETY: the slots are reached through atomics only, from whichever thread.
unsafe impl<const WORDS: usize> Send for MappedSlots<WORDS> {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Sync for MappedSlots<WORDS> {}

impl<const WORDS: usize> MappedSlots<WORDS> {
    /// `len` slots from `base` on.
    ///
    /// # Panics
    ///
    /// If `len` is not a power of two.
    ///
    /// # Safety
    ///
    /// `base` is aligned to 8, and `len * WORDS * 8` bytes from there stay mapped
    /// readable and writable as long as the value or a copy of it is used. Other
    /// parties may write to them at any time; code of this process does so through
    /// atomics.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u64>, len: u32) -> Self {
        assert!(len.is_power_of_two(), "a ring's size is a power of two");
        Self {
            base,
            len,
            entries: PhantomData,
        }
    }

    #[inline]
    fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        debug_assert!(word < WORDS);
        // The mask makes a wrong index a wrong slot, never a wild one.
        let index = (index & (self.len - 1)) as usize;
        // SAFETY: `index < len` and `word < WORDS`, so the word lies in the range that
        // the constructor was promised; an atomic allows any concurrent change.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index * WORDS + word)) }
    }
}

impl<const WORDS: usize> Slots<WORDS> for MappedSlots<WORDS> {
    #[inline]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    fn read(&self, index: u32) -> [u64; WORDS] {
        core::array::from_fn(|word| self.word(index, word).load(Ordering::Relaxed))
    }

    #[inline]
    fn write(&self, index: u32, words: [u64; WORDS]) {
        for (word, value) in words.into_iter().enumerate() {
            self.word(index, word).store(value, Ordering::Relaxed);
        }
    }
}
