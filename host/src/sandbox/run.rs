//! The run: the guest is entered, and what it was left for is seen to, until it ends.
//!
//! [`Sandbox::run`] is the whole story as one `async fn`: enter the guest, see why it was
//! left, serve what it submitted, enter again; when the guest has nothing to do and nothing
//! has completed, await.

use std::future::poll_fn;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime;
use tracing::Instrument;
use wakebox_abi::memory::{Control, Word};
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::vcpu::Exit;

use super::processors::Ending;
use super::serve::Parked;
use super::{NOBODY, QUANTUM, Running, SHARED_TURNS, Sandbox};
use crate::calls::guest::GuestEnd;
use crate::driver::Violation;
use crate::error::{Error, Result};
use crate::limits::LimitKind;
use crate::observe::exit_reason;
use crate::outcome::{Limit, Outcome};
use crate::template::Left;
use crate::trace::ExitReason;

/// A run under way: when it is dropped, early or at the end, nothing stays open.
struct Run<'a> {
    sandbox: &'a mut Sandbox,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.sandbox.stop_others_now();
        if let Some(processors) = &self.sandbox.processors {
            processors.abort();
        }
        self.sandbox.live.requests.end();
        self.sandbox.live.asked.end();
        self.sandbox.close();
    }
}

impl Sandbox {
    /// Runs the guest to its end.
    ///
    /// The future enters the guest when it is polled, for at most a quantum, and is pending
    /// while the guest has nothing to do. It wants a Tokio runtime with I/O and time enabled,
    /// of whichever flavour; many run side by side on few threads. Dropping it stops the guest
    /// where it is; nothing of it runs any more, and the sandbox cannot be run again.
    ///
    /// What the guest has left open is closed before the outcome is known, except the rest of
    /// hundreds, which a thread for blocking calls closes soon after.
    ///
    /// # Errors
    ///
    /// What the host could not do, or [`Error::Ended`] at a second call. What the guest does is
    /// an [`Outcome`].
    pub async fn run(&mut self) -> Result<Outcome> {
        let span = self.telemetry.span().clone();
        self.run_in_span().instrument(span).await
    }

    async fn run_in_span(&mut self) -> Result<Outcome> {
        if !self.machine.is_of_this_process() {
            return Err(Error::Forked);
        }
        if std::mem::replace(&mut self.ended, true) {
            return Err(Error::Ended);
        }
        let runtime = runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let span = self.telemetry.span().clone();
        if let Some(processors) = &self.processors {
            processors.run(runtime.clone(), span.clone(), self.machine.take_others());
        }
        self.callables.enter(runtime, span);
        let run = Run { sandbox: self };
        let result = match run.sandbox.limits.time(LimitKind::WallClock) {
            None => run.sandbox.drive().await,
            Some(limit) => match tokio::time::timeout(limit, run.sandbox.drive()).await {
                Ok(result) => result,
                Err(_) => match run.sandbox.attach_alone().await {
                    Ok(()) => {
                        run.sandbox.flush_in_haste().await;
                        Ok(Outcome::Limit(Limit::WallClock(limit)))
                    }
                    Err(error) => Err(error),
                },
            },
        };
        run.sandbox.stop_others().await;
        let mut result = run.sandbox.account_for_output(result);
        if let Ok(outcome) = &result {
            run.sandbox.keep_tasks(outcome);
            #[cfg(feature = "gdb")]
            run.sandbox.tell_debugger(outcome).await;
        }
        run.sandbox.call_queue.end(GuestEnd::of(&result));
        run.sandbox.close_in_pieces().await;
        drop(run);
        if let Some(poller) = self.placement.ends() {
            // Nobody else has the guest's memory then. It does not panic.
            let _ = poller.await;
        }
        if let Ok(outcome) = &mut result {
            self.examine(outcome).await;
        }
        if !matches!(&result, Ok(outcome) if outcome.left_machine_whole()) {
            self.machine.spoil();
        }
        if let Some(tracing) = &mut self.tracing {
            match &result {
                Ok(outcome) => tracing.end(outcome.to_string(), outcome.exit_status()),
                Err(error) => tracing.end(error.to_string(), 1),
            }
            tracing.ended().await;
        }
        self.telemetry.ended(&result, self.live.exits().total());
        result
    }

    /// Runs the guest to its end, for callers without a runtime of their own.
    ///
    /// # Errors
    ///
    /// As [`Self::run`]; besides, a runtime could not be made.
    ///
    /// # Panics
    ///
    /// If called inside a Tokio runtime.
    pub fn run_blocking(&mut self) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Thread {
                name: "Tokio runtime",
                source,
            })?;
        let outcome = runtime.block_on(self.run());
        // A read of standard input that never ends must not keep the caller.
        runtime.shutdown_background();
        outcome
    }

    /// Runs the sandbox as a task of the current Tokio runtime, for a guest that serves calls.
    ///
    /// Outside a runtime nothing runs, and whoever asks is told: [`Running::call`] gives
    /// [`CallError::NoRuntime`](crate::CallError::NoRuntime), [`Running::ended`] and
    /// [`Running::close`] give [`Error::NoRuntime`].
    #[must_use]
    pub fn start(self) -> Running {
        // Not `tokio::spawn`: outside a runtime that drops the sandbox while it holds on to what the
        // sandbox's own end needs.
        let Ok(runtime) = runtime::Handle::try_current() else {
            return Running::new(self.handle(), None);
        };
        self.start_in(&runtime, || ())
    }

    /// Runs the sandbox as a task of this runtime, and does this when nothing is left of it.
    pub(crate) fn start_in(
        mut self,
        runtime: &runtime::Handle,
        then: impl FnOnce() + Send + 'static,
    ) -> Running {
        let handle = self.handle();
        self.is_alone = true;
        let task = runtime.spawn(async move {
            let outcome = self.run().await;
            let stats = self.stats();
            drop(self);
            then();
            (outcome, stats)
        });
        Running::new(handle, Some(task))
    }

    /// Enters the guest for `most` and counts the time on either side.
    fn enter(&mut self, most: Duration) -> Result<Exit> {
        if let Some(processors) = &self.processors {
            processors.refresh_clock();
        } else if let Some(moment) = self.clocks.refresh() {
            self.memory.write_clock(&moment);
        }
        let entered = self.turns.enters(&self.live.run);
        let exit = self.enter_vcpu(most);
        let used = self.turns.leaves(entered, &self.live.run);
        if let Some(processors) = &self.processors {
            processors.has_used(used);
        }
        self.exited(&exit);
        exit
    }

    /// Enters the guest, with an interrupt if it is to have one, and tells who watches.
    fn enter_vcpu(&mut self, most: Duration) -> Result<Exit> {
        let herd = self.processors.as_ref().map(|processors| &processors.herd);
        if herd.is_some_and(|herd| herd.enters(0)) {
            self.machine.vcpu_mut().interrupt();
        }
        let is_interrupted = self.machine.vcpu_mut().inject()?;
        if is_interrupted {
            self.live.run.interrupts.add(1);
        }
        if let Some(drain) = self.drain() {
            drain.enters(is_interrupted);
        }
        let exit = self.machine.vcpu_mut().enter(most);
        if let Some(processors) = &self.processors {
            processors.herd.left(0);
        }
        Ok(exit?)
    }

    /// Tells of an exit whoever counts or watches them.
    fn exited(&mut self, exit: &Result<Exit>) {
        let reason = exit.as_ref().map_or(ExitReason::Violation, exit_reason);
        self.exits.exited(reason);
        if let Some(tracing) = &mut self.tracing {
            tracing.drain.exited(reason);
        }
        if exit.is_ok() {
            self.live.run.exited(reason);
        }
    }

    /// How long the guest may stay in its next turn.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    fn turn_length(&self, began: Instant) -> Result<Duration, Limit> {
        let used = match &self.processors {
            None => self.turns.used(),
            Some(processors) => processors.used(),
        };
        self.turns.length(&self.limits, self.quantum(), used, began)
    }

    async fn drive(&mut self) -> Result<Outcome> {
        let began = self.turns.begin();
        if let Some(resume) = self.resume.take()
            && let Err(violation) = self.resume(resume)
        {
            return Ok(Outcome::Violation(violation));
        }
        #[cfg(feature = "gdb")]
        self.attach_debugger().await?;
        loop {
            #[cfg(feature = "gdb")]
            self.listen_to_debugger().await?;
            if let Some(why) = self.live.stop.why() {
                return self.stopped(why).await;
            }
            if self.live.asked.any() {
                self.tell_tasks();
            }
            self.let_sinks_catch_up().await;
            // As often as a guest that computes: what it submits comes in larger batches so.
            self.let_others_run(QUANTUM).await;
            let most = match self.turn_length(began) {
                Ok(most) => most,
                Err(limit) => return Ok(self.limited(limit).await),
            };
            let exit = self.enter(most)?;
            #[cfg(feature = "gdb")]
            let Some(exit) = self.debugged(exit).await? else {
                continue;
            };
            if let Break(outcome) = self.see_to(exit).await? {
                return Ok(outcome);
            }
        }
    }

    /// Sees to what the guest was left for, until it can be entered again or has ended.
    async fn see_to(&mut self, exit: Exit) -> Result<ControlFlow<Outcome>> {
        let served = match exit {
            Exit::Submit => self.serve(true).await,
            Exit::Start => match self.starts() {
                Ok(()) => Ok(()),
                Err(ending) => return self.of_processor(0, ending).await.map(Break),
            },
            Exit::Nudge => self.nudges().await,
            Exit::Map => {
                self.memory.edit_windows(0);
                Ok(())
            }
            Exit::Caught => Ok(()),
            Exit::Wait => match self.park(Left::Wait).await {
                Parked::Completion => Ok(()),
                parked => return self.not_woken(parked).await.map(Break),
            },
            Exit::Halt => match self.park(Left::Halt).await {
                Parked::Completion => {
                    self.machine.vcpu_mut().interrupt();
                    Ok(())
                }
                parked => return self.not_woken(parked).await.map(Break),
            },
            Exit::Interrupted(reasons) => {
                if reasons.has(Reasons::QUANTUM) {
                    self.give_way().await;
                }
                self.serve(false).await
            }
            Exit::End(end) => return self.terminated(end).await.map(Break),
        };
        Ok(match served.and(self.let_tasks_begin().await) {
            Ok(()) => Continue(()),
            Err(violation) => {
                self.stop_others().await;
                Break(Outcome::Violation(violation))
            }
        })
    }

    /// The guest rings for a processor, and has one: itself.
    fn rings_for_itself(&self) -> Result<u32, Violation> {
        match self.control.load(Word::Target, Ordering::Relaxed) {
            0 => Ok(0),
            processor => Err(Violation::NoSuchProcessor {
                processor,
                processors: 1,
            }),
        }
    }

    /// Another processor is to begin.
    fn starts(&self) -> std::result::Result<(), Ending> {
        match &self.processors {
            Some(processors) => processors.start(0),
            None => Err(Ending::Violation(match self.rings_for_itself() {
                Ok(processor) => Violation::ProcessorRuns { processor },
                Err(violation) => violation,
            })),
        }
    }

    /// There is something for another processor.
    async fn nudges(&mut self) -> Result<(), Violation> {
        let is_itself = match &self.processors {
            Some(processors) => processors.nudge(0)?,
            None => self.rings_for_itself()? == 0,
        };
        if is_itself {
            self.give_way().await;
        }
        Ok(())
    }

    /// Waits as long as too many events wait for the trace's sinks; not beyond the end.
    async fn let_sinks_catch_up(&mut self) {
        let (stop, Some(drain)) = (&self.live.stop, self.drain()) else {
            return;
        };
        poll_fn(|context| match stop.why_else_wake(context) {
            Some(_) => Poll::Ready(()),
            None => drain.poll_room(context),
        })
        .await;
    }

    /// Lets others of this thread have a turn after a quantum, of so long at most, however often the guest
    /// was left meanwhile, and whether it was the guest that took the time or its driver.
    pub(super) async fn let_others_run(&mut self, after: Duration) {
        // Limits of time are looked at in between, so a long quantum is no excuse on this side.
        if self.turns.is_long(self.quantum().min(after)) {
            self.give_way().await;
        }
    }

    /// How long the guest may compute now before others get a turn.
    fn quantum(&self) -> Duration {
        match self.shares {
            0 => self.quantum,
            _ => self.quantum / 2,
        }
    }

    /// Lets the others on this thread have their turn, and looks whether there are any.
    async fn give_way(&mut self) {
        let gave = Instant::now();
        tokio::task::yield_now().await;
        self.shares = match self.turns.begin() - gave > NOBODY {
            true => SHARED_TURNS,
            false => self.shares.saturating_sub(1),
        };
    }
}
