//! The driver of a guest with several processors, each of which has rings of its own.
//!
//! All rings are served in each turn. An operation goes by one name here, whichever ring it came from: its
//! slot's number, and in the lower bits that of the ring ([`Names`](crate::names::Names)).

use std::sync::Arc;

use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{Control, Slots};
use wakebox_abi::op::Request;
use wakebox_abi::queue::Queue;

use super::backend::Backend;
use super::herd::Herd;
use super::{Driver, Violation};

/// Where a processor's rings stand: free-running counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stood {
    /// Of submissions taken.
    pub(crate) taken: u32,
    /// Of completions published.
    pub(crate) published: u32,
}

impl<B, C, S, R> Driver<B, C, S, R>
where
    B: Backend,
    C: Control + Clone,
    S: Slots<{ Submission::WORDS }>,
    R: Slots<{ Completion::WORDS }>,
{
    /// Has these told when something was completed for them: one for each ring.
    pub(crate) fn tell(&mut self, herd: Arc<Herd>) {
        self.herd = Some(herd);
    }

    /// Whether there are several.
    pub(crate) fn has_several(&self) -> bool {
        self.herd.is_some()
    }

    /// The rings of a processor.
    #[inline]
    pub(super) fn queue_of(&mut self, ring: u32) -> &mut Queue<C, S, R> {
        match ring.checked_sub(1) {
            None => &mut self.queue,
            Some(other) => &mut self.others[other as usize],
        }
    }

    /// What an operation is called here that a processor calls so; `None` if it cannot call one so.
    pub(crate) fn name_of(&self, processor: u32, token: Token) -> Option<Token> {
        let checked = self.inflight.check_slot(token);
        checked
            .ok()
            .map(|()| self.inflight.of_ring(processor, token))
    }

    /// All rings.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue<C, S, R>> {
        std::iter::once(&self.queue).chain(&self.others)
    }

    /// Where the rings of each processor stand.
    pub(crate) fn stood(&self) -> Vec<Stood> {
        let stood = |queue: &Queue<C, S, R>| Stood {
            taken: queue.taken(),
            published: queue.published(),
        };
        self.queues().map(stood).collect()
    }

    /// Completions published in all rings, a count that wraps around.
    #[inline]
    pub(super) fn published_in_all(&self) -> u32 {
        let others = self.others.iter().map(Queue::published);
        others.fold(self.queue.published(), u32::wrapping_add)
    }

    /// Completions that are put off.
    #[inline]
    pub(crate) fn deferred(&self) -> u32 {
        self.queues().map(Queue::unpublished).sum()
    }

    /// Free-running count of completions published for a processor.
    pub(crate) fn published_of(&self, ring: u32) -> u32 {
        let queue = match ring.checked_sub(1) {
            None => &self.queue,
            Some(other) => &self.others[other as usize],
        };
        queue.published()
    }

    /// Whether a processor has submitted something that was not taken yet. A hint.
    #[inline]
    pub(super) fn has_news_in_any(&self) -> bool {
        self.queue.has_news() || self.others.iter().any(Queue::has_news)
    }

    /// [`Queue::begin`] for all rings.
    pub(super) fn begin_in_all(&mut self) -> Result<(), Violation> {
        self.queue.begin(self.inflight.len_of(0))?;
        for (ring, queue) in (1..).zip(&mut self.others) {
            queue.begin(self.inflight.len_of(ring))?;
        }
        Ok(())
    }

    /// The next submission, and the ring that it was in; what one processor has submitted comes before what the
    /// next has.
    #[inline]
    pub(super) fn take_from_any(&mut self) -> Result<Option<(u32, Submission)>, Violation> {
        if let Some(submission) = self.queue.take(self.inflight.len_of(0))? {
            return Ok(Some((0, submission)));
        }
        for (ring, queue) in (1..).zip(&mut self.others) {
            if let Some(submission) = queue.take(self.inflight.len_of(ring))? {
                return Ok(Some((ring, submission)));
            }
        }
        Ok(None)
    }

    /// [`Queue::finish`] for all rings, and whoever has something in one of them is told.
    pub(super) fn finish_in_all(&mut self) {
        let inflight = &self.inflight;
        let queues = std::iter::once(&mut self.queue).chain(&mut self.others);
        for (ring, queue) in (0..).zip(queues) {
            let before = queue.published();
            queue.finish(inflight.len_of(ring));
            if let Some(herd) = &self.herd
                && queue.published() != before
            {
                herd.completed(ring);
            }
        }
    }

    /// Publishes what is deferred.
    pub(super) fn publish_in_all(&mut self) {
        let queues = std::iter::once(&mut self.queue).chain(&mut self.others);
        for (ring, queue) in (0..).zip(queues) {
            let has_some = queue.unpublished() > 0;
            queue.publish();
            if let Some(herd) = &self.herd
                && has_some
            {
                herd.completed(ring);
            }
        }
    }

    /// What stands in the way of a processor's sleep, after a turn. With several, it is said to sleep if nothing
    /// does.
    pub(super) fn look(&self, processor: u32) -> (bool, bool) {
        let published = self.published_of(processor);
        match &self.herd {
            None => {
                let seen = wakebox_abi::wake::guest_has_seen(self.queue.control());
                (published != seen, self.in_flight() == 0)
            }
            Some(herd) => {
                let has_news = herd.sleeps_unless_it_has_news(processor, published);
                let matters = self.in_flight() == 0 || herd.is_awaited();
                let all_sleep =
                    !has_news && matters && herd.all_sleep(|other| self.published_of(other));
                if all_sleep {
                    herd.slept_last(processor);
                }
                (has_news, all_sleep && self.in_flight() == 0)
            }
        }
    }

    /// Whether the guest sleeps, with all of its processors, and has seen all that was completed for it. If one
    /// of several does not, the task of the first is woken when all do.
    pub(crate) fn guest_sleeps_else_wake(&self) -> bool {
        match &self.herd {
            None => self.published() == wakebox_abi::wake::guest_has_seen(self.queue.control()),
            Some(herd) => herd.all_sleep_else_wake_first(|other| self.published_of(other)),
        }
    }

    /// Puts aside slots of each ring for what was in flight where it stood, called by names that operations have here.
    pub(super) fn keep_slots(&mut self, in_flight: &[(Token, Request)]) -> Result<(), Violation> {
        let mut counts = vec![0; 1 + self.others.len()];
        for (token, _) in in_flight {
            let (ring, in_ring) = self.inflight.in_ring(*token);
            self.inflight.check_slot(in_ring)?;
            let slots = self.queue.capacity();
            let count = counts.get_mut(ring as usize);
            let slot = token.slot;
            *count.ok_or(Violation::NoSuchSlot { slot, slots })? += 1;
        }
        for (ring, count) in (0..).zip(counts) {
            self.queue_of(ring).keep_slots(count)?;
        }
        Ok(())
    }
}
