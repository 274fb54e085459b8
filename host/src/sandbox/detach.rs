//! A guest that sleeps gives its machine to another guest, and takes one when it is woken.
//!
//! That is the executor's idea one floor down: a virtual machine is to sandboxes what a worker thread is
//! to tasks. What is left of a sandbox without a machine is this value, its driver with what is in
//! flight, and the pages that its guest has written ([`Lent::detach`](wakebox_vmm::machines::Lent)).
//! Its driver takes no turns meanwhile: what becomes ready wakes the task that runs the sandbox, which
//! sees to a machine first.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Sandbox;
use crate::driver::Driver;
use crate::error::{Error, Result};

/// How long a guest sleeps at least before it is tried again, if it could not give its machine away:
/// it has much memory of its own.
const PATIENCE_IN_VAIN: Duration = Duration::from_millis(100);

/// How a guest has slept that was to give its machine away.
pub(super) enum Slept {
    /// Without one, which it has again.
    WithoutMachine,
    /// Not yet: another processor does not.
    OthersRun,
    /// Not yet: it keeps its own machine, and is to be waited for as ever.
    Not,
}

impl Sandbox {
    /// How long the guest may sleep before it gives its machine away. `None` is for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        let patience = self.machine.patience()?;
        Some(match self.keeps_machine {
            true => patience.max(PATIENCE_IN_VAIN),
            false => patience,
        })
    }

    /// The guest, which sleeps, gives its machine away and is woken with another.
    ///
    /// # Errors
    ///
    /// What the host could not do.
    pub(super) async fn sleep_without_machine(&mut self) -> Result<Slept> {
        if self.live.requests.are_any() {
            return Ok(Slept::Not);
        }
        if !self
            .placement
            .with(|driver| driver.guest_sleeps_else_wake())
        {
            return Ok(Slept::OthersRun);
        }
        if !self.detach()? {
            return Ok(Slept::Not);
        }
        poll_fn(|context| {
            let is_over = self.live.stop.why_else_wake(context).is_some();
            let is_wanted =
                self.live.requests.any_else_wake(context) | self.live.asked.any_else_wake(context);
            match is_over || is_wanted || self.placement.wants_machine_else_wake(context) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        self.attach()?;
        Ok(Slept::WithoutMachine)
    }

    fn detach(&mut self) -> Result<bool> {
        if !self.placement.with(Driver::detach) {
            return Ok(false);
        }
        self.others_come_back();
        let detached = self.machine.detach();
        self.keeps_machine = !matches!(detached, Ok(true));
        if self.keeps_machine {
            self.others_go_on();
            self.driver_goes_on();
        } else {
            self.live.run.detached.add(1);
            if let Some(recorder) = self.recorder() {
                recorder.detached();
            }
        }
        Ok(detached?)
    }

    /// The guest has a machine again, if it had none.
    ///
    /// # Errors
    ///
    /// What the host could not do.
    pub(super) fn attach(&mut self) -> Result<()> {
        if !self.machine.is_detached() {
            return Ok(());
        }
        self.machine.attach()?;
        if !self.machine.vcpus().all(|vcpu| self.clocks.go_on(vcpu)) {
            return Err(Error::Setting(
                "the guest tells the time by the processor's counter, which another machine shows \
                 otherwise"
                    .into(),
            ));
        }
        self.others_go_on();
        self.driver_goes_on();
        if let Some(recorder) = self.recorder() {
            recorder.attached();
        }
        Ok(())
    }

    /// The processors besides the first are in the machine, as long as all of them sleep.
    pub(super) fn others_come_back(&mut self) {
        if let Some(processors) = &self.processors {
            self.machine.give_back(processors.take_out());
        }
    }

    /// The tasks of those have them again, unless they were stopped.
    pub(super) fn others_go_on(&mut self) {
        if let Some(processors) = &self.processors
            && !processors.is_over()
        {
            processors.put_in(self.machine.take_others());
        }
    }

    fn driver_goes_on(&mut self) {
        self.placement.with(Driver::attach);
        if let Some(poller) = self.placement.poller() {
            poller.notify_beside();
        }
    }
}
