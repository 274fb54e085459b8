//! Makes events of host events and records: merges both by time, and finds out which operation a token
//! names and what a task is called.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{OVERFLOW, Opcode, Value};
use wakebox_abi::status::Status;
use wakebox_abi::trace::{self, Reason, Record, TEXT_MAX, Text, What};
use wakebox_abi::{layout, port};

use super::recorder::{Batch, HostEvent, KEPT, TraceClock};
use crate::trace::{
    Awaited, Cause, Doorbell, Event, EventKind, Idle, OpId, OpKind, PollResult, Roused, Side,
    TaskId, TimerId,
};

/// What is known of the operation that was last in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u32,
    /// Its number; zero if there was none.
    number: u64,
    opcode: u16,
    /// Whether it has ended, so that the next use of the slot is another operation, even if the
    /// guest keeps no generations.
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Assembler {
    clock: TraceClock,
    /// By slot; as many as the guest has used, at most those of the largest ring.
    slots: Vec<Slot>,
    operations: u64,
    /// Host events behind the horizon.
    held: Vec<(u64, HostEvent)>,
    name: Vec<u8>,
    location: Vec<u8>,
    /// Records without meaning since the last one that had some.
    nonsense: u64,
    lost: u64,
    malformed: u64,
    /// Time of the last event.
    last: u64,
}

impl Assembler {
    pub(super) fn new(clock: TraceClock) -> Self {
        Self {
            clock,
            slots: Vec::new(),
            operations: 0,
            held: Vec::new(),
            name: Vec::new(),
            location: Vec::new(),
            nonsense: 0,
            lost: 0,
            malformed: 0,
            last: 0,
        }
    }

    /// Gives out everything up to the horizon of a batch, and gives back its memory, empty.
    pub(super) fn assemble(&mut self, mut batch: Batch, give: &mut dyn FnMut(&Event)) -> Batch {
        let mut events = std::mem::take(&mut self.held);
        events.extend_from_slice(&batch.host);
        let later = events.partition_point(|(at, _)| *at <= batch.horizon);
        let mut due = events.drain(..later).peekable();
        for record in batch.guest.drain(..) {
            while let Some((at, event)) = due.next_if(|(at, _)| *at <= record.ticks()) {
                self.host_event(at, event, give);
            }
            self.record(record, give);
        }
        for (at, event) in due {
            self.host_event(at, event, give);
        }
        events.shrink_to(KEPT);
        self.held = events;
        self.tell_of_nonsense(give);
        if let Some(why) = batch.broken.take() {
            self.malformed += 1;
            self.give(
                Side::Guest,
                EventKind::Malformed {
                    count: 1,
                    why: format!("it broke the {why}; nothing more is read from it"),
                },
                give,
            );
        }
        self.lose(Side::Host, batch.lost, give);
        batch.recycled()
    }

    /// Gives out the last event.
    pub(super) fn finish(
        &mut self,
        outcome: String,
        status: u8,
        lost: u32,
        now: u64,
        give: &mut dyn FnMut(&Event),
    ) {
        // The guest's word counts modulo 2³², and it may have had no room to confess the last.
        let untold = lost.wrapping_sub(self.lost as u32);
        if untold < u32::MAX / 2 {
            self.lose(Side::Guest, untold.into(), give);
        }
        self.pass(now);
        let (lost, malformed) = (self.lost, self.malformed);
        self.give(
            Side::Host,
            EventKind::Finished {
                outcome,
                status,
                lost,
                malformed,
            },
            give,
        );
    }

    fn pass(&mut self, ticks: u64) {
        self.last = self.last.max(self.clock.nanos(ticks));
    }

    fn give(&self, side: Side, kind: EventKind, give: &mut dyn FnMut(&Event)) {
        let time = self.last;
        give(&Event { time, side, kind });
    }

    fn lose(&mut self, side: Side, count: u64, give: &mut dyn FnMut(&Event)) {
        if count > 0 {
            self.lost = self.lost.saturating_add(count);
            self.give(side, EventKind::Lost { count }, give);
        }
    }

    fn tell_of_nonsense(&mut self, give: &mut dyn FnMut(&Event)) {
        let count = std::mem::take(&mut self.nonsense);
        if count > 0 {
            self.malformed += count;
            let why = trace::Unknown.to_string();
            self.give(Side::Guest, EventKind::Malformed { count, why }, give);
        }
    }

    // Operations -----------------------------------------------------------------------

    /// The slot of a token, if there can be such a slot.
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        if token.slot >= layout::COMPLETIONS_MAX {
            return None;
        }
        let index = token.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::default());
        }
        self.slots.get_mut(index)
    }

    /// The number of an operation that begins, on either side.
    fn begin(&mut self, token: Token, opcode: u16) -> OpId {
        let next = self.operations + 1;
        let Some(slot) = self.slot(token) else {
            return OpId::UNKNOWN;
        };
        if slot.number == 0 || slot.over || slot.generation != token.generation {
            *slot = Slot {
                generation: token.generation,
                number: next,
                opcode,
                over: false,
            };
            self.operations = next;
            return OpId(next);
        }
        slot.opcode = opcode;
        OpId(slot.number)
    }

    /// The number of an operation that has begun.
    fn find(&self, token: Token) -> (OpId, u16) {
        match self.slots.get(token.slot as usize) {
            Some(slot) if slot.generation == token.generation => (OpId(slot.number), slot.opcode),
            _ => (OpId::UNKNOWN, u16::MAX),
        }
    }

    // What the host did ----------------------------------------------------------------

    fn host_event(&mut self, at: u64, event: HostEvent, give: &mut dyn FnMut(&Event)) {
        self.pass(at);
        let kind = match event {
            HostEvent::Entered => EventKind::Entered,
            HostEvent::Exited(reason) => EventKind::Exited { reason },
            HostEvent::Begins {
                token,
                opcode,
                bytes,
            } => EventKind::OpBegins {
                op: self.begin(token, opcode),
                what: OpKind(opcode),
                bytes,
            },
            HostEvent::Ready { slot } => match self.slots.get(slot as usize) {
                Some(slot) if slot.number > 0 && !slot.over => EventKind::OpReady {
                    op: OpId(slot.number),
                },
                // A wake for a former user of the slot.
                _ => return,
            },
            HostEvent::Ends {
                token,
                status,
                value,
            } => {
                let (op, opcode) = self.find(token);
                if let Some(slot) = self.slot(token) {
                    slot.over |= slot.generation == token.generation;
                }
                let counts =
                    Opcode::from_code(opcode).is_some_and(|opcode| opcode.value() == Value::Bytes);
                EventKind::OpEnds {
                    op,
                    what: OpKind(opcode),
                    status,
                    value,
                    bytes: (counts && status == Status::Ok && value != OVERFLOW).then_some(value),
                }
            }
            HostEvent::Written { token } => EventKind::CompletionWritten {
                op: self.find(token).0,
            },
            HostEvent::Injected => EventKind::InterruptInjected,
            HostEvent::Parked => EventKind::Parked,
            HostEvent::Resumed => EventKind::Resumed,
            HostEvent::Detached => EventKind::Detached,
            HostEvent::Attached => EventKind::Attached,
        };
        self.give(Side::Host, kind, give);
    }

    // What the guest says --------------------------------------------------------------

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn record(&mut self, record: Record, give: &mut dyn FnMut(&Event)) {
        let Ok(what) = record.what() else {
            self.nonsense += 1;
            return;
        };
        self.tell_of_nonsense(give);
        self.pass(record.ticks());
        if let What::Text { text, bytes, len } = what {
            let into = match text {
                Text::Name => &mut self.name,
                Text::Location => &mut self.location,
            };
            let room = TEXT_MAX.saturating_sub(into.len());
            into.extend(bytes.iter().take(usize::from(len).min(room)));
            return;
        }
        let (name, location) = (
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.location),
        );
        let kind = match what {
            // Handled above.
            What::Text { .. } => return,
            What::Lost { count } => return self.lose(Side::Guest, count, give),
            What::Spawned { task, by } => EventKind::Spawned {
                task: TaskId(task),
                by: some_task(by),
                name: text(&name),
                location: (!location.is_empty()).then(|| text(&location)),
            },
            What::Lives { task } => EventKind::Lives {
                task: TaskId(task),
                name: text(&name),
            },
            What::PollBegin { task } => EventKind::PollBegin { task: TaskId(task) },
            What::PollEnd {
                task,
                ready,
                on,
                more,
            } => EventKind::PollEnd {
                task: TaskId(task),
                result: if ready {
                    PollResult::Ready
                } else {
                    PollResult::Pending {
                        on: on.map(|on| self.awaited(on)),
                        and: more,
                    }
                },
            },
            What::Cloned { task, by } => EventKind::Cloned {
                task: TaskId(task),
                by: some_task(by),
            },
            What::Woken {
                task,
                by,
                queued,
                consumed,
            } => EventKind::Woken {
                task: TaskId(task),
                by: self.cause(task, by),
                queued,
                consumed,
            },
            What::Dropped { task, by } => EventKind::Dropped {
                task: TaskId(task),
                by: some_task(by),
            },
            What::Ended { task, aborted } => EventKind::Ended {
                task: TaskId(task),
                aborted,
            },
            What::TimerSet { timer, at_ns, by } => EventKind::TimerSet {
                timer: TimerId(timer),
                by: some_task(by),
                at: self.clock.of_guest(at_ns),
            },
            What::Submitted {
                token,
                opcode,
                bytes,
                by,
            } => EventKind::Submitted {
                op: self.begin(token, opcode),
                what: OpKind(opcode),
                bytes,
                by: some_task(by),
            },
            What::CancelAsked { token, by } => EventKind::CancelAsked {
                op: self.find(token).0,
                by: some_task(by),
            },
            What::Doorbell { port } => EventKind::Doorbell {
                verb: match port {
                    port::SUBMIT => Doorbell::Submit,
                    port::WAIT => Doorbell::Wait,
                    port::EXIT => Doorbell::Exit,
                    port::ABORT => Doorbell::Abort,
                    port::START => Doorbell::Start,
                    port::NUDGE => Doorbell::Nudge,
                    _ => Doorbell::Unknown,
                },
            },
            What::Sleeps { how } => EventKind::Sleeps {
                how: match how {
                    trace::Idle::Watch => Idle::Watch,
                    trace::Idle::Out => Idle::Out,
                    trace::Idle::Halt => Idle::Halt,
                },
            },
            What::Awake { by } => EventKind::Awake {
                by: match by {
                    trace::Roused::Memory => Roused::Memory,
                    trace::Roused::Out => Roused::Out,
                    trace::Roused::Interrupt => Roused::Interrupt,
                    trace::Roused::Timer => Roused::Timer,
                    trace::Roused::Nothing => Roused::Nothing,
                },
            },
            What::UpcallBegin { task, interrupted } => EventKind::UpcallBegin {
                task: some_task(task),
                interrupted,
            },
            What::UpcallEnd { task } => EventKind::UpcallEnd {
                task: some_task(task),
            },
            What::Interrupted { count } => EventKind::InterruptTaken { count },
        };
        self.give(Side::Guest, kind, give);
    }

    fn awaited(&self, on: Reason) -> Awaited {
        match on {
            Reason::Operation(token) => Awaited::Op(self.find(token).0),
            Reason::HostCall(token) => Awaited::HostCall(self.find(token).0),
            Reason::Timer(timer) => Awaited::Timer(TimerId(timer)),
            Reason::Task(task) => Awaited::Task(TaskId(task)),
            Reason::Slot => Awaited::Slot,
            Reason::Restored => Awaited::Restored,
            Reason::Unknown | Reason::Interrupt | Reason::Elsewhere => Awaited::Unknown,
        }
    }

    fn cause(&self, woken: u32, by: Reason) -> Cause {
        match by {
            Reason::Task(task) if task == woken => Cause::Itself,
            Reason::Task(task) => Cause::Task(TaskId(task)),
            Reason::Operation(token) => Cause::Op(self.find(token).0),
            Reason::HostCall(token) => Cause::HostCall(self.find(token).0),
            Reason::Timer(timer) => Cause::Timer(TimerId(timer)),
            Reason::Interrupt => Cause::Interrupt,
            Reason::Elsewhere => Cause::Elsewhere,
            Reason::Restored => Cause::Restored,
            Reason::Unknown | Reason::Slot => Cause::Unknown,
        }
    }
}

/// A text, of [`TEXT_MAX`] bytes at most: what stands for bytes that are none takes more than they do.
fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text.shrink_to_fit();
    text
}

/// Zero is no task.
fn some_task(number: u32) -> Option<TaskId> {
    (number > 0).then_some(TaskId(number))
}
