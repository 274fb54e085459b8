//! How a run ends: what the guest has submitted last is served, its output is waited for and counted,
//! and the outcome is decided.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use wakebox_abi::memory::{Control, Word};
use wakebox_abi::report;
use wakebox_vmm::vcpu::End;

use super::Sandbox;
use super::processors::Ending;
use super::serve::Parked;
use crate::driver::{Ended, Violation};
use crate::error::{Error, LostOutput, Result};
use crate::limits::LimitKind;
use crate::outcome::{Fault, Limit, Outcome, Panic};
use crate::stop::Why;

/// What a guest has written within its limit on run time still leaves, if it does at once: to a
/// reader that takes it, not to one that has stopped.
const HASTE: Duration = Duration::from_millis(200);
/// Turns of dropping what is in flight and open at the end, before the outcome is told.
const PIECES_AT_END: usize = 3;

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
            if let Some(Ok(turn)) = self.placement.turn_if_inline(context)
                && turn.ended == Ended::Spent
            {
                context.waker().wake_by_ref();
            }
            if idle.as_mut().poll(context).is_ready() {
                return Poll::Ready(Flushed::All);
            }
            match self.live.stop.why_else_wake(context) {
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

    /// Begins to drop what is in flight and open, and lets others of this thread have a turn in between.
    /// Whoever waits for the outcome does not wait for thousands of them.
    pub(super) async fn close_in_pieces(&mut self) {
        for _ in 0..PIECES_AT_END {
            if self.placement.close_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops the processors besides the first, if there are any, and waits for the end of their tasks: nothing of the
    /// guest runs any more.
    pub(super) async fn stop_others(&mut self) {
        let Some(processors) = self.processors.clone() else {
            return;
        };
        self.stop_others_now();
        while let Some(task) = processors.next_task() {
            // What has panicked has told so.
            let _ = task.await;
        }
    }

    /// The same, without waiting for their tasks, which only find out that nothing is left for them.
    pub(super) fn stop_others_now(&mut self) {
        let Some(processors) = &self.processors else {
            return;
        };
        let others = processors.stop();
        if !others.is_empty() {
            self.machine.give_back(others);
        }
    }

    /// As [`Self::attach`], and the first processor is alone.
    pub(super) async fn attach_alone(&mut self) -> Result<()> {
        self.stop_others().await;
        self.attach()
    }

    /// How it ended by what one of its processors did.
    pub(super) async fn of_processor(&mut self, number: u32, ending: Ending) -> Result<Outcome> {
        self.ender = number;
        match ending {
            Ending::Left(end) => self.terminated(end).await,
            Ending::Violation(violation) => {
                self.stop_others().await;
                Ok(Outcome::Violation(violation))
            }
            Ending::Limit(limit) => Ok(self.limited(limit).await),
            Ending::Deadlock => {
                self.stop_others().await;
                Ok(Outcome::Deadlock)
            }
            Ending::Failed(error) => Err(error),
        }
    }

    /// How it ended that is not entered again.
    pub(super) async fn terminated(&mut self, end: End) -> Result<Outcome> {
        self.stop_others().await;
        Ok(match end {
            End::Exit => {
                let exit = |sandbox: &Self| {
                    let control = sandbox.memory.control_of(sandbox.ender);
                    let code = control.load(Word::ExitCode, Ordering::Relaxed);
                    Outcome::Exit(code.cast_signed())
                };
                self.ended_by_itself(exit).await
            }
            End::Abort => {
                let panic = |sandbox: &Self| {
                    let mut page = [0; report::SIZE];
                    let offset = sandbox.memory.plan().own(sandbox.ender).report.offset;
                    sandbox.memory.read(offset, &mut page);
                    Outcome::Panic(Box::new(Panic::read(&page)))
                };
                self.ended_by_itself(panic).await
            }
            End::Exception(exception) => {
                let stack = self.memory.plan().stack_range_of(self.ender).start;
                let fault = Box::new(Fault::of_exception(&exception).on_stack(stack));
                self.ended_by_itself(|_| Outcome::Fault(fault)).await
            }
            End::Shutdown => {
                let (registers, shutdown) = self.machine.vcpu_of(self.ender).shut_down()?;
                let fault = Box::new(Fault::of_shutdown(registers, shutdown));
                self.ended_by_itself(|_| Outcome::Fault(fault)).await
            }
            End::Violation(what) => Outcome::Violation(what.into()),
        })
    }

    /// What it has submitted before is still served, and what it has written still leaves.
    async fn ended_by_itself(&mut self, how: impl FnOnce(&Self) -> Outcome) -> Outcome {
        let served = self.serve_last().await;
        let flushed = self.flush().await;
        self.ended(served, flushed, how(self))
    }

    /// How it ended that will not be woken.
    ///
    /// # Errors
    ///
    /// What the host could not do.
    pub(super) async fn not_woken(&mut self, parked: Parked) -> Result<Outcome> {
        if let Parked::Stopped(why) = parked {
            return self.stopped(why).await;
        }
        self.stop_others().await;
        Ok(match parked {
            Parked::Broken(violation) => Outcome::Violation(violation),
            Parked::Deadlock
            | Parked::Completion
            | Parked::Unfinished
            | Parked::Wanted
            | Parked::Stopped(_) => Outcome::Deadlock,
            #[cfg(feature = "gdb")]
            Parked::Debugged => Outcome::Deadlock,
            Parked::Failed(error) => return Err(error),
        })
    }

    /// How it ends that was ended from elsewhere.
    ///
    /// # Errors
    ///
    /// What the host could not do.
    pub(super) async fn stopped(&mut self, why: Why) -> Result<Outcome> {
        self.stop_others().await;
        Ok(match why {
            Why::Killed => Outcome::Cancelled,
            Why::Processor => {
                let end = self
                    .processors
                    .as_ref()
                    .and_then(|processors| processors.end());
                let Some((number, ending)) = end else {
                    return Err(Error::Ended);
                };
                return self.of_processor(number, ending).await;
            }
            Why::Log => {
                let limit = self.limits.value(LimitKind::Log);
                self.limited(Limit::Log(limit)).await
            }
        })
    }

    /// How it ends at a limit: what it has written still leaves.
    pub(super) async fn limited(&mut self, limit: Limit) -> Outcome {
        self.stop_others().await;
        self.flush().await;
        Outcome::Limit(limit)
    }

    /// How it ended, unless the guest's last submissions broke the interface or passed a limit, or
    /// somebody had no patience for what it wrote last.
    fn ended(&self, served: Result<(), Violation>, flushed: Flushed, outcome: Outcome) -> Outcome {
        match (served, self.live.stop.why()) {
            (Err(violation), _) => Outcome::Violation(violation),
            (Ok(()), Some(Why::Log)) => {
                Outcome::Limit(Limit::Log(self.limits.value(LimitKind::Log)))
            }
            (Ok(()), _) => match (flushed, outcome) {
                (Flushed::Killed, Outcome::Exit(_)) => Outcome::Cancelled,
                (_, outcome) => outcome,
            },
        }
    }
}
