//! One of the further processors, as its task has it: it enters the guest, and sees to what that was left for.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use wakebox_vmm::kick::Reasons;
use wakebox_vmm::vcpu::{End, Exit};

use super::super::turns::Turns;
use super::super::{DRIVER_QUANTUM, QUANTUM};
use super::{Ending, Processors, lock};
use crate::driver::placement::Placement;
use crate::driver::{Ended, Violation};
use crate::error::{Error, Result};
use crate::observe::{Drain, exit_reason};
use crate::ops::TokioBackend;
use crate::telemetry::{ExitTelemetry, Telemetry};
use crate::template::Left;
use crate::trace::ExitReason;

/// One of the further processors, as its task has it.
pub(super) struct Processor {
    all: Arc<Processors>,
    number: u32,
    placement: Placement<TokioBackend>,
    exits: ExitTelemetry,
    /// If somebody watches.
    drain: Option<Drain>,
    turns: Turns,
    /// Whether its task has come to an end of its own.
    has_ended: bool,
}

impl Drop for Processor {
    fn drop(&mut self) {
        if !self.has_ended && !self.all.is_over() {
            // It has panicked, or its runtime shuts down: nobody is to wait for it.
            let ending = Ending::Violation(Violation::HostPanicked);
            self.all.ends(self.number, ending);
        }
    }
}

impl Processor {
    pub(super) fn new(all: Arc<Processors>, number: u32) -> Self {
        let placement = lock(&all.placement).share();
        Self {
            placement: placement.expect("several processors share theirs"),
            exits: Telemetry::exits(number),
            drain: all
                .recorder
                .as_ref()
                .map(|recorder| Drain::new(recorder, &all.memory, number)),
            turns: Turns::new(&all.limits),
            all,
            number,
            has_ended: false,
        }
    }

    pub(super) async fn run(mut self) {
        let ending = self.drive().await;
        self.has_ended = true;
        if let Err(ending) = ending {
            self.all.ends(self.number, ending);
        }
    }

    /// Runs it until all of them are stopped.
    ///
    /// # Errors
    ///
    /// How it has ended before.
    async fn drive(&mut self) -> Result<(), Ending> {
        loop {
            // For a limit or by a wish, the first one ends it.
            if self.all.live.stop.why().is_some() {
                return Ok(());
            }
            self.let_sinks_catch_up().await;
            self.let_others_run(QUANTUM).await;
            let (limits, used) = (&self.all.limits, self.all.used());
            let began = self.all.began();
            let most = self.turns.length(limits, self.all.quantum, used, began);
            let most = most.map_err(Ending::Limit)?;
            let Some(exit) = self.enter(most) else {
                return Ok(());
            };
            if !self.see_to(exit.map_err(Ending::Failed)?).await? {
                return Ok(());
            }
            self.let_tasks_begin().await.map_err(Ending::Violation)?;
        }
    }

    /// Enters the guest, unless all are stopped.
    fn enter(&mut self, most: Duration) -> Option<Result<Exit>> {
        self.all.refresh_clock();
        let all = self.all.clone();
        let mut place = all.place(self.number);
        if all.is_over() {
            return None;
        }
        let vcpu = place.vcpu.as_mut()?;
        let counts = all.live.of_other(self.number);
        let entered = self.turns.enters(counts);
        if all.herd.enters(self.number) {
            vcpu.interrupt();
        }
        let exit = vcpu.inject().and_then(|is_interrupted| {
            if is_interrupted {
                counts.interrupts.add(1);
            }
            if let Some(drain) = &self.drain {
                drain.enters(is_interrupted);
            }
            vcpu.enter(most)
        });
        all.herd.left(self.number);
        all.has_used(self.turns.leaves(entered, counts));
        let reason = exit.as_ref().ok().map(exit_reason);
        if let Some(reason) = reason {
            counts.exited(reason);
        }
        if let Some(drain) = &mut self.drain {
            drain.exited(reason.unwrap_or(ExitReason::Violation));
        }
        // Whoever stops it finds it counted.
        drop(place);
        if let Some(reason) = reason {
            self.exits.exited(reason);
        }
        Some(exit.map_err(Error::from))
    }

    /// Has the guest interrupted when it is entered next.
    fn interrupt(&self) {
        if let Some(vcpu) = &mut self.all.place(self.number).vcpu {
            vcpu.interrupt();
        }
    }

    /// Sees to what the guest was left for. Returns whether it can be entered again.
    async fn see_to(&mut self, exit: Exit) -> Result<bool, Ending> {
        match exit {
            Exit::Submit => self.serve(true).await.map_err(Ending::Violation)?,
            Exit::Wait => return self.park(Left::Wait).await,
            Exit::Halt => {
                let goes_on = self.park(Left::Halt).await?;
                self.interrupt();
                return Ok(goes_on);
            }
            Exit::Start => self.all.start(self.number)?,
            Exit::Nudge => {
                if self.all.nudge(self.number).map_err(Ending::Violation)? {
                    self.give_way().await;
                }
            }
            Exit::Map => self.all.memory.edit_windows(self.number),
            Exit::Caught => {}
            Exit::Interrupted(reasons) => {
                if reasons.has(Reasons::QUANTUM) {
                    self.give_way().await;
                }
                self.serve(false).await.map_err(Ending::Violation)?;
            }
            Exit::End(End::Violation(what)) => return Err(Ending::Violation(what.into())),
            Exit::End(end) => return Err(Ending::Left(end)),
        }
        Ok(true)
    }

    /// As many turns of the driver as there is work for. Who is asleep and has something in its ring is
    /// woken by the turn.
    async fn serve(&mut self, goes_on: bool) -> Result<(), Violation> {
        if let Some(turn) = self.placement.turn_beside_poller(self.all.mode, goes_on) {
            return turn.map(drop);
        }
        while self.placement.turn()?.ended == Ended::Spent {
            self.let_others_run(DRIVER_QUANTUM).await;
        }
        Ok(())
    }

    /// As with the first processor.
    async fn let_tasks_begin(&mut self) -> Result<(), Violation> {
        if !self.all.home.let_begin().await {
            return Ok(());
        }
        self.turns.begin();
        self.serve(false).await
    }

    /// Waits until there is something that the guest has not seen. Returns whether there is; if not,
    /// all are stopped.
    async fn park(&mut self, left: Left) -> Result<bool, Ending> {
        self.all.place(self.number).left = Some(left);
        let mut pended = false;
        let goes_on = loop {
            match poll_fn(|context| self.poll_sleep(context, &mut pended)).await? {
                Some(goes_on) => break goes_on,
                // The turn has ended early.
                None => self.let_others_run(DRIVER_QUANTUM).await,
            }
        };
        if let (true, Some(drain)) = (pended, &self.drain) {
            drain.resumed();
        }
        self.turns.was_parked(self.all.live.of_other(self.number));
        Ok(goes_on)
    }

    fn poll_sleep(
        &mut self,
        context: &Context<'_>,
        pended: &mut bool,
    ) -> Poll<Result<Option<bool>, Ending>> {
        let poll = self.poll_parked(context);
        if let (true, false, Some(drain)) = (poll.is_pending(), *pended, &self.drain) {
            drain.parked();
        }
        *pended |= poll.is_pending();
        poll
    }

    fn poll_parked(&mut self, context: &Context<'_>) -> Poll<Result<Option<bool>, Ending>> {
        let (herd, number) = (&self.all.herd, self.number);
        let standing = self.placement.turn_parked_of(herd, number, context);
        // Registered, then looked.
        if self.all.is_over() {
            return Poll::Ready(Ok(Some(false)));
        }
        match standing {
            Err(violation) => Poll::Ready(Err(Ending::Violation(violation))),
            Ok(standing) => match standing.ended {
                Ended::Stopped => Poll::Ready(Ok(Some(false))),
                Ended::Spent => Poll::Ready(Ok(None)),
                Ended::Done if standing.has_news => Poll::Ready(Ok(Some(true))),
                Ended::Done if standing.is_stuck => Poll::Ready(Err(Ending::Deadlock)),
                Ended::Done => Poll::Pending,
            },
        }
    }

    /// As with the first processor.
    async fn let_sinks_catch_up(&mut self) {
        let Some(drain) = &self.drain else {
            return;
        };
        poll_fn(|context| {
            self.all.herd.register(self.number, context.waker());
            // Registered, then looked.
            match self.all.is_over() {
                true => Poll::Ready(()),
                false => drain.poll_room(context),
            }
        })
        .await;
    }

    async fn let_others_run(&mut self, after: Duration) {
        if self.turns.is_long(self.all.quantum.min(after)) {
            self.give_way().await;
        }
    }

    async fn give_way(&mut self) {
        tokio::task::yield_now().await;
        self.turns.begin();
    }
}
