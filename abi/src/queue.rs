//! The host's ends of the two rings of a guest, and the rule that binds them.
//!
//! An operation is admitted only if a slot of the completion ring is left for its end:
//! operations in flight, plus completions that the guest has not consumed, never exceed the
//! slots of that ring. So the completion ring cannot overflow, the host never waits for a guest to
//! make room, and its table of operations cannot grow past a size that the host has chosen.
//!
//! A cancellation has no completion of its own and needs no slot.
//!
//! # What is relied upon
//!
//! Nothing that the guest writes. Its two words and its entries are read once each and may differ
//! at every read. `tests/proofs` runs this code over a memory in which every read may give any
//! value.

use core::fmt;

use crate::entry::{Completion, Submission};
use crate::memory::{Control, Slots};
use crate::op::Opcode;
use crate::ring::{self, CompletionProducer, Corrupt, SubmissionConsumer};

/// Most completions of a ring that are deferred at a time, and in a small one half of its slots.
pub const MOST_DEFERRED: u32 = 32;

/// How a guest broke its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// An index cannot be.
    Index(Corrupt),
    /// It submitted an operation for whose completion there is no slot.
    TooMany {
        /// Slots of the completion ring.
        capacity: u32,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(corrupt) => corrupt.fmt(f),
            Self::TooMany { capacity } => write!(
                f,
                "it has more operations in flight than the {capacity} that it was granted"
            ),
        }
    }
}

impl core::error::Error for Broken {}

impl From<Corrupt> for Broken {
    fn from(corrupt: Corrupt) -> Self {
        Self::Index(corrupt)
    }
}

/// The host's ends of both rings. `C` is the control page, `S` and `R` are the slots of the
/// submission and of the completion ring.
#[derive(Debug)]
pub struct Queue<C, S, R> {
    submissions: SubmissionConsumer<C, S>,
    completions: CompletionProducer<C, R>,
    capacity: u32,
    /// Slots that were free when last looked, less those given away since. The guest can only
    /// have freed more.
    room: u32,
    /// Submissions that may yet be taken in this turn.
    left: u32,
    /// Completions that nobody waits for, which are written and may be published with others.
    deferred: u32,
}

impl<C, S, R> Queue<C, S, R>
where
    C: Control + Clone,
    S: Slots<{ Submission::WORDS }>,
    R: Slots<{ Completion::WORDS }>,
{
    /// The host's ends of two empty rings whose words are zero.
    pub fn new(control: C, submissions: S, completions: R) -> Self {
        Self::starting_at(control, submissions, completions, 0)
    }

    /// The host's ends of two empty rings whose words all hold `index`; see
    /// [`ring::Producer::starting_at`].
    pub fn starting_at(control: C, submissions: S, completions: R, index: u32) -> Self {
        Self::resuming(control, submissions, completions, index, index)
    }

    /// The host's ends of two empty rings that go on where others stood.
    pub fn resuming(
        control: C,
        submissions: S,
        completions: R,
        taken: u32,
        published: u32,
    ) -> Self {
        let capacity = completions.len();
        let control_of_completions = control.clone();
        Self {
            submissions: SubmissionConsumer::starting_at(
                control,
                submissions,
                ring::SUBMISSION,
                taken,
            ),
            completions: CompletionProducer::starting_at(
                control_of_completions,
                completions,
                ring::COMPLETION,
                published,
            ),
            capacity,
            room: 0,
            left: 0,
            deferred: 0,
        }
    }

    /// The control page.
    pub fn control(&self) -> &C {
        self.submissions.control()
    }

    /// Begins a turn, in which submissions are taken with [`Self::take`], if there are any.
    ///
    /// # Errors
    ///
    /// The guest's completion head cannot be.
    #[inline]
    pub fn begin(&mut self, in_flight: u32) -> Result<(), Broken> {
        self.left = 0;
        if self.submissions.has_news() {
            // At most a ring's length a turn: a guest that submits as fast as the host takes does
            // not keep it here.
            self.left = self.capacity;
            self.look_for_room(in_flight)?;
        }
        Ok(())
    }

    /// Takes the next submission of this turn, as a copy, or `None` if the turn has no more. All
    /// but a cancellation have a slot for their completion then.
    ///
    /// # Errors
    ///
    /// The guest's submission tail or completion head cannot be, or there is no slot.
    #[inline]
    pub fn take(&mut self, in_flight: u32) -> Result<Option<Submission>, Broken> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(submission) = self.submissions.pop()? else {
            self.left = 0;
            return Ok(None);
        };
        self.left -= 1;
        if submission.opcode == Opcode::Cancel as u16 {
            return Ok(Some(submission));
        }
        if self.room == 0 {
            // The guest may have consumed completions since.
            self.look_for_room(in_flight)?;
        }
        if self.room == 0 {
            return Err(Broken::TooMany {
                capacity: self.capacity,
            });
        }
        self.room -= 1;
        Ok(Some(submission))
    }

    /// Sees that there is a slot for the completion of each of so many operations that were taken before
    /// these ends were made.
    ///
    /// # Errors
    ///
    /// The guest's completion head cannot be, or there are not as many slots.
    pub fn keep_slots(&mut self, in_flight: u32) -> Result<(), Broken> {
        self.look_for_room(0)?;
        if in_flight > self.room {
            return Err(Broken::TooMany {
                capacity: self.capacity,
            });
        }
        self.room -= in_flight;
        Ok(())
    }

    /// Counts the slots that are neither taken by a completion nor promised to an operation in
    /// flight.
    fn look_for_room(&mut self, in_flight: u32) -> Result<(), Broken> {
        let unread = self.completions.look()? + self.completions.unpublished();
        self.room = self
            .capacity
            .saturating_sub(unread.saturating_add(in_flight));
        Ok(())
    }

    /// Writes the completion of an operation that was taken; the guest sees it after
    /// [`Self::finish`].
    ///
    /// # Errors
    ///
    /// The guest's completion head cannot be.
    #[inline]
    pub fn complete(&mut self, completion: Completion) -> Result<(), Broken> {
        let pushed = self.completions.push(completion)?;
        debug_assert!(pushed, "a slot was kept for every operation");
        Ok(())
    }

    /// As [`Self::complete`], of an operation that was [deferrable](Submission::deferrable).
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn defer(&mut self, completion: Completion) -> Result<(), Broken> {
        self.complete(completion)?;
        self.deferred += 1;
        Ok(())
    }

    /// Ends a turn: the guest may reuse the slots of what was taken, and sees what was completed. What is deferred it sees with
    /// the next completion that is not, for which it waits if others are `in_flight`.
    #[inline]
    pub fn finish(&mut self, in_flight: u32) {
        self.submissions.release();
        let most = MOST_DEFERRED.min(self.capacity / 2);
        if in_flight == 0 || self.deferred >= most || self.unpublished() > self.deferred {
            self.publish();
        }
    }

    /// Shows the guest all that was completed.
    #[inline]
    pub fn publish(&mut self) {
        self.completions.publish();
        self.deferred = 0;
    }

    /// Whether the guest has submitted something that was not taken yet. A hint, one load.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.submissions.has_news()
    }

    /// Slots of the completion ring: most operations in flight.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Free-running count of submissions taken.
    #[inline]
    pub fn taken(&self) -> u32 {
        self.submissions.taken()
    }

    /// Free-running count of completions published.
    #[inline]
    pub fn published(&self) -> u32 {
        self.completions.published()
    }

    /// Completions written and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        self.completions.unpublished()
    }
}
