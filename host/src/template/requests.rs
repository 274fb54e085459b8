//! Whoever wants a template of a sandbox that runs, and the sandbox.
//!
//! A request waits in a queue until the task that runs the guest finds it at a quiet point. That task
//! registers its waker before it looks; whoever asks pushes before it wakes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, oneshot};

use super::{Open, SnapshotError, Template, When};
use crate::outside;

/// What somebody waits for.
pub(crate) type Answer = Result<Template, SnapshotError>;

/// Somebody who wants a template.
#[derive(Debug)]
pub(crate) struct Request {
    when: When,
    pub(crate) open: Open,
    answer: oneshot::Sender<Answer>,
}

impl Request {
    /// Whether it can be answered now that the guest asks for a template, or does not.
    fn is_due(&self, guest_asks: bool) -> bool {
        guest_asks || self.when == When::Parked
    }

    /// Tells who has asked.
    pub(crate) fn answer(self, answer: Answer) {
        // Perhaps nobody wants it any more.
        let _ = self.answer.send(answer);
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Request>,
    has_ended: bool,
}

/// The requests for templates of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    queue: Mutex<Queue>,
    /// The task that runs the guest.
    runner: AtomicWaker,
    /// The guest, which has asked and waits.
    guest: Notify,
}

impl Requests {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a template, and gives where the answer comes.
    pub(crate) fn push(&self, when: When, open: Open) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let request = Request { when, open, answer };
        {
            let mut queue = self.queue();
            if queue.has_ended {
                drop(queue);
                request.answer(Err(SnapshotError::Ended));
                return answered;
            }
            queue.waiting.push_back(request);
        }
        self.runner.take().into_iter().for_each(outside::wake);
        answered
    }

    /// Whether anybody waits.
    pub(crate) fn are_any(&self) -> bool {
        !self.queue().waiting.is_empty()
    }

    /// Whether anybody waits; if not, the task is woken when somebody does.
    pub(crate) fn any_else_wake(&self, context: &Context<'_>) -> bool {
        self.runner.register(context.waker());
        let mut queue = self.queue();
        queue.waiting.retain(|request| !request.answer.is_closed());
        !queue.waiting.is_empty()
    }

    /// Whether a template can be taken now that the guest asks for one, or does not.
    pub(crate) fn has(&self, guest_asks: bool) -> bool {
        let queue = self.queue();
        let mut waiting = queue.waiting.iter();
        waiting.any(|request| request.is_due(guest_asks))
    }

    /// The first for whom a template can be taken.
    pub(crate) fn next(&self, guest_asks: bool) -> Option<Request> {
        let mut queue = self.queue();
        let mut waiting = queue.waiting.iter();
        let first = waiting.position(|request| request.is_due(guest_asks))?;
        queue.waiting.remove(first)
    }

    /// Whether somebody waits until the guest asks.
    pub(crate) fn waits_for_guest(&self) -> bool {
        let queue = self.queue();
        let mut waiting = queue.waiting.iter();
        waiting.any(|request| request.when == When::GuestAsks && !request.answer.is_closed())
    }

    /// The guest asks: waits until all who waited for that have been answered.
    pub(crate) async fn answered(&self) {
        loop {
            let told = self.guest.notified();
            if !self.waits_for_guest() {
                return;
            }
            told.await;
        }
    }

    /// A request was answered.
    pub(crate) fn tell_guest(&self) {
        self.guest.notify_waiters();
    }

    /// The sandbox has ended: nobody gets a template of it any more.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut queue = self.queue();
            queue.has_ended = true;
            std::mem::take(&mut queue.waiting)
        };
        for request in waiting {
            request.answer(Err(SnapshotError::Ended));
        }
    }
}
