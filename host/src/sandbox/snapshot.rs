//! A template is taken of a sandbox that is parked, and a sandbox goes on where a template stands.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use wakebox_abi::entry::Token;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::op::Request;

use super::{Handle, Sandbox};
use crate::driver::Violation;
use crate::error::{Error, Result};
use crate::ops;
use crate::template::{DriverStand, Left, Open, OpenList, SnapshotError, Stand, Template, When};

/// What a sandbox begins with that does not begin at the guest's entry.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) left: Left,
    pub(super) in_flight: Vec<(Token, Request)>,
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
        if self.processors.is_some() {
            return true;
        }
        let quiet = self.quiet();
        quiet.is_some_and(|quiet| self.live.requests.has(quiet.guest_asks))
    }

    /// `None` while something is in flight that ends by itself soon.
    fn quiet(&mut self) -> Option<Quiet> {
        let call_queue = self.call_queue.clone();
        let traced = self.control.load(Word::TraceHead, Ordering::Relaxed);
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
                    taken: driver.taken(),
                    published: driver.published(),
                    traced,
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
        if self.processors.is_some() {
            while let Some(request) = requests.next(true) {
                request.answer(Err(SnapshotError::Processors));
                requests.tell_guest();
            }
            return;
        }
        self.placement.with(|driver| driver.pause(true));
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
        self.placement.with(|driver| driver.pause(false));
        if let Some(poller) = self.placement.poller() {
            poller.notify();
        }
    }

    async fn take_template(&mut self, left: Left, driver: DriverStand) -> Result<Template> {
        let machine = self.machine.state()?;
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
    /// never taken. The request is there as soon as this returns, before the future is polled: called
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
