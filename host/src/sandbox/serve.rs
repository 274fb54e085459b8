//! What the guest submits is done, and a guest that waits is parked.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use wakebox_abi::wake::Mode;

use super::detach::Slept;
use super::{DRIVER_QUANTUM, Sandbox};
use crate::driver::{Ended, Violation};
use crate::error::Error;
use crate::stop::Why;
use crate::template::Left;

/// Why a guest is no longer parked.
pub(super) enum Parked {
    Completion,
    Deadlock,
    /// The turn that was to tell has ended early.
    Unfinished,
    /// Somebody wants a template, which can be taken now.
    Wanted,
    /// gdb has said something.
    #[cfg(feature = "gdb")]
    Debugged,
    Stopped(Why),
    Broken(Violation),
    /// The host could not do its part.
    Failed(Error),
}

impl Sandbox {
    /// A turn of the driver. If the guest goes on at once, a poller is notified, where that saves
    /// exits.
    pub(super) async fn serve(&mut self, goes_on: bool) -> Result<(), Violation> {
        let completed = match self.placement.turn_beside_poller(self.mode, goes_on) {
            Some(turn) => turn?.completed > 0,
            None => self.take_turns(goes_on).await?,
        };
        // Of several processors, each is told what is its own.
        if self.mode == Mode::Irq && completed && self.processors.is_none() {
            self.machine.vcpu_mut().interrupt();
        }
        Ok(())
    }

    /// As many turns on this task as there is work for, after which the guest goes on at once, or there is something else to
    /// see to. Returns whether anything was completed.
    async fn take_turns(&mut self, goes_on: bool) -> Result<bool, Violation> {
        let (mut completed, mut operations) = (false, 0);
        loop {
            let turn = self.placement.turn()?;
            completed |= turn.completed > 0;
            let is_put_off = turn.submitted > 0 && turn.deferred > 0;
            operations += turn.submitted;
            if turn.ended != Ended::Spent {
                self.placement.served_alone(operations, goes_on, is_put_off);
                return Ok(completed);
            }
            self.let_others_run(DRIVER_QUANTUM).await;
        }
    }

    /// Takes all that a guest has submitted before it ended.
    pub(super) async fn serve_last(&mut self) -> Result<(), Violation> {
        self.take_turns(false).await.map(|_| ())
    }

    /// Lets tasks of the embedder's that the guest has set going begin before the guest is entered
    /// again: they may need the very thread that it would be on. What they come to at once goes to the
    /// guest together.
    pub(super) async fn let_tasks_begin(&mut self) -> Result<(), Violation> {
        if !self.callables.home().let_begin().await {
            return Ok(());
        }
        self.turns.begin();
        self.serve(false).await
    }

    /// Waits until there is a completion that the guest has not seen. Pending without a thread.
    pub(super) async fn park(&mut self, left: Left) -> Parked {
        let asleep_since = self.turns.left_at();
        let mut pended = false;
        self.placement.parked();
        let parked = loop {
            let parked = match self.patience() {
                None => Some(self.sleep(&mut pended).await),
                Some(Duration::ZERO) => self.sleep_not(&mut pended).await,
                Some(patience) => tokio::time::timeout(patience, self.sleep(&mut pended))
                    .await
                    .ok(),
            };
            let parked = match parked {
                Some(parked) => parked,
                None => match self.sleep_without_machine().await {
                    Ok(Slept::WithoutMachine) => continue,
                    Ok(Slept::Not) => self.sleep(&mut pended).await,
                    Ok(Slept::OthersRun) => match self.sleep_until_all_do(&mut pended).await {
                        Some(parked) => parked,
                        None => continue,
                    },
                    Err(error) => Parked::Failed(error),
                },
            };
            match parked {
                Parked::Unfinished => self.let_others_run(DRIVER_QUANTUM).await,
                Parked::Wanted => self.answer_snapshots(left).await,
                // It may wake up in vain, and gdb may have it go on elsewhere.
                #[cfg(feature = "gdb")]
                Parked::Debugged => match self.listen_to_debugger().await {
                    Ok(()) => break Parked::Completion,
                    Err(error) => break Parked::Failed(error),
                },
                parked => break parked,
            }
        };
        let waited = asleep_since.map(|since| since.elapsed());
        self.placement.unparked(waited, pended);
        if pended {
            if let Some(drain) = self.drain() {
                drain.resumed();
            }
            self.turns.was_parked(&self.live.run);
        }
        parked
    }

    async fn sleep(&mut self, pended: &mut bool) -> Parked {
        poll_fn(|context| self.poll_sleep(context, pended)).await
    }

    /// The same, but `None` when all other processors sleep, too.
    async fn sleep_until_all_do(&mut self, pended: &mut bool) -> Option<Parked> {
        poll_fn(|context| match self.poll_sleep(context, pended) {
            Poll::Ready(parked) => Poll::Ready(Some(parked)),
            // Registered, then looked.
            Poll::Pending => match self
                .placement
                .with(|driver| driver.guest_sleeps_else_wake())
            {
                true => Poll::Ready(None),
                false => Poll::Pending,
            },
        })
        .await
    }

    /// As [`Self::sleep`], but `None` at once where that would wait.
    async fn sleep_not(&mut self, pended: &mut bool) -> Option<Parked> {
        poll_fn(|context| match self.poll_sleep(context, pended) {
            Poll::Ready(parked) => Poll::Ready(Some(parked)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_sleep(&mut self, context: &Context<'_>, pended: &mut bool) -> Poll<Parked> {
        let poll = self.poll_parked(context);
        if poll.is_pending() && !*pended {
            self.memory.learn();
            if let Some(drain) = self.drain() {
                drain.parked();
            }
        }
        *pended |= poll.is_pending();
        poll
    }

    fn poll_parked(&mut self, context: &Context<'_>) -> Poll<Parked> {
        if let Some(why) = self.live.stop.why_else_wake(context) {
            return Poll::Ready(Parked::Stopped(why));
        }
        let standing = match &self.processors {
            None => self.placement.turn_parked(context),
            Some(processors) => self.placement.turn_parked_of(&processors.herd, 0, context),
        };
        let standing = match standing {
            Ok(standing) => standing,
            Err(violation) => return Poll::Ready(Parked::Broken(violation)),
        };
        if standing.ended != Ended::Done {
            // What is left may complete, be in flight or wake; or it is to end.
            return Poll::Ready(Parked::Unfinished);
        }
        // S4 of `wakebox_abi::wake`, on this side of the exit.
        if standing.has_news {
            Poll::Ready(Parked::Completion)
        } else if standing.is_stuck {
            Poll::Ready(Parked::Deadlock)
        } else if self.poll_snapshot(context) {
            Poll::Ready(Parked::Wanted)
        } else {
            if self.live.asked.any_else_wake(context) {
                self.tell_tasks();
            }
            #[cfg(feature = "gdb")]
            return self.poll_debugger(context).map(|()| Parked::Debugged);
            #[cfg(not(feature = "gdb"))]
            Poll::Pending
        }
    }
}
