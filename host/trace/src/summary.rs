//! A run in numbers.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use serde::Serialize;

use wakebox_abi::layout::PROCESSORS_MAX;

use super::event::{Cause, Event, EventKind, Idle, PollResult, TaskId};
use super::processors::OfEach;
use super::sink::Sink;
use super::tasks::TASKS;
use super::upcalls::Interrupted;

/// What happened how often, and where the time went: counted event by event. At most
/// [`TASKS`] tasks are told apart.
///
/// It is a [`Sink`], and takes what a [`Reader`](super::json::Reader) reads as well
/// ([`Self::count`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Events counted.
    pub events: u64,
    /// The time of the last one, in nanoseconds since the sandbox was made.
    pub end: u64,
    /// Polls begun.
    pub polls: u64,
    /// Polls that ended with `Ready`.
    pub ready: u64,
    /// Polls in vain: they ended with `Pending`, did nothing that a trace shows (no operation, timer,
    /// task, wake; no waker left with somebody new), and were not brought about by a completion, a
    /// call or a timer. The first poll of a task is never one.
    pub spurious: u64,
    /// Polls after a task's first that no recorded wake brought about: records were lost.
    pub uncaused: u64,
    /// Calls of wakers.
    pub wakes: u64,
    /// Those that put a task into the run queue; the others found it there.
    pub queued: u64,
    /// Wakers cloned.
    pub cloned: u64,
    /// Wakers dropped unused.
    pub dropped: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// Exits, by reason.
    pub exits: BTreeMap<&'static str, u64>,
    /// Operations that the host began, by kind.
    pub ops: BTreeMap<&'static str, Ops>,
    /// Completions written.
    pub completions: u64,
    /// Interrupts injected.
    pub interrupts: u64,
    /// Times that the sandbox was parked.
    pub parks: u64,
    /// Records and events lost.
    pub lost: u64,
    /// Records without meaning.
    pub malformed: u64,
    /// Where the time went.
    pub time: Times,
    /// Each task. When they are too many, those that ended first make room.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Tasks that are not among them any more, or never were.
    pub left_out: u64,
    /// Those in numbers, together.
    pub others: Task,
    /// Each processor, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processors: Vec<Processor>,
    /// How the run ended; `None` while it has not, or when the trace was cut off.
    pub outcome: Option<String>,
    #[serde(skip)]
    now: OfEach<Now>,
    /// Tasks that have ended, the first first.
    #[serde(skip)]
    ended: VecDeque<TaskId>,
}

/// A processor in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Processor {
    /// Polls begun.
    pub polls: u64,
    /// Exits.
    pub exits: u64,
    /// Interrupts injected.
    pub interrupts: u64,
    /// Times that it was parked.
    pub parks: u64,
    /// Whether it was started.
    pub begun: bool,
    /// Whether it is parked now.
    pub parked: bool,
    /// Where its time went, since it was started.
    pub time: Times,
}

/// Operations of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ops {
    /// How many began.
    pub count: u64,
    /// Bytes that they moved.
    pub bytes: u64,
}

/// Where the time went, in nanoseconds. The parts add up to the whole, of several processors to that of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// In the guest, in polls.
    pub polls: u64,
    /// In the guest, between polls: its executor and reactor.
    pub executor: u64,
    /// In the guest, which watches the completion ring.
    pub watching: u64,
    /// Out of the guest: crossing the boundary, and the host's work.
    pub host: u64,
    /// Parked: nobody has anything to do.
    pub parked: u64,
}

impl Times {
    fn part_of(&mut self, now: &Now) -> &mut u64 {
        match now {
            Now { parked: true, .. } => &mut self.parked,
            Now { inside: false, .. } => &mut self.host,
            Now { poll: Some(_), .. } => &mut self.polls,
            Now { watching: true, .. } => &mut self.watching,
            _ => &mut self.executor,
        }
    }
}

/// A task in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Task {
    /// Its name, as the guest wrote it: any text.
    pub name: String,
    /// Polls begun.
    pub polls: u64,
    /// Polls in vain, see [`Summary::spurious`].
    pub spurious: u64,
    /// Calls of its wakers.
    pub wakes: u64,
    /// Nanoseconds in polls.
    pub busy: u64,
    /// The longest of them.
    pub longest: u64,
    /// Whether it has ended.
    pub ended: bool,
    #[serde(skip)]
    cause: Option<Cause>,
}

impl Task {
    fn add(&mut self, other: &Self) {
        self.polls += other.polls;
        self.spurious += other.spurious;
        self.wakes += other.wakes;
        self.busy = self.busy.saturating_add(other.busy);
        self.longest = self.longest.max(other.longest);
    }
}

/// What is going on on a processor between two events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Now {
    has_begun: bool,
    inside: bool,
    parked: bool,
    watching: bool,
    poll: Option<Poll>,
    interrupted: Interrupted<Poll>,
}

impl Now {
    fn did(&mut self) {
        if let Some(poll) = &mut self.poll {
            poll.did = true;
        }
    }

    /// From when a poll began to how long it has lasted, and back, so that it does not while it is
    /// interrupted.
    fn turn_over(&mut self, time: u64) {
        if let Some(poll) = &mut self.poll {
            poll.begin = time.saturating_sub(poll.begin);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Poll {
    task: TaskId,
    begin: u64,
    /// Whether it did what a trace shows.
    did: bool,
    /// Wakers of the task that were cloned, less those that went again: one that stays waits for
    /// something new.
    kept: i64,
    /// Whether something outside of the guest's tasks brought it about, or it is the first.
    called_for: bool,
}

impl Summary {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole time, in nanoseconds, up to the last event.
    #[must_use]
    pub const fn duration(&self) -> u64 {
        self.end
    }

    /// All exits.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits.values().sum()
    }

    /// Takes an event into account. They are to come in the order of their times.
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub fn count(&mut self, event: &Event) {
        self.pass(event.time);
        self.events += 1;
        let on = event.processor;
        if let Some(processor) = self.processor(on) {
            processor.count(&event.kind);
        }
        match &event.kind {
            EventKind::Spawned { task, name, .. } => {
                match self.begins(*task) {
                    Some(task) => task.name.clone_from(name),
                    None => self.left_out += 1,
                }
                self.now.of(on).did();
            }
            EventKind::Lives { task, name } => match self.begins(*task) {
                Some(task) => task.name.clone_from(name),
                None => self.left_out += 1,
            },
            EventKind::PollBegin { task } => self.poll_begins(on, *task, event.time),
            EventKind::PollEnd { task, result } => self.poll_ends(on, *task, *result, event.time),
            EventKind::Woken {
                task,
                by,
                queued,
                consumed,
            } => {
                self.wakes += 1;
                self.queued += u64::from(*queued);
                let woken = self.task(*task);
                woken.wakes += 1;
                if *queued {
                    woken.cause = Some(*by);
                }
                // To wake oneself is not to get on.
                if *by != Cause::Itself {
                    self.now.of(on).did();
                } else if *consumed {
                    self.keeps(*task, -1);
                }
            }
            EventKind::Ended { task, .. } => self.ends(*task),
            EventKind::Cloned { task, .. } => {
                self.cloned += 1;
                self.keeps(*task, 1);
            }
            EventKind::Dropped { task, .. } => {
                self.dropped += 1;
                self.keeps(*task, -1);
            }
            EventKind::TimerSet { .. }
            | EventKind::Submitted { .. }
            | EventKind::CancelAsked { .. } => self.now.of(on).did(),
            EventKind::Sleeps { how } => self.now.of(on).watching = *how == Idle::Watch,
            EventKind::Awake { .. } => self.now.of(on).watching = false,
            EventKind::OpBegins { what, .. } => self.ops.entry(what.name()).or_default().count += 1,
            EventKind::OpEnds { what, bytes, .. } => {
                self.ops.entry(what.name()).or_default().bytes += u64::from(bytes.unwrap_or(0));
            }
            EventKind::CompletionWritten { .. } => self.completions += 1,
            EventKind::Doorbell { .. } => self.doorbells += 1,
            EventKind::Exited { reason } => {
                *self.exits.entry(reason.name()).or_default() += 1;
                self.now.of(on).inside = false;
            }
            EventKind::Entered => {
                let now = self.now.of(on);
                (now.inside, now.has_begun) = (true, true);
            }
            EventKind::InterruptInjected => self.interrupts += 1,
            EventKind::Parked => {
                self.parks += 1;
                self.now.of(on).parked = true;
            }
            EventKind::Resumed => self.now.of(on).parked = false,
            // What a guest claims is any number.
            EventKind::Lost { count } => self.lost = self.lost.saturating_add(*count),
            EventKind::Malformed { count, .. } => {
                self.malformed = self.malformed.saturating_add(*count);
            }
            EventKind::Finished { outcome, .. } => self.outcome = Some(outcome.clone()),
            EventKind::UpcallBegin { .. } => {
                let now = self.now.of(on);
                now.turn_over(event.time);
                now.interrupted.begin(&mut now.poll);
            }
            EventKind::UpcallEnd { .. } => {
                let now = self.now.of(on);
                now.interrupted.end(&mut now.poll);
                now.turn_over(event.time);
            }
            EventKind::Started { processors, .. } => self.begin(*processors),
            EventKind::Restored { .. }
            | EventKind::Detached
            | EventKind::Attached
            | EventKind::OpReady { .. }
            | EventKind::InterruptTaken { .. } => {}
        }
    }

    /// A guest with so many processors.
    fn begin(&mut self, processors: u32) {
        let several = processors.min(PROCESSORS_MAX) as usize;
        if several > 1 {
            self.processors.resize_with(several, Processor::default);
        }
    }

    /// A processor, if there are several.
    fn processor(&mut self, number: u32) -> Option<&mut Processor> {
        self.processors.get_mut(number as usize)
    }

    /// A task that lives, whether or not it was seen to begin; `None` if there are too many.
    fn begins(&mut self, task: TaskId) -> Option<&mut Task> {
        while self.tasks.len() >= TASKS && !self.tasks.contains_key(&task) {
            let ended = self.ended.pop_front()?;
            if let Some(ended) = self.tasks.remove(&ended) {
                self.left_out += 1;
                self.others.add(&ended);
            }
        }
        Some(self.tasks.entry(task).or_default())
    }

    /// A task, or what stands for those that are not told apart. One that is over and forgotten is
    /// among these, though somebody may still have a waker of it.
    fn task(&mut self, task: TaskId) -> &mut Task {
        self.tasks.get_mut(&task).unwrap_or(&mut self.others)
    }

    fn ends(&mut self, task: TaskId) {
        if let Some(known) = self.tasks.get_mut(&task).filter(|known| !known.ended) {
            known.ended = true;
            if self.ended.len() >= TASKS {
                self.ended.pop_front();
            }
            self.ended.push_back(task);
        }
    }

    /// The time up to an event belongs to what was going on before it, on each processor that has begun.
    fn pass(&mut self, time: u64) {
        let passed = time.saturating_sub(self.end);
        self.end = self.end.max(time);
        for (number, now) in self.now.iter_mut().enumerate() {
            if now.has_begun || number == 0 {
                *self.time.part_of(now) += passed;
                if let Some(processor) = self.processors.get_mut(number) {
                    *processor.time.part_of(now) += passed;
                }
            }
        }
    }

    /// A waker of a task that is being polled was given to somebody, or taken back.
    fn keeps(&mut self, task: TaskId, change: i64) {
        for now in self.now.iter_mut() {
            if let Some(poll) = now.poll.as_mut().filter(|poll| poll.task == task) {
                poll.kept += change;
            }
        }
    }

    fn poll_begins(&mut self, on: u32, task: TaskId, time: u64) {
        self.polls += 1;
        let is_known = self.begins(task).is_some();
        let entry = self.task(task);
        entry.polls += 1;
        let cause = entry.cause.take();
        // Of one among many nothing more is known.
        let first = entry.polls == 1 || !is_known;
        if !first && cause.is_none() {
            self.uncaused += 1;
        }
        let called_for = first
            || matches!(
                cause,
                Some(Cause::Op(_) | Cause::HostCall(_) | Cause::Timer(_)) | None
            );
        self.now.of(on).poll = Some(Poll {
            task,
            begin: time,
            did: false,
            kept: 0,
            called_for,
        });
    }

    fn poll_ends(&mut self, on: u32, task: TaskId, result: PollResult, time: u64) {
        let ready = result == PollResult::Ready;
        self.ready += u64::from(ready);
        // Without the beginning, which was lost, nothing more can be said.
        let Some(poll) = self.now.of(on).poll.take_if(|poll| poll.task == task) else {
            return;
        };
        let entry = self.tasks.get_mut(&task).unwrap_or(&mut self.others);
        let took = time.saturating_sub(poll.begin);
        entry.busy = entry.busy.saturating_add(took);
        entry.longest = entry.longest.max(took);
        if !ready && !poll.did && poll.kept <= 0 && !poll.called_for {
            self.spurious += 1;
            entry.spurious += 1;
        }
    }
}

impl Processor {
    fn count(&mut self, event: &EventKind) {
        match event {
            EventKind::PollBegin { .. } => self.polls += 1,
            EventKind::Entered => self.begun = true,
            EventKind::Exited { .. } => self.exits += 1,
            EventKind::InterruptInjected => self.interrupts += 1,
            EventKind::Parked => {
                self.parks += 1;
                self.parked = true;
            }
            EventKind::Resumed => self.parked = false,
            _ => {}
        }
    }
}

impl Sink for Summary {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.count(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
