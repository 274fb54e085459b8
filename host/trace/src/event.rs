//! What a trace is made of.

mod exit;
mod ids;
mod status;

use serde::{Deserialize, Serialize};
use wakebox_abi::status::Status;

pub use self::exit::ExitReason;
pub use self::ids::{OpId, OpKind, TaskId, TimerId};

/// Which side of the boundary saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The guest. The host only passes on what it says.
    Guest,
    /// The host.
    Host,
}

/// Why a waker was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The task woke itself.
    Itself,
    /// Another task did.
    Task(TaskId),
    /// The completion of an operation.
    Op(OpId),
    /// The embedding program called: the completion of that operation brought the call.
    HostCall(OpId),
    /// A timer was due.
    Timer(TimerId),
    /// An interrupt was taken.
    Interrupt,
    /// A waker was used where no task of the guest is polled.
    Elsewhere,
    /// The guest found itself restored from a template.
    Restored,
    /// The guest's runtime, or something of which the trace does not know: records were lost.
    Unknown,
}

/// What a pending task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Awaited {
    /// An operation of the host.
    Op(OpId),
    /// A call by the embedding program, which is to arrive as the completion of this operation.
    HostCall(OpId),
    /// A timer.
    Timer(TimerId),
    /// The end of another task.
    Task(TaskId),
    /// A slot among the operations in flight.
    #[serde(rename = "line")]
    Slot,
    /// That the guest is restored from a template.
    Restored,
    /// Something of the guest's own making: a channel, a lock, a future written by hand.
    Unknown,
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollResult {
    /// The task is done.
    Ready,
    /// It is not.
    Pending {
        /// The first thing in this poll that the guest's library was asked to wait for. `None`: there
        /// was none, so the task waits for something of its own making, or for what it waited
        /// for before.
        on: Option<Awaited>,
        /// How many other things there were.
        and: u16,
    },
}

/// A verb of the guest's doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doorbell {
    /// "There are submissions."
    Submit,
    /// "Nothing to do until a completion arrives."
    Wait,
    /// "I am done."
    Exit,
    /// "I panicked."
    Abort,
    /// "Let another processor begin."
    Start,
    /// "Wake another processor."
    Nudge,
    /// A port that is none.
    Unknown,
}

/// How a guest with nothing to do passes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// It watches the completion ring.
    Watch,
    /// It leaves with `out`.
    Out,
    /// It halts in ring 0.
    Halt,
}

/// What ended that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Roused {
    /// A completion seen in memory.
    Memory,
    /// The return of `out`.
    Out,
    /// An interrupt.
    Interrupt,
    /// The time of a timer.
    Timer,
    /// Nothing: it gave up watching, and sleeps in another way.
    Nothing,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds since the sandbox was made. One clock for both sides: the
    /// time-stamp counter.
    pub time: u64,
    /// Who saw it.
    pub side: Side,
    /// On which of the guest's processors, or for which: their number, from 0. That also of what is of none of them.
    #[serde(default, skip_serializing_if = "is_first")]
    pub processor: u32,
    /// What it was.
    pub kind: EventKind,
}

/// What files leave out: most guests have one processor.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_first(processor: &u32) -> bool {
    *processor == 0
}

impl Event {
    /// Something on the first processor.
    #[must_use]
    pub const fn new(time: u64, side: Side, kind: EventKind) -> Self {
        Self {
            time,
            side,
            processor: 0,
            kind,
        }
    }

    /// The same, on another one.
    #[must_use]
    pub fn on(self, processor: u32) -> Self {
        Self { processor, ..self }
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_one(processors: &u32) -> bool {
    *processors == 1
}

/// What happened. The table in the [module's documentation](super) is the overview.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The trace begins, before the guest's first instruction.
    Started {
        /// How the guest is told to sleep: `out`, `irq`, `poll` or `auto`.
        mode: String,
        /// The guest's file, if it has one.
        guest: Option<String>,
        /// How many processors it has.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        processors: u32,
    },
    /// The sandbox was made of a template: its guest goes on where another was parked. Follows
    /// [`Self::Started`].
    Restored {
        /// What the guest's monotonic clock shows, in nanoseconds: how long it had been there before.
        clock: u64,
    },

    // The guest's executor ------------------------------------------------------------
    /// A task was made; its first poll needs no wake.
    Spawned {
        /// Its number.
        task: TaskId,
        /// Who made it; `None` for the runtime.
        by: Option<TaskId>,
        /// Its name: one that it was given, else that of its future's type. May be any text.
        name: String,
        /// Where in the source, as `file:line:column`, if known.
        #[serde(rename = "place")]
        location: Option<String>,
    },
    /// A task that began when nobody watched: in the sandbox of which the template was made.
    Lives {
        /// Its number.
        task: TaskId,
        /// Its name, as in [`Self::Spawned`].
        name: String,
    },
    /// A poll begins.
    PollBegin {
        /// Of which task.
        task: TaskId,
    },
    /// A poll ends.
    PollEnd {
        /// Of which task.
        task: TaskId,
        /// How.
        result: PollResult,
    },
    /// A waker was cloned.
    Cloned {
        /// The task that it wakes.
        task: TaskId,
        /// The task that was being polled; `None` for the runtime.
        by: Option<TaskId>,
    },
    /// A waker was called.
    Woken {
        /// The task that it wakes.
        task: TaskId,
        /// Why.
        by: Cause,
        /// Whether this put the task into the run queue; it was there already if not.
        queued: bool,
        /// Whether the waker was used up (`wake`, not `wake_by_ref`).
        consumed: bool,
    },
    /// A waker was dropped without having been called.
    Dropped {
        /// The task that it would have woken.
        task: TaskId,
        /// The task that was being polled; `None` for the runtime.
        by: Option<TaskId>,
    },
    /// A task has no future any more.
    Ended {
        /// Which.
        task: TaskId,
        /// Whether the future was dropped before it was ready.
        aborted: bool,
    },
    /// A timer was set.
    TimerSet {
        /// Its number.
        timer: TimerId,
        /// By which task; `None` for the runtime.
        by: Option<TaskId>,
        /// When it is due: nanoseconds since the sandbox was made, by the guest's monotonic clock,
        /// which differs from that of the trace by some parts in a million.
        at: u64,
    },
    /// Nothing is left to do.
    Sleeps {
        /// How the time is passed.
        how: Idle,
    },
    /// There may be something to do again.
    Awake {
        /// What ended the sleep.
        by: Roused,
    },
    /// Urgent tasks have their turn, and what the guest does waits. They end in the other order.
    UpcallBegin {
        /// The task whose poll is under way; `None` for the runtime.
        task: Option<TaskId>,
        /// Whether an interrupt began it, at any instruction. If not, the guest was at a place of its own.
        interrupted: bool,
    },
    /// They have had it.
    UpcallEnd {
        /// The task whose poll goes on; `None` for the runtime.
        task: Option<TaskId>,
    },
    /// An interrupt was noticed to have been taken.
    InterruptTaken {
        /// Interrupts taken since the start.
        count: u32,
    },

    // Operations ----------------------------------------------------------------------
    /// The guest put an operation into the submission ring.
    Submitted {
        /// Its number.
        op: OpId,
        /// Its kind.
        what: OpKind,
        /// Bytes of its buffers.
        bytes: u32,
        /// For which task; `None` for the runtime.
        by: Option<TaskId>,
    },
    /// The guest dropped the future of an operation in flight, and asks for its end.
    CancelAsked {
        /// Which operation.
        op: OpId,
        /// The task that was being polled; `None` for the runtime.
        by: Option<TaskId>,
    },
    /// The host took an operation out of the ring and began it.
    OpBegins {
        /// Which.
        op: OpId,
        /// Its kind.
        what: OpKind,
        /// Bytes of its buffers.
        bytes: u32,
    },
    /// What an operation waits for on the host has come: its future there was woken ("the socket is
    /// readable").
    OpReady {
        /// Which.
        op: OpId,
    },
    /// The host is done with an operation.
    OpEnds {
        /// Which.
        op: OpId,
        /// Its kind.
        what: OpKind,
        /// How it ended.
        #[serde(with = "status")]
        status: Status,
        /// What it gave: a handle, a count, zero.
        value: u32,
        /// The same as bytes that were moved, if it moves any.
        bytes: Option<u32>,
    },
    /// The completion stands in the ring, where the guest can see it.
    CompletionWritten {
        /// Of which operation.
        op: OpId,
    },

    // The boundary --------------------------------------------------------------------
    /// The guest rings a doorbell.
    Doorbell {
        /// Its verb.
        verb: Doorbell,
    },
    /// The guest was left.
    Exited {
        /// Why.
        reason: ExitReason,
    },
    /// The guest is entered, for the first time or again.
    Entered,
    /// An interrupt is injected.
    InterruptInjected,
    /// The sandbox waits and holds no thread.
    Parked,
    /// It goes on.
    Resumed,
    /// The sandbox, which is parked, has given its machine to another.
    Detached,
    /// It has a machine again.
    Attached,

    // The end, and what went wrong ------------------------------------------------------
    /// Records of the guest found no room in the ring, or events of the host no memory, at this place.
    Lost {
        /// How many.
        count: u64,
    },
    /// The guest wrote something that is no record.
    Malformed {
        /// How many records in a row.
        count: u64,
        /// What is wrong with them.
        why: String,
    },
    /// The sandbox has ended. Nothing follows.
    Finished {
        /// How, as a sentence.
        outcome: String,
        /// The exit status that `wakebox run` would have; 1 if the host failed.
        status: u8,
        /// Records and events lost in all.
        lost: u64,
        /// Records without meaning in all.
        malformed: u64,
    },
}

/// Where an event is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// The host's driver.
    Host,
    /// What crosses from one side to the other.
    Boundary,
    /// The guest's executor.
    Executor,
    /// A task.
    Task(TaskId),
}

impl EventKind {
    /// Bytes of its texts, which lie beside it on the heap.
    pub(crate) fn text_len(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Started { mode, guest, .. } => mode.len() + len(guest),
            Self::Spawned { name, location, .. } => name.len() + len(location),
            Self::Lives { name, .. } => name.len(),
            Self::Malformed { why: text, .. } | Self::Finished { outcome: text, .. } => text.len(),
            _ => 0,
        }
    }

    /// The word for it, as in files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Restored { .. } => "restored",
            Self::Spawned { .. } => "spawned",
            Self::Lives { .. } => "lives",
            Self::PollBegin { .. } => "poll_begin",
            Self::PollEnd { .. } => "poll_end",
            Self::Cloned { .. } => "cloned",
            Self::Woken { .. } => "woken",
            Self::Dropped { .. } => "dropped",
            Self::Ended { .. } => "ended",
            Self::TimerSet { .. } => "timer_set",
            Self::Sleeps { .. } => "sleeps",
            Self::Awake { .. } => "awake",
            Self::UpcallBegin { .. } => "upcall_begin",
            Self::UpcallEnd { .. } => "upcall_end",
            Self::InterruptTaken { .. } => "interrupt_taken",
            Self::Submitted { .. } => "submitted",
            Self::CancelAsked { .. } => "cancel_asked",
            Self::OpBegins { .. } => "op_begins",
            Self::OpReady { .. } => "op_ready",
            Self::OpEnds { .. } => "op_ends",
            Self::CompletionWritten { .. } => "completion_written",
            Self::Doorbell { .. } => "doorbell",
            Self::Exited { .. } => "exited",
            Self::Entered => "entered",
            Self::InterruptInjected => "interrupt_injected",
            Self::Parked => "parked",
            Self::Resumed => "resumed",
            Self::Detached => "detached",
            Self::Attached => "attached",
            Self::Lost { .. } => "lost",
            Self::Malformed { .. } => "malformed",
            Self::Finished { .. } => "finished",
        }
    }

    /// The task that it is about.
    #[must_use]
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::Spawned { task, .. }
            | Self::Lives { task, .. }
            | Self::PollBegin { task }
            | Self::PollEnd { task, .. }
            | Self::Cloned { task, .. }
            | Self::Woken { task, .. }
            | Self::Dropped { task, .. }
            | Self::Ended { task, .. } => Some(*task),
            Self::UpcallBegin { task, .. } | Self::UpcallEnd { task } => *task,
            Self::TimerSet { by, .. }
            | Self::Submitted { by, .. }
            | Self::CancelAsked { by, .. } => *by,
            _ => None,
        }
    }

    /// The operation that it is about. That of a wake is in its [`Cause`].
    #[must_use]
    pub const fn op(&self) -> Option<OpId> {
        match self {
            Self::Submitted { op, .. }
            | Self::CancelAsked { op, .. }
            | Self::OpBegins { op, .. }
            | Self::OpReady { op }
            | Self::OpEnds { op, .. }
            | Self::CompletionWritten { op } => Some(*op),
            _ => None,
        }
    }

    /// Where it is drawn.
    #[must_use]
    pub const fn track(&self) -> Track {
        match self {
            Self::OpBegins { .. }
            | Self::OpReady { .. }
            | Self::OpEnds { .. }
            | Self::CompletionWritten { .. }
            | Self::Parked
            | Self::Resumed
            | Self::Detached
            | Self::Attached
            | Self::Started { .. }
            | Self::Restored { .. }
            | Self::Finished { .. } => Track::Host,
            Self::Doorbell { .. }
            | Self::Exited { .. }
            | Self::Entered
            | Self::InterruptInjected => Track::Boundary,
            _ => match self.task() {
                Some(task) => Track::Task(task),
                None => Track::Executor,
            },
        }
    }
}
