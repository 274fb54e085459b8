//! A template is taken of a sandbox that is parked, and a sandbox goes on where a template stands.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use wakebox_abi::entry::Token;
use wakebox_abi::op::Request;
use wakebox_abi::wake::Mode;

use super::{Handle, Sandbox};
use crate::driver::{Driver, Violation};
use crate::error::{Error, Result};
use crate::limits::{LimitKind, Limits};
use crate::template::{DriverStand, Left, Open, OpenList, SnapshotError, Stand, Template, When};
use crate::{ops, units};

/// What a sandbox begins with that does not begin at the guest's entry.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) left: Left,
    /// How each further processor was left that had begun.
    pub(super) others: Box<[Option<Left>]>,
    pub(super) in_flight: Vec<(Token, Request)>,
}

/// Sees that nothing is asked for that a template has settled.
pub(super) fn as_it_stands(
    stand: &Stand,
    mode: Option<Mode>,
    (arena, stack, processors): (Option<u64>, Option<u64>, Option<u32>),
    limits: &Limits,
) -> Result<()> {
    let plan = stand.memory.plan();
    let settled = |what: String| {
        Err(Error::Setting(format!(
            "{what}: the template has settled that"
        )))
    };
    if let Some(mode) = mode.filter(|mode| *mode != stand.mode) {
        return settled(format!("the wake mode is {}, not {mode}", stand.mode));
    }
    let memory = limits.value(LimitKind::Memory);
    if limits.is_set(LimitKind::Memory) && memory < plan.memory {
        return settled(format!(
            "the guest has {} of memory, not {}",
            units::bytes(plan.memory),
            units::bytes(memory)
        ));
    }
    let in_flight = limits.count(LimitKind::InFlight);
    if limits.is_set(LimitKind::InFlight) && in_flight < plan.completion_entries {
        return settled(format!(
            "the guest may have {} operations in flight, not {in_flight}",
            plan.completion_entries
        ));
    }
    if arena.is_some_and(|arena| arena != plan.arena.len) {
        return settled("the arena has another size".into());
    }
    if stack.is_some_and(|stack| stack != plan.stack.len) {
        return settled("the stack has another size".into());
    }
    if let Some(processors) = processors.filter(|processors| *processors != plan.processors()) {
        return settled(format!(
            "the guest has {} processors, not {processors}",
            plan.processors()
        ));
    }
    let (has, granted) = (plan.processors(), limits.count(LimitKind::Processors));
    if has > granted {
        return Err(Error::Setting(format!(
            "the guest of this template has {has} processors, and {granted} is the limit: grant them with \
             `Limits::processors` (`--limit processors={has}`)"
        )));
    }
    Ok(())
}

/// What stands between a parked guest and a template of it.
struct Quiet {
    /// Whether the guest asks for one.
    guest_asks: bool,
    /// Nothing of it can go on in another sandbox.
    open: Vec<(&'static str, usize)>,
    stand: DriverStand,
}

impl Sandbox {
    /// Whether a template can be taken of the guest, which is parked and has nothing to do. If not, the
    /// task is woken when somebody asks for one, or when more of what is in flight has ended.
    pub(super) fn poll_snapshot(&mut self, context: &Context<'_>) -> bool {
        if !self.live.requests.any_else_wake(context) {
            return false;
        }
        if !self
            .placement
            .with(|driver| driver.guest_sleeps_else_wake())
        {
            return false;
        }
        let quiet = self.quiet();
        quiet.is_some_and(|quiet| self.live.requests.has(quiet.guest_asks))
    }

    /// `None` while something is in flight that ends by itself soon.
    fn quiet(&mut self) -> Option<Quiet> {
        let call_queue = self.call_queue.clone();
        self.placement.with(|driver| {
            let mut open = Vec::new();
            for what in driver.backend.handles.open_kinds() {
                count(&mut open, what, 1);
            }
            let mut guest_asks = false;
            for (_, request) in driver.inflight.requests() {
                match ops::after_restore(&request) {
                    ops::AfterRestore::GoesOn => {}
                    ops::AfterRestore::Asks => guest_asks = true,
                    ops::AfterRestore::EndsSoon => return None,
                    // One on a handle is counted with that.
                    ops::AfterRestore::Ends(None) => {}
                    ops::AfterRestore::Ends(Some(what)) => count(&mut open, what, 1),
                }
            }
            let (next_call, calls) = call_queue.stand();
            count(&mut open, "calls of the guest that are not answered", calls);
            Some(Quiet {
                guest_asks,
                open,
                stand: DriverStand {
                    rings: driver.stood(),
                    in_flight: driver.inflight.requests().collect(),
                    handles: driver.backend.handles.uses(),
                    next_call,
                },
            })
        })
    }

    /// Takes templates for all who want one, as long as the guest is parked and has nothing to do.
    pub(super) async fn answer_snapshots(&mut self, left: Left) {
        let requests = self.live.requests.clone();
        if !self.placement.with(Driver::pause) {
            return;
        }
        while let Some(quiet) = self.quiet()
            && let Some(request) = requests.next(quiet.guest_asks)
        {
            let answer = if quiet.open.is_empty() || request.open == Open::End {
                let taken = self.take_template(left, quiet.stand).await;
                taken.map_err(|error| match error {
                    Error::Ended => SnapshotError::Ended,
                    error => SnapshotError::Host(error),
                })
            } else {
                Err(SnapshotError::Open(OpenList(quiet.open)))
            };
            request.answer(answer);
            requests.tell_guest();
        }
        self.placement.with(Driver::go_on);
        if let Some(poller) = self.placement.poller() {
            poller.notify_beside();
        }
    }

    async fn take_template(&mut self, left: Left, driver: DriverStand) -> Result<Template> {
        self.others_come_back();
        let machine = self.machine.state();
        self.others_go_on();
        let machine = machine?;
        let memory = self.memory.clone();
        // It is as much as the guest has touched.
        let mut frozen = tokio::task::spawn_blocking(move || {
            let _stay = memory.stay();
            memory.freeze()
        });
        // Who ends the sandbox meanwhile does not wait for it: the thread has the memory as long as it
        // reads.
        let stop = self.live.stop.clone();
        let frozen = poll_fn(|context| match stop.why_else_wake(context) {
            Some(_) => Poll::Ready(None),
            None => Pin::new(&mut frozen).poll(context).map(Some),
        });
        let memory = match frozen.await {
            Some(Ok(memory)) => memory?,
            Some(Err(_)) | None => return Err(Error::Ended),
        };
        let stand = Stand {
            memory,
            machine,
            left,
            others: self
                .processors
                .as_ref()
                .map_or_else(Box::default, |processors| processors.left()),
            mode: self.mode,
            has_counter: self.clocks.has_counter(),
            elapsed: self.clocks.start().elapsed(),
            driver,
        };
        let name = self.name.clone();
        let (image, symbols) = (self.image.clone(), self.symbols.clone());
        Ok(Template::standing(name, image, symbols, stand))
    }

    /// Begins again what was in flight where the sandbox begins.
    pub(super) fn resume(&mut self, resume: Resume) -> Result<(), Violation> {
        let in_flight = resume.in_flight;
        self.placement
            .with(|driver| driver.begin_again(&in_flight))?;
        // The guest looks around at once: it may wait for nothing but having been restored.
        if resume.left == Left::Halt {
            self.machine.vcpu_mut().interrupt();
        }
        if let Some(processors) = &self.processors {
            processors.resume(&resume.others);
        }
        Ok(())
    }
}

fn count(open: &mut Vec<(&'static str, usize)>, what: &'static str, more: usize) {
    if more == 0 {
        return;
    }
    match open.iter_mut().find(|(known, _)| *known == what) {
        Some((_, count)) => *count += more,
        None => open.push((what, more)),
    }
}

impl Handle {
    /// A [`Template`] of the sandbox as it is when its guest is parked next, or when it asks, and
    /// nothing is under way that ends by itself. The sandbox goes on as if nothing had happened.
    ///
    /// It is taken while the guest is parked and not while it computes: a guest that never waits is
    /// never taken, nor is one of whose processors there is always one that does not. The request is there as soon as this returns, before the future is polled: called
    /// before the sandbox is started, it is there before the guest asks. Dropping the future takes the
    /// request back.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn snapshot(
        &self,
        when: When,
        open: Open,
    ) -> impl Future<Output = Result<Template, SnapshotError>> + Send + use<> {
        let answered = self.live.requests.push(when, open);
        async move { answered.await.unwrap_or(Err(SnapshotError::Ended)) }
    }
}
