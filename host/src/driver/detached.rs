//! The driver of a guest that may have no machine: what it says to the guest, and when it is silent.

use wakebox_abi::entry::{Completion, Submission};
use wakebox_abi::memory::{Control, Slots};
use wakebox_abi::queue::Queue;
use wakebox_abi::wake;

use super::Driver;
use super::backend::Backend;

impl<B, C, S, R> Driver<B, C, S, R>
where
    B: Backend,
    C: Control + Clone,
    S: Slots<{ Submission::WORDS }>,
    R: Slots<{ Completion::WORDS }>,
{
    /// From now on the guest has no machine and its memory lies nowhere, until it is
    /// [attached](Self::attach): turns do nothing. Returns whether that can be: not while something is to
    /// be done, or is published that the guest has not seen, nor while an operation reaches into the
    /// memory from elsewhere.
    pub(crate) fn detach(&mut self) -> bool {
        // What is deferred would be lost.
        self.publish_in_all();
        // Since the guest was seen to have nothing to do, a poller may have published something for it.
        self.detached = !self.has_submissions()
            && !self.has_ready()
            && self.closing.is_none()
            && self.remains.is_none()
            && self.broken.is_none()
            && self.inflight.may_all_be_dropped()
            && self.guest_sleeps_else_wake();
        self.detached
    }

    /// The guest has a machine again.
    pub(crate) fn attach(&mut self) {
        self.detached = false;
        // What a poller has said before may lie in memory yet; it says it again when it looks.
        for queue in self.queues() {
            let _ = wake::driver_may_sleep(queue.control(), queue.taken());
        }
    }

    /// Whether the guest has no machine and something is ready, for which it needs one.
    pub(crate) fn wants_machine(&self) -> bool {
        self.detached && self.has_ready()
    }

    /// As [`wake::driver_polls`].
    pub(crate) fn polls(&self) {
        if !self.detached {
            for queue in self.queues() {
                wake::driver_polls(queue.control());
            }
        }
    }

    /// As [`wake::driver_may_sleep`].
    pub(crate) fn may_sleep(&self) -> bool {
        if self.detached {
            return true;
        }
        let arm = |queue: &Queue<C, S, R>| wake::driver_may_sleep(queue.control(), queue.taken());
        let may_sleep = self.queues().all(arm);
        if !may_sleep && !self.others.is_empty() {
            // Those that were armed before one had news.
            self.polls();
        }
        may_sleep
    }

    /// As [`wake::host_must_wake`].
    pub(crate) fn must_wake(&self) -> bool {
        self.detached || wake::host_must_wake(self.queue.control())
    }
}
