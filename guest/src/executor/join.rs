//! What a spawn returns.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::task::{Flags, TaskRef};
use crate::trace;

/// Waits for a task and gives its output.
///
/// Dropping the handle detaches the task: it goes on, and its output is dropped.
pub struct JoinHandle<T> {
    task: TaskRef,
    /// `T` lies in the task and is dropped at home: the handle is not `Send`.
    output: PhantomData<*const T>,
}

impl<T> Unpin for JoinHandle<T> {}

/// Why a task has no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// Its future was dropped before it was ready.
    Aborted,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was aborted")
    }
}

impl core::error::Error for JoinError {}

impl<T> JoinHandle<T> {
    /// The handle of a task whose output is a `T`, and which counts as JOINED.
    pub(super) fn new(task: TaskRef) -> Self {
        Self {
            task,
            output: PhantomData,
        }
    }

    /// Asks for the end of the task: its future is dropped in its next turn instead of
    /// being polled. Nothing happens if it has ended before.
    pub fn abort(&self) {
        self.task.raise(Flags::ABORTED);
        self.task.wake(false, trace::is_on());
    }

    /// Takes the output out, if the task has ended with one.
    pub(crate) fn take(&mut self) -> Option<T> {
        // SAFETY: the spawn that made the handle gave it the output type of its future.
        unsafe { self.task.take_output() }
    }

    /// Whether the task has ended, either way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.has(Flags::COMPLETED)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// Does not panic; polled again after it was ready, it says [`JoinError::Aborted`].
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_finished() {
            self.task.set_joiner(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(self.take().ok_or(JoinError::Aborted))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("task", &self.task.name())
            .field("finished", &self.is_finished())
            .finish()
    }
}
