//! A sandbox as it is seen from beside its run.

use std::sync::{Arc, OnceLock, Weak};

use wakebox_abi::wake::Mode;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::signal::RunPage;

use super::Sandbox;
use super::tasks::Asked;
use crate::account::Account;
use crate::calls::Slot;
use crate::calls::guest::Caller;
use crate::meter::Meter;
use crate::observe::OpCounts;
use crate::policy::check::Guard;
use crate::stats::{Exits, GuestCounts, RunCounts, Stats, guest_counts};
use crate::stop::{Stop, Why};
use crate::template::requests::Requests;

/// What is counted of a sandbox, and what ends it.
#[derive(Debug)]
pub(super) struct Live {
    mode: Mode,
    pub(super) stop: Arc<Stop<RunPage>>,
    pub(super) run: RunCounts,
    /// The same of each processor but the first.
    others: Box<[RunCounts]>,
    pub(super) operations: Arc<OpCounts>,
    pub(super) policy: Arc<Guard>,
    pub(super) meter: Arc<Meter>,
    /// Who wants a template.
    pub(super) requests: Arc<Requests>,
    /// Who wants to know what the tasks wait for.
    pub(super) asked: Asked,
    account: Account,
    /// Weak: whoever keeps a handle after the end does not keep the guest's memory.
    memory: Weak<GuestMemory>,
    /// What the guest had counted when its sandbox was dropped.
    last: OnceLock<GuestCounts>,
}

impl Live {
    pub(super) fn new(
        mode: Mode,
        memory: &Arc<GuestMemory>,
        stop: Arc<Stop<RunPage>>,
        policy: Arc<Guard>,
        meter: Arc<Meter>,
        account: Account,
    ) -> Self {
        Self {
            mode,
            stop,
            run: RunCounts::default(),
            others: (1..memory.plan().processors())
                .map(|_| RunCounts::default())
                .collect(),
            operations: Arc::default(),
            policy,
            meter,
            requests: Arc::default(),
            asked: Asked::default(),
            account,
            memory: Arc::downgrade(memory),
            last: OnceLock::new(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let refused = self.policy.refusals();
        let guest = match (self.last.get(), self.memory.upgrade()) {
            (Some(last), _) => *last,
            (None, Some(memory)) => counted_by_guest(&memory),
            (None, None) => GuestCounts::default(),
        };
        Stats {
            mode: self.mode,
            exits: self.exits(),
            interrupts: self.all().map(|run| run.interrupts.get()).sum(),
            operations: Stats::name_operations(&self.operations),
            refusals: refused.iter().map(|(_, count)| count).sum(),
            refused,
            bytes: self.meter.bytes(),
            host_memory: self.account.kept(),
            host_memory_peak: self.account.peak(),
            guest,
            detached: self.run.detached.get(),
            in_guest: self.all().map(|run| run.in_guest.time()).sum(),
            in_host: self.all().map(|run| run.in_host.time()).sum(),
            parked: self.all().map(|run| run.parked.time()).sum(),
        }
    }

    /// Exits of all processors.
    pub(super) fn exits(&self) -> Exits {
        self.all().map(RunCounts::exits).sum()
    }

    /// What is counted of a processor that is not the first.
    pub(super) fn of_other(&self, processor: u32) -> &RunCounts {
        &self.others[processor as usize - 1]
    }

    fn all(&self) -> impl Iterator<Item = &RunCounts> {
        std::iter::once(&self.run).chain(&self.others)
    }

    /// Keeps what the guest has counted beyond its memory.
    pub(super) fn keep_guest_counts(&self, memory: &Arc<GuestMemory>) {
        let _ = self.last.set(counted_by_guest(memory));
    }
}

/// What the processors of a guest say of themselves, in all.
fn counted_by_guest(memory: &GuestMemory) -> GuestCounts {
    let processors = 0..memory.plan().processors();
    guest_counts(processors.map(|processor| memory.control_page_of(processor)))
}

/// A sandbox from beside, while it runs and after: ends it, looks at its numbers, calls its guest.
/// Clones are about the same one. It keeps neither the guest nor its memory.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) live: Arc<Live>,
    caller: Caller,
    /// Weak: the value is the sandbox's.
    context: Weak<Slot>,
}

impl Handle {
    /// Ends the sandbox: its run returns [`Outcome::Cancelled`](crate::Outcome::Cancelled), whether
    /// the guest computes, is parked, waits for a host function, or has not started. Does nothing
    /// after the end.
    ///
    /// The guest executes nothing more from then on, and the tasks of host functions are aborted:
    /// their runtime drops the futures. What blocks goes on elsewhere: a call that is under way on a
    /// thread for blocking calls runs to its end there, and what it gives is dropped; a host function
    /// that blocks inside its `poll` holds up its thread, and the run only if that has no other.
    pub fn kill(&self) {
        self.live.stop.end(Why::Killed);
    }

    /// What the sandbox has done so far. While it runs, the numbers are of moments that lie close
    /// together, not of one.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.live.stats()
    }

    /// Says what the sandbox is used for from now on, in place of what was said before: a request's number, a
    /// tenant. Host functions find it by its type with [`HostContext::context`](crate::HostContext::context), if
    /// their call begins later; the guest learns nothing of it. Dropped with the sandbox; does nothing after that.
    pub fn set_context<T: Send + Sync + 'static>(&self, value: T) {
        if let Some(context) = self.context.upgrade() {
            context.set(value);
        }
    }

    /// What calls functions that the guest exports.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Sandbox {
    /// The sandbox from beside: what ends it, tells its numbers and calls its guest while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            live: self.live.clone(),
            caller: self.caller(),
            context: Arc::downgrade(self.callables.context()),
        }
    }

    /// As [`Self::handle`], by its former name.
    #[deprecated = "it is `handle` now"]
    #[must_use]
    pub fn kill_handle(&self) -> Handle {
        self.handle()
    }

    /// What the sandbox has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.live.stats()
    }
}
