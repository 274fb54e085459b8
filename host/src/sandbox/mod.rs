//! The life of a sandbox: built, run, ended.
//!
//! [`Builder`] holds the settings, `create.rs` makes the machine of them, `instance.rs`
//! what sets it apart from others of its template, `run.rs` enters the guest
//! and sees to what it was left for, `serve.rs` has its submissions done and parks it, `detach.rs`
//! gives the machine of one that is parked to another,
//! `processors.rs` runs those beside the first, if there are several,
//! `termination.rs` tells how it ended, and `postmortem.rs` what is found out about it then.
//! [`Handle`] is the sandbox as it is seen from beside.

mod allocations;
mod builder;
mod cpu_time;
mod create;
#[cfg(feature = "gdb")]
mod debugger;
mod detach;
mod handle;
mod instance;
mod postmortem;
mod processors;
mod room;
mod run;
mod running;
mod serve;
mod snapshot;
mod tasks;
mod termination;
mod turns;

use std::sync::{Arc, Weak};
use std::time::Duration;

use wakebox_abi::memory::MappedControl;
use wakebox_abi::wake::Mode;
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::machines::Lent;
use wakebox_vmm::memory::{GuestMemory, Shared};

pub use self::allocations::Allocation;
pub use self::builder::{Builder, Guest};
pub use self::handle::Handle;
use self::handle::Live;
use self::processors::Processors;
pub use self::room::Room;
pub use self::running::Running;
use self::snapshot::Resume;
use self::turns::Turns;
use crate::calls::guest::{CallQueue, Caller};
use crate::calls::help::Help;
use crate::calls::host::Callables;
use crate::debug::symbols::Symbols;
use crate::driver::placement::Placement;
use crate::error::LostOutput;
use crate::limits::Limits;
use crate::loader::Image;
use crate::observe::{Drain, Recorder, Tracing};
use crate::ops::TokioBackend;
use crate::pulse::Pulse;
use crate::stdio::{Console, Stdin};
use crate::tasks::Task;
use crate::telemetry::{ExitTelemetry, Telemetry};

/// How long a guest may compute before others get a turn, unless it is said.
const QUANTUM: Duration = Duration::from_millis(2);

/// As many times as a guest has its turn in a row without that others want theirs, it has half a quantum
/// after they did: what a neighbour does takes several turns.
const SHARED_TURNS: u32 = 16;

/// Who is back sooner after it let others run has let nobody run: a runtime looks for others meanwhile.
const NOBODY: Duration = Duration::from_micros(20);

/// How long its driver may work before others get a turn. Shorter: work for a guest is done in small
/// pieces anyway, and what a neighbour does takes several turns.
const DRIVER_QUANTUM: Duration = Duration::from_micros(500);

/// A virtual machine with its guest, ready to run.
#[derive(Debug)]
pub struct Sandbox {
    /// Where the guest came from, if that is known.
    name: Option<String>,
    image: Image,
    symbols: Arc<Symbols>,
    /// What a debugger is told that ended the guest.
    signal: i32,
    clocks: Clocks,
    memory: Arc<GuestMemory>,
    control: Shared<MappedControl>,
    placement: Placement<TokioBackend>,
    /// Those besides the first, if there are any.
    processors: Option<Arc<Processors>>,
    /// The processor that has ended it.
    ender: u32,
    mode: Mode,
    /// What it begins with, if it does not begin at the guest's entry.
    resume: Option<Resume>,
    tracing: Option<Tracing>,
    telemetry: Telemetry,
    exits: ExitTelemetry,
    quantum: Duration,
    /// For how many turns more it is taken to share its thread.
    shares: u32,
    limits: Limits,
    ended: bool,
    /// Whether the guest could not give its machine away when it slept last.
    keeps_machine: bool,
    /// Those of the first processor.
    turns: Turns,
    live: Arc<Live>,
    callables: Callables,
    call_queue: Arc<CallQueue>,
    console: Console,
    stdin: Stdin,
    /// What did not arrive of the guest's output, known at the end.
    lost: Vec<LostOutput>,
    /// What its tasks waited for when it was stopped.
    tasks: Vec<Task>,
    /// Whether it is dropped as soon as it has ended, before anybody could ask it for something.
    is_alone: bool,
    /// Who has connected to look at it, until it begins.
    #[cfg(feature = "gdb")]
    gdb: Option<crate::Gdb>,
    #[cfg(feature = "gdb")]
    debugger: Option<debugger::Debugger>,
    // Dropped last: nobody else here has its memory then, and it can be made ready for the next guest.
    machine: Lent,
}

impl Sandbox {
    /// Settings to begin with.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What calls functions that the guest exports. They are answered while the sandbox runs.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let is_alone = self.processors.is_none();
        let poller = self.placement.poller();
        let poller = poller.filter(|_| self.mode == Mode::Poll && is_alone);
        let helper = poller.map(|poller| {
            let poller: Weak<dyn Help> = Arc::downgrade(poller) as _;
            poller
        });
        Caller::new(self.call_queue.clone(), helper)
    }

    /// Where its rings stand, to be looked at from elsewhere when nothing seems to move.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse {
            memory: self.memory.clone(),
            ready: self.placement.ready().clone(),
            poller: self.placement.poller().cloned(),
            call_queue: self.call_queue.clone(),
        }
    }

    /// Its number: from 1 on, in the order in which this process built its sandboxes. As in the span
    /// that [`telemetry`](crate::telemetry) describes.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.telemetry.id()
    }

    /// Why a sink of the trace got no more events, if that happened. Known when the run has ended.
    #[must_use]
    pub fn trace_error(&self) -> Option<&std::io::Error> {
        self.tracing.as_ref()?.error.as_ref()
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.tracing.as_ref().map(Tracing::recorder)
    }

    /// Who watches the first processor.
    fn drain(&self) -> Option<&Drain> {
        self.tracing.as_ref().map(|tracing| &tracing.drain)
    }

    /// Drops every operation in flight and every open resource, here or, if they are many, soon after on
    /// a thread for blocking calls. A copy in a child after `fork` leaves
    /// alone what is its parent's, and what a thread of its parent's may have held.
    fn close(&mut self) {
        if !self.machine.is_of_this_process() {
            return;
        }
        self.live.keep_guest_counts(&self.memory);
        self.placement.close();
        self.console.close();
        self.stdin.close();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}
