//! A single-producer, single-consumer ring in memory that two parties share and
//! neither trusts.
//!
//! As in io_uring, indices are free-running counts modulo 2³²; the slot of an
//! index is the index modulo the ring's size. The producer owns the tail, the
//! consumer the head. Each side keeps its own index in private memory, writes it to
//! the shared word for the other to read, and never reads it back.
//!
//! What the other side says is checked each time: tail − head must lie between zero
//! and the size. A side that breaks this gets [`Corrupt`] as its epitaph.
//!
//! # Ordering
//!
//! [`Producer::publish`] stores the tail with Release; [`Consumer::pop`] loads it
//! with Acquire: the entry's words are visible. [`Consumer::release`] stores the head
//! with Release; [`Producer::push`] loads it with Acquire: the consumer's reads of
//! a slot are over before the producer writes it again. Whether the other side needs
//! to be *woken* is a different question, and needs a full fence: [`crate::wake`].

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::entry::{Completion, Entry, Submission};
use crate::memory::{Control, Slots, Word};
use crate::trace::Record;

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// From the guest to the host: what is asked for.
    Submission,
    /// From the host to the guest: what became of it.
    Completion,
    /// From the guest to the host: what the guest tells of itself.
    Trace,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submission => "submission ring",
            Self::Completion => "completion ring",
            Self::Trace => "trace ring",
        })
    }
}

/// The two words that belong to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indices {
    /// Which ring, for messages.
    pub ring: Ring,
    /// Written by the producer.
    pub tail: Word,
    /// Written by the consumer.
    pub head: Word,
}

/// The submission ring's words: the guest produces, the host consumes.
pub const SUBMISSION: Indices = Indices {
    ring: Ring::Submission,
    tail: Word::SubmissionTail,
    head: Word::SubmissionHead,
};

/// The completion ring's words: the host produces, the guest consumes.
pub const COMPLETION: Indices = Indices {
    ring: Ring::Completion,
    tail: Word::CompletionTail,
    head: Word::CompletionHead,
};

/// The trace ring's words: the guest produces, the host consumes ([`crate::trace`]).
pub const TRACE: Indices = Indices {
    ring: Ring::Trace,
    tail: Word::TraceTail,
    head: Word::TraceHead,
};

/// The producer's end of the submission ring, for a guest.
pub type SubmissionProducer<C, S> = Producer<C, S, Submission, { Submission::WORDS }>;
/// The consumer's end of the submission ring, for a host.
pub type SubmissionConsumer<C, S> = Consumer<C, S, Submission, { Submission::WORDS }>;
/// The producer's end of the completion ring, for a host.
pub type CompletionProducer<C, S> = Producer<C, S, Completion, { Completion::WORDS }>;
/// The consumer's end of the completion ring, for a guest.
pub type CompletionConsumer<C, S> = Consumer<C, S, Completion, { Completion::WORDS }>;

/// The producer's end of the trace ring, for a guest.
pub type TraceProducer<C, S> = Producer<C, S, Record, { Record::WORDS }>;
/// The consumer's end of the trace ring, for a host.
pub type TraceConsumer<C, S> = Consumer<C, S, Record, { Record::WORDS }>;

/// The other side's index cannot be: it is behind, or further ahead than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Which ring.
    pub ring: Ring,
    /// The tail as this side knows or was told it.
    pub tail: u32,
    /// The head as this side knows or was told it.
    pub head: u32,
    /// Entries of the ring.
    pub size: u32,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ring,
            tail,
            head,
            size,
        } = self;
        write!(
            f,
            "{ring}: tail {tail} and head {head} cannot be, in a ring of {size} entries"
        )
    }
}

impl core::error::Error for Corrupt {}

/// The end of a ring that entries are put into.
#[derive(Debug)]
pub struct Producer<C, S, T, const WORDS: usize> {
    control: C,
    slots: S,
    indices: Indices,
    /// Index of the next entry. Private: never read back from shared memory.
    tail: u32,
    /// What has been published of it.
    published: u32,
    /// The consumer's head when last looked at, already validated.
    head: u32,
    entries: PhantomData<fn(T)>,
}

impl<C: Control, S: Slots<WORDS>, T: Entry<WORDS>, const WORDS: usize> Producer<C, S, T, WORDS> {
    /// The producing end of an empty ring whose words are zero.
    pub fn new(control: C, slots: S, indices: Indices) -> Self {
        Self::starting_at(control, slots, indices, 0)
    }

    /// The producing end of an empty ring whose words both hold `index`: one that goes
    /// on where it stood, or a test that wants to be near the wrap-around.
    pub fn starting_at(control: C, slots: S, indices: Indices, index: u32) -> Self {
        debug_assert!(slots.len().is_power_of_two());
        Self {
            control,
            slots,
            indices,
            tail: index,
            published: index,
            head: index,
            entries: PhantomData,
        }
    }

    /// Entries that can be pushed before the ring is full. Looks at the consumer's
    /// head only if there are none by what was known.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer's head cannot be.
    #[inline]
    pub fn free(&mut self) -> Result<u32, Corrupt> {
        let size = self.slots.len();
        let used = self.tail.wrapping_sub(self.head);
        if used < size {
            return Ok(size - used);
        }
        self.look()?;
        Ok(size - self.tail.wrapping_sub(self.head))
    }

    /// Reads the consumer's head and returns how many published entries it has yet to consume.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the head moved backwards or past what was published.
    #[inline]
    pub fn look(&mut self) -> Result<u32, Corrupt> {
        // Acquire, with the Release of `Consumer::release`: its reads are over.
        let head = self.control.load(self.indices.head, Ordering::Acquire);
        // Both differences count from the head known before, which was valid.
        let unread = self.published.wrapping_sub(self.head);
        if head.wrapping_sub(self.head) > unread {
            return Err(Corrupt {
                ring: self.indices.ring,
                tail: self.published,
                head,
                size: self.slots.len(),
            });
        }
        self.head = head;
        Ok(self.published.wrapping_sub(head))
    }

    /// Writes an entry, without showing it to the consumer yet. Returns whether there was room.
    ///
    /// # Errors
    ///
    /// As [`Self::free`].
    #[inline]
    pub fn push(&mut self, entry: T) -> Result<bool, Corrupt> {
        if self.free()? == 0 {
            return Ok(false);
        }
        self.slots
            .write(self.tail & (self.slots.len() - 1), entry.to_words());
        self.tail = self.tail.wrapping_add(1);
        Ok(true)
    }

    /// Shows the consumer everything that was pushed. Returns whether there was anything new.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        // Release, for the Acquire of `Consumer::pop`: the entries are written.
        self.control
            .store(self.indices.tail, self.tail, Ordering::Release);
        true
    }

    /// Slots of the ring.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.slots.len()
    }

    /// Free-running count of entries published.
    #[inline]
    pub fn published(&self) -> u32 {
        self.published
    }

    /// Entries pushed and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        self.tail.wrapping_sub(self.published)
    }
}

/// The end of a ring that entries are taken from.
#[derive(Debug)]
pub struct Consumer<C, S, T, const WORDS: usize> {
    control: C,
    slots: S,
    indices: Indices,
    /// Index of the next entry to take. Private: never read back from shared memory.
    head: u32,
    /// What the producer has been told of it.
    released: u32,
    /// The producer's tail when last looked at, already validated.
    tail: u32,
    entries: PhantomData<fn() -> T>,
}

impl<C: Control, S: Slots<WORDS>, T: Entry<WORDS>, const WORDS: usize> Consumer<C, S, T, WORDS> {
    /// The consuming end of an empty ring whose words are zero.
    pub fn new(control: C, slots: S, indices: Indices) -> Self {
        Self::starting_at(control, slots, indices, 0)
    }

    /// The control page.
    pub fn control(&self) -> &C {
        &self.control
    }

    /// The consuming end of an empty ring whose words both hold `index`; see
    /// [`Producer::starting_at`].
    pub fn starting_at(control: C, slots: S, indices: Indices, index: u32) -> Self {
        debug_assert!(slots.len().is_power_of_two());
        Self {
            control,
            slots,
            indices,
            head: index,
            released: index,
            tail: index,
            entries: PhantomData,
        }
    }

    /// Takes the oldest entry out, as a copy, or `None` if the ring is empty.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the producer's tail cannot be.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<T>, Corrupt> {
        if self.head == self.tail && self.look()? == 0 {
            return Ok(None);
        }
        let entry = T::from_words(self.slots.read(self.head & (self.slots.len() - 1)));
        self.head = self.head.wrapping_add(1);
        Ok(Some(entry))
    }

    /// Reads the producer's tail and returns how many entries wait to be taken.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the tail moved backwards or further ahead than the producer had room for.
    #[inline]
    pub fn look(&mut self) -> Result<u32, Corrupt> {
        // Acquire, with the Release of `Producer::publish`: the entries are written.
        let tail = self.control.load(self.indices.tail, Ordering::Acquire);
        let size = self.slots.len();
        let known = self.tail.wrapping_sub(self.released);
        // Counted from what was released: the producer may fill up to the size from
        // there, and may not take back what it has shown.
        let claimed = tail.wrapping_sub(self.released);
        if claimed > size || claimed < known {
            return Err(Corrupt {
                ring: self.indices.ring,
                tail,
                head: self.head,
                size,
            });
        }
        self.tail = tail;
        Ok(tail.wrapping_sub(self.head))
    }

    /// Whether the producer's word differs from the entries taken: one plain load.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.control.load(self.indices.tail, Ordering::Relaxed) != self.head
    }

    /// Lets the producer reuse the slots of all entries taken. Returns whether there were any.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        // Release, for the Acquire of `Producer::look`: this side's reads are over.
        self.control
            .store(self.indices.head, self.head, Ordering::Release);
        true
    }

    /// Free-running count of entries taken.
    #[inline]
    pub fn taken(&self) -> u32 {
        self.head
    }
}
