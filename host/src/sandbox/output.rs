//! The end of a guest's output: it is waited for, and counted.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{Sandbox, Service};
use crate::driver::Ended;
use crate::error::{Error, Result};
use crate::report::Outcome;
use crate::stdio::LostOutput;
use crate::stop::Why;

/// What a guest has written within its limit on run time still leaves, if it does at once: to a
/// reader that takes it, not to one that has stopped.
const HASTE: Duration = Duration::from_millis(200);

/// How the wait for a guest's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All has left, or never will.
    All,
    /// Somebody has ended the sandbox meanwhile.
    Killed,
}

impl Sandbox {
    /// What the guest has written that did not arrive where it was to go: because writing failed, or
    /// because the run ended before it was taken. Known when the run has ended.
    ///
    /// If the guest ended by itself, [`run`](Self::run) returns it as [`Error::OutputLost`].
    #[must_use]
    pub fn lost_output(&self) -> &[LostOutput] {
        &self.lost
    }

    /// Waits until the guest's output has left, as long as its reader takes, or until the sandbox is
    /// ended.
    pub(super) async fn flush(&mut self) -> Flushed {
        let console = self.console.clone();
        let mut idle = pin!(console.idle());
        poll_fn(|context| {
            // How the guest broke the ring in its last moment changes nothing now.
            if let Service::Inline(driver) = &mut self.service
                && let Ok(turn) = driver.turn(Some(context))
                && turn.ended == Ended::Spent
            {
                context.waker().wake_by_ref();
            }
            if idle.as_mut().poll(context).is_ready() {
                return Poll::Ready(Flushed::All);
            }
            match self.stop.why_else_wake(context) {
                Some(Why::Killed) => Poll::Ready(Flushed::Killed),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// The same at the end of the time that a run may take.
    pub(super) async fn flush_in_haste(&mut self) {
        // What is left then is counted as lost.
        let _ = tokio::time::timeout(HASTE, self.flush()).await;
    }

    /// Counts what was lost. Without an error, an end of the guest's own means that all arrived.
    pub(super) fn account_for_output(&mut self, result: Result<Outcome>) -> Result<Outcome> {
        self.lost = self.console.lost();
        for lost in &self.lost {
            tracing::warn!("{lost}");
        }
        match result {
            Ok(Outcome::Exit(code)) if !self.lost.is_empty() => Err(Error::OutputLost {
                code,
                lost: self.lost.clone(),
            }),
            result => result,
        }
    }
}
