//! The end of a task, and the handle by which somebody waits for it that the task's executor does not know: on another
//! processor, or of another priority.
//!
//! The bits of one word say who has the output: whoever sets DONE has written it, and from then on it is the handle's, or,
//! where DETACHED was set before, is dropped there and then.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::fmt;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};

#[cfg(not(any(feature = "processors", test)))]
use self::masked::SharedCell;
use crate::executor::JoinError;
#[cfg(any(feature = "processors", test))]
use crate::lock::Locked as SharedCell;
use crate::trace::{self, Reason};
use crate::word::SharedWord;

/// It has no future any more.
pub(crate) const DONE: u32 = 1 << 2;
/// Nobody wants its output.
const DETACHED: u32 = 1 << 3;
/// Somebody asked for its end.
pub(crate) const ABORTED: u32 = 1 << 4;
/// Somebody waits for its end.
const JOINED: u32 = 1 << 5;

/// Leaves a waker, unless one that does the same is there. What was there is dropped when nobody has the cell.
fn leave(cell: &SharedCell<Option<Waker>>, waker: &Waker) {
    let old = {
        let mut left = cell.borrow_mut();
        match &*left {
            Some(own) if own.will_wake(waker) => None,
            _ => left.replace(waker.clone()),
        }
    };
    drop(old);
}

/// Where a task's output is left for somebody elsewhere.
pub(crate) struct Joint<T> {
    pub(crate) state: SharedWord,
    joiner: SharedCell<Option<Waker>>,
    /// Written before DONE, by the task; then the handle's.
    output: UnsafeCell<Option<T>>,
}

// SAFETY: the output moves from the processor that sets DONE to the one that sees it, for which `T` is `Send`; it is
// nobody else's at any time. The rest is made of atomics and a lock.
unsafe impl<T: Send> Sync for Joint<T> {}

impl<T> Joint<T> {
    pub(crate) fn new(state: u32) -> Self {
        Self {
            state: SharedWord::new(state),
            joiner: SharedCell::new(None),
            output: UnsafeCell::new(None),
        }
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.state.load(Ordering::Acquire) & bits != 0
    }

    /// (4): leaves the output, if there is one. `running` are bits that are taken away.
    pub(crate) fn complete(&self, output: Option<T>, running: u32) {
        // SAFETY: DONE is not set, so the output is this side's.
        unsafe { *self.output.get() = output };
        // Release: the output is written. Acquire: the joiner is.
        let before = self.state.fetch_add(DONE - running, Ordering::AcqRel);
        if before & DETACHED != 0 {
            // SAFETY: there is no handle any more which could look.
            drop(unsafe { (*self.output.get()).take() });
        } else if before & JOINED != 0 {
            let joiner = self.joiner.borrow_mut().take();
            if let Some(joiner) = joiner {
                joiner.wake();
            }
        }
    }

    /// The output, once it is there; else `waker` is woken then. For the one handle.
    fn poll(&self, waker: &Waker) -> Poll<Result<T, JoinError>> {
        if !self.has(DONE) {
            leave(&self.joiner, waker);
            // Whichever of this and the addition in `complete` is second sees the other.
            if self.state.fetch_or(JOINED, Ordering::AcqRel) & DONE == 0 {
                return Poll::Pending;
            }
        }
        // SAFETY: DONE is set, so the output is the handle's.
        let output = unsafe { (*self.output.get()).take() };
        Poll::Ready(output.ok_or(JoinError::Aborted))
    }

    /// The handle is dropped.
    fn detach(&self) {
        if self.state.fetch_or(DETACHED, Ordering::AcqRel) & DONE != 0 {
            // SAFETY: as in `poll`.
            drop(unsafe { (*self.output.get()).take() });
        }
    }
}

/// What has a [`Joint`].
pub(crate) trait Joinable<T>: Send + Sync {
    fn joint(&self) -> &Joint<T>;
    fn abort(self: Arc<Self>);
    /// The task's number, if it is known here.
    fn number(&self) -> Option<u32>;
}

/// Waits for a task and gives its output: from any processor, of any processor; or from any priority, of any priority.
///
/// Dropping the handle detaches the task: it goes on, and its output is dropped.
pub struct JoinHandle<T>(pub(crate) Arc<dyn Joinable<T>>);

impl<T> JoinHandle<T> {
    /// Asks for the end of the task: its future is dropped in its next turn instead of being polled. Nothing
    /// happens if it has ended before.
    pub fn abort(&self) {
        self.0.clone().abort();
    }

    /// Whether the task has ended, either way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.joint().has(DONE)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// Polled again after it was ready, it says [`JoinError::Aborted`].
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = self.0.joint().poll(cx.waker());
        if let (true, Some(number)) = (poll.is_pending(), self.0.number()) {
            trace::waits_for(Reason::Task(number));
        }
        poll
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.0.joint().detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// What is elsewhere of a task that stays where it was made.
struct Remote<T> {
    joint: Joint<T>,
    /// Wakes the task, once it was polled.
    task: SharedCell<Option<Waker>>,
}

impl<T: Send> Joinable<T> for Remote<T> {
    fn joint(&self) -> &Joint<T> {
        &self.joint
    }

    fn abort(self: Arc<Self>) {
        self.joint.state.fetch_or(ABORTED, Ordering::AcqRel);
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn number(&self) -> Option<u32> {
        None
    }
}

/// Completes the joint also when its task is dropped.
struct Completes<T>(Arc<Remote<T>>);

impl<T> Completes<T> {
    fn with(self, output: T) {
        let whole = ManuallyDrop::new(self);
        // SAFETY: it is read once, and never dropped.
        let remote = unsafe { core::ptr::read(&raw const whole.0) };
        remote.joint.complete(Some(output), 0);
    }
}

impl<T> Drop for Completes<T> {
    fn drop(&mut self) {
        self.0.joint.complete(None, 0);
    }
}

/// A future for the executor of some processor that makes another future there and runs that to its end, and the
/// handle of it.
pub(crate) fn remote<M, F>(make: M) -> (impl FnOnce() -> Running<F>, JoinHandle<F::Output>)
where
    M: FnOnce() -> F,
    F: Future + 'static,
    F::Output: Send,
{
    let remote = Arc::new(Remote {
        joint: Joint::new(0),
        task: SharedCell::new(None),
    });
    let completes = Completes(remote.clone());
    let begin = move || Running {
        future: make(),
        completes: Some(completes),
    };
    (begin, JoinHandle(remote))
}

/// The future of [`remote`].
pub(crate) struct Running<F: Future> {
    future: F,
    completes: Option<Completes<F::Output>>,
}

impl<F: Future> Future for Running<F>
where
    F::Output: Send,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is pinned, and nothing moves out of it; `completes` is not.
        let (future, completes) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.completes)
        };
        let Some(remote) = completes.as_ref().map(|completes| &completes.0) else {
            return Poll::Ready(());
        };
        leave(&remote.task, cx.waker());
        // After the waker is there: whoever sets the bit later finds it.
        if remote.joint.has(ABORTED) {
            return Poll::Ready(());
        }
        let output = core::task::ready!(future.poll(cx));
        if let Some(completes) = completes.take() {
            completes.with(output);
        }
        Poll::Ready(())
    }
}

/// What priorities share.
#[cfg(not(any(feature = "processors", test)))]
mod masked {
    use core::cell::RefMut;

    use crate::mask::{Borrowed, MaskedCell};

    /// A cell that whoever waits and whoever ends use.
    pub(super) struct SharedCell<T>(MaskedCell<T>);

    // SAFETY: a guest has one processor, and nothing preempts who has borrowed the cell: upcalls are masked.
    unsafe impl<T: Send> Sync for SharedCell<T> {}

    impl<T> SharedCell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(MaskedCell::new(value))
        }

        pub(super) fn borrow_mut(&self) -> Borrowed<RefMut<'_, T>> {
            self.0.borrow_mut()
        }
    }
}
