//! Makes events of host events and records: merges both by time, and finds out which operation a token
//! names and what a task is called.
//!
//! Processors of a guest call operations and timers as each likes. An operation goes by the name that the driver has
//! for it (`names.rs`), a timer by its number and that of its processor.

use std::collections::VecDeque;

use wakebox_abi::entry::Token;
use wakebox_abi::op::{OVERFLOW, Opcode, Value};
use wakebox_abi::port;
use wakebox_abi::status::Status;
use wakebox_abi::trace::{self, Reason, Record, TEXT_MAX, Text, What};

use super::clock::TraceClock;
use super::recorder::{Batch, HostEvent, KEPT};
use crate::names::Names;
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

/// What is known of what a processor tells.
#[derive(Debug, Default)]
struct Voice {
    /// Records that were not given out.
    records: VecDeque<Record>,
    name: Vec<u8>,
    location: Vec<u8>,
    /// Records without meaning since the last one that had some.
    nonsense: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Assembler {
    clock: TraceClock,
    /// Slots of each ring.
    most: u32,
    names: Names,
    /// By slot; as many as the guest has used.
    slots: Vec<Slot>,
    operations: u64,
    /// Host events behind the horizon.
    held: Vec<(u64, HostEvent)>,
    voices: Box<[Voice]>,
    lost: u64,
    malformed: u64,
    /// Time of the last event.
    last: u64,
    /// The processor of what is being told.
    on: u32,
}

impl Assembler {
    /// For a guest with so many processors, each of which has so many slots.
    pub(super) fn new(clock: TraceClock, processors: u32, most: u32) -> Self {
        Self {
            clock,
            most,
            names: Names::of(processors),
            slots: Vec::new(),
            operations: 0,
            held: Vec::new(),
            voices: (0..processors).map(|_| Voice::default()).collect(),
            lost: 0,
            malformed: 0,
            last: 0,
            on: 0,
        }
    }

    /// How much lies behind the horizon.
    pub(super) fn held(&self) -> usize {
        let records = self.voices.iter().map(|voice| voice.records.len());
        self.held.len() + records.sum::<usize>()
    }

    /// Gives out everything up to the horizon of a batch, and gives back its memory, empty.
    pub(super) fn assemble(&mut self, mut batch: Batch, give: &mut dyn FnMut(Event)) -> Batch {
        let mut events = std::mem::take(&mut self.held);
        events.extend_from_slice(&batch.host);
        events.extend_from_slice(&batch.turns);
        // Three that are in order.
        events.sort_by_key(|(at, _)| *at);
        let later = events.partition_point(|(at, _)| *at <= batch.horizon);
        let mut due = events.drain(..later).peekable();
        for (voice, told) in self.voices.iter_mut().zip(&mut batch.guest) {
            voice.records.extend(told.records.drain(..));
        }
        while let Some((on, record)) = self.next_record(batch.horizon) {
            while let Some((at, event)) = due.next_if(|(at, _)| *at <= record.ticks()) {
                self.host_event(at, event, give);
            }
            self.on = on;
            self.record(record, give);
        }
        for (at, event) in due {
            self.host_event(at, event, give);
        }
        events.shrink_to(KEPT);
        self.held = events;
        for (on, told) in (0..).zip(&mut batch.guest) {
            self.on = on;
            self.end_batch(told.broken.take(), give);
        }
        self.on = 0;
        self.lose(Side::Host, batch.lost, give);
        batch.recycled()
    }

    /// The earliest record of all processors, up to the horizon.
    fn next_record(&mut self, horizon: u64) -> Option<(u32, Record)> {
        let firsts = self.voices.iter().map(|voice| voice.records.front());
        let times = firsts.map(|first| first.map_or(u64::MAX, Record::ticks));
        let (on, at) = (0..).zip(times).min_by_key(|(_, at)| *at)?;
        if at > horizon {
            return None;
        }
        let record = self.voices[on as usize].records.pop_front()?;
        Some((on, record))
    }

    /// What is to be said of a processor at the end of a batch.
    fn end_batch(&mut self, broken: Option<String>, give: &mut dyn FnMut(Event)) {
        let voice = self.voice();
        if voice.records.capacity() > 2 * KEPT {
            let len = voice.records.len();
            voice.records.shrink_to(KEPT.max(len));
        }
        self.tell_of_nonsense(give);
        if let Some(why) = broken {
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
    }

    /// That of the processor which is being told of.
    fn voice(&mut self) -> &mut Voice {
        &mut self.voices[self.on as usize]
    }

    /// Gives out the last event.
    pub(super) fn finish(
        &mut self,
        outcome: String,
        status: u8,
        lost: u32,
        now: u64,
        give: &mut dyn FnMut(Event),
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

    fn give(&self, side: Side, kind: EventKind, give: &mut dyn FnMut(Event)) {
        let event = Event::new(self.last, side, kind);
        give(event.on(self.on));
    }

    fn lose(&mut self, side: Side, count: u64, give: &mut dyn FnMut(Event)) {
        if count > 0 {
            self.lost = self.lost.saturating_add(count);
            self.give(side, EventKind::Lost { count }, give);
        }
    }

    fn tell_of_nonsense(&mut self, give: &mut dyn FnMut(Event)) {
        let count = std::mem::take(&mut self.voice().nonsense);
        if count > 0 {
            self.malformed += count;
            let why = trace::Unknown.to_string();
            self.give(Side::Guest, EventKind::Malformed { count, why }, give);
        }
    }

    // Operations -----------------------------------------------------------------------

    /// What the driver calls an operation that the processor which is being told of calls so.
    fn name_of(&self, token: Token) -> Token {
        match token.slot < self.most {
            true => self.names.of_ring(self.on, token),
            // There is none.
            false => Token {
                slot: u32::MAX,
                ..token
            },
        }
    }

    /// A timer of the processor which is being told of.
    fn timer(&self, number: u64) -> TimerId {
        let each = self.voices.len() as u64;
        TimerId(number.wrapping_mul(each).wrapping_add(self.on.into()))
    }

    /// The slot of a token, if there can be such a slot.
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        if self.names.in_ring(token).1.slot >= self.most {
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

    fn host_event(&mut self, at: u64, event: HostEvent, give: &mut dyn FnMut(Event)) {
        self.pass(at);
        self.on = match &event {
            HostEvent::Entered(on)
            | HostEvent::Exited(on, _)
            | HostEvent::Injected(on)
            | HostEvent::Parked(on)
            | HostEvent::Resumed(on) => *on,
            HostEvent::Begins { token, .. }
            | HostEvent::Ends { token, .. }
            | HostEvent::Written { token } => self.names.ring(token.slot),
            HostEvent::Ready { slot } => self.names.ring(*slot),
            HostEvent::Detached | HostEvent::Attached => 0,
        };
        let kind = match event {
            HostEvent::Entered(_) => EventKind::Entered,
            HostEvent::Exited(_, reason) => EventKind::Exited { reason },
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
            HostEvent::Injected(_) => EventKind::InterruptInjected,
            HostEvent::Parked(_) => EventKind::Parked,
            HostEvent::Resumed(_) => EventKind::Resumed,
            HostEvent::Detached => EventKind::Detached,
            HostEvent::Attached => EventKind::Attached,
        };
        self.give(Side::Host, kind, give);
    }

    // What the guest says --------------------------------------------------------------

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn record(&mut self, record: Record, give: &mut dyn FnMut(Event)) {
        let Ok(what) = record.what() else {
            self.voice().nonsense += 1;
            return;
        };
        self.tell_of_nonsense(give);
        self.pass(record.ticks());
        if let What::Text { text, bytes, len } = what {
            let voice = self.voice();
            let into = match text {
                Text::Name => &mut voice.name,
                Text::Location => &mut voice.location,
            };
            let room = TEXT_MAX.saturating_sub(into.len());
            into.extend(bytes.iter().take(usize::from(len).min(room)));
            return;
        }
        let voice = self.voice();
        let (name, location) = (
            std::mem::take(&mut voice.name),
            std::mem::take(&mut voice.location),
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
                timer: self.timer(timer),
                by: some_task(by),
                at: self.clock.of_guest(at_ns),
            },
            What::Submitted {
                token,
                opcode,
                bytes,
                by,
            } => EventKind::Submitted {
                op: self.begin(self.name_of(token), opcode),
                what: OpKind(opcode),
                bytes,
                by: some_task(by),
            },
            What::CancelAsked { token, by } => EventKind::CancelAsked {
                op: self.find(self.name_of(token)).0,
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
            Reason::Operation(token) => Awaited::Op(self.find(self.name_of(token)).0),
            Reason::HostCall(token) => Awaited::HostCall(self.find(self.name_of(token)).0),
            Reason::Timer(timer) => Awaited::Timer(self.timer(timer)),
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
            Reason::Operation(token) => Cause::Op(self.find(self.name_of(token)).0),
            Reason::HostCall(token) => Cause::HostCall(self.find(self.name_of(token)).0),
            Reason::Timer(timer) => Cause::Timer(self.timer(timer)),
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
