//! Tasks: futures that the executor runs side by side.

use alloc::borrow::Cow;
use alloc::string::String;
use core::future::{Future, poll_fn};
use core::task::Poll;

pub use crate::executor::{JoinError, JoinHandle};
use crate::runtime::runtime;

/// Makes a task of a future. It is first polled in the next turn, after all tasks that
/// are ready now.
///
/// # Panics
///
/// Outside of a guest.
#[inline]
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    runtime().executor().spawn(None, future)
}

/// As [`spawn`], with a name for traces, panic messages and [`name`].
///
/// # Panics
///
/// Outside of a guest.
#[track_caller]
pub fn spawn_named<F: Future + 'static>(
    name: impl Into<Cow<'static, str>>,
    future: F,
) -> JoinHandle<F::Output> {
    runtime().executor().spawn(Some(name.into()), future)
}

/// The name of the task that calls: the one that it was given, "main" for the first, else
/// that of its future's type. Empty outside of all tasks.
#[must_use]
pub fn name() -> String {
    runtime().with_current_name(|name| name.unwrap_or_default().into())
}

/// Runs a future to its end in the middle of a poll, for a caller that cannot await: a callback of a C
/// library, a host function of a script engine.
///
/// A processor has one flow of control, and this stands in its way: **no other task is polled meanwhile**,
/// be it ready or not. A future that waits for another task of the guest (a lock, a channel, a
/// [`JoinHandle`]) never ends so, and the sandbox ends with a deadlock; one that waits for the host
/// (sockets, files, timers, functions of the host) does.
///
/// # Panics
///
/// Outside of a guest.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_here(future)
}

/// Lets everything else that is ready go first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
