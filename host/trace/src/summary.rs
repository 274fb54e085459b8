//! A run in numbers.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use serde::Serialize;

use super::event::{Cause, Event, EventKind, Idle, PollResult, TaskId};
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
    /// How the run ended; `None` while it has not, or when the trace was cut off.
    pub outcome: Option<String>,
    #[serde(skip)]
    now: Now,
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

/// Where the time went, in nanoseconds. The parts add up to the whole.
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

/// What is going on between two events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Now {
    inside: bool,
    parked: bool,
    watching: bool,
    poll: Option<Poll>,
    interrupted: Interrupted<Poll>,
    /// Tasks that have ended, the first first.
    ended: VecDeque<TaskId>,
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
        match &event.kind {
            EventKind::Spawned { task, name, .. } => {
                match self.begins(*task) {
                    Some(task) => task.name.clone_from(name),
                    None => self.left_out += 1,
                }
                self.did();
            }
            EventKind::Lives { task, name } => match self.begins(*task) {
                Some(task) => task.name.clone_from(name),
                None => self.left_out += 1,
            },
            EventKind::PollBegin { task } => self.poll_begins(*task, event.time),
            EventKind::PollEnd { task, result } => self.poll_ends(*task, *result, event.time),
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
                    self.did();
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
            | EventKind::CancelAsked { .. } => self.did(),
            EventKind::Sleeps { how } => self.now.watching = *how == Idle::Watch,
            EventKind::Awake { .. } => self.now.watching = false,
            EventKind::OpBegins { what, .. } => self.ops.entry(what.name()).or_default().count += 1,
            EventKind::OpEnds { what, bytes, .. } => {
                self.ops.entry(what.name()).or_default().bytes += u64::from(bytes.unwrap_or(0));
            }
            EventKind::CompletionWritten { .. } => self.completions += 1,
            EventKind::Doorbell { .. } => self.doorbells += 1,
            EventKind::Exited { reason } => {
                *self.exits.entry(reason.name()).or_default() += 1;
                self.now.inside = false;
            }
            EventKind::Entered => self.now.inside = true,
            EventKind::InterruptInjected => self.interrupts += 1,
            EventKind::Parked => {
                self.parks += 1;
                self.now.parked = true;
            }
            EventKind::Resumed => self.now.parked = false,
            // What a guest claims is any number.
            EventKind::Lost { count } => self.lost = self.lost.saturating_add(*count),
            EventKind::Malformed { count, .. } => {
                self.malformed = self.malformed.saturating_add(*count);
            }
            EventKind::Finished { outcome, .. } => self.outcome = Some(outcome.clone()),
            EventKind::UpcallBegin { .. } => {
                self.turn_over(event.time);
                self.now.interrupted.begin(&mut self.now.poll);
            }
            EventKind::UpcallEnd { .. } => {
                self.now.interrupted.end(&mut self.now.poll);
                self.turn_over(event.time);
            }
            EventKind::Started { .. }
            | EventKind::Restored { .. }
            | EventKind::Detached
            | EventKind::Attached
            | EventKind::OpReady { .. }
            | EventKind::InterruptTaken { .. } => {}
        }
    }

    /// A task that lives, whether or not it was seen to begin; `None` if there are too many.
    fn begins(&mut self, task: TaskId) -> Option<&mut Task> {
        while self.tasks.len() >= TASKS && !self.tasks.contains_key(&task) {
            let ended = self.now.ended.pop_front()?;
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
            if self.now.ended.len() >= TASKS {
                self.now.ended.pop_front();
            }
            self.now.ended.push_back(task);
        }
    }

    /// The time up to an event belongs to what was going on before it.
    fn pass(&mut self, time: u64) {
        let passed = time.saturating_sub(self.end);
        self.end = self.end.max(time);
        let now = &self.now;
        let part = match now {
            Now { parked: true, .. } => &mut self.time.parked,
            Now { inside: false, .. } => &mut self.time.host,
            Now { poll: Some(_), .. } => &mut self.time.polls,
            Now { watching: true, .. } => &mut self.time.watching,
            _ => &mut self.time.executor,
        };
        *part += passed;
    }

    fn did(&mut self) {
        if let Some(poll) = &mut self.now.poll {
            poll.did = true;
        }
    }

    /// A waker of a task that is being polled was given to somebody, or taken back.
    fn keeps(&mut self, task: TaskId, change: i64) {
        if let Some(poll) = self.now.poll.as_mut().filter(|poll| poll.task == task) {
            poll.kept += change;
        }
    }

    /// From when a poll began to how long it has lasted, and back, so that it does not while it is
    /// interrupted.
    fn turn_over(&mut self, time: u64) {
        if let Some(poll) = &mut self.now.poll {
            poll.begin = time.saturating_sub(poll.begin);
        }
    }

    fn poll_begins(&mut self, task: TaskId, time: u64) {
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
        self.now.poll = Some(Poll {
            task,
            begin: time,
            did: false,
            kept: 0,
            called_for,
        });
    }

    fn poll_ends(&mut self, task: TaskId, result: PollResult, time: u64) {
        let ready = result == PollResult::Ready;
        self.ready += u64::from(ready);
        // Without the beginning, which was lost, nothing more can be said.
        let Some(poll) = self.now.poll.take_if(|poll| poll.task == task) else {
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

impl Sink for Summary {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.count(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExitReason, OpId, Side};

    const MAIN: TaskId = TaskId(1);

    fn summary(events: impl IntoIterator<Item = (u64, EventKind)>) -> Summary {
        let mut summary = Summary::new();
        for (time, kind) in events {
            let side = Side::Guest;
            summary.count(&Event { time, side, kind });
        }
        summary
    }

    fn begin() -> EventKind {
        EventKind::PollBegin { task: MAIN }
    }

    fn pending() -> EventKind {
        let result = PollResult::Pending { on: None, and: 0 };
        EventKind::PollEnd { task: MAIN, result }
    }

    fn woken(by: Cause) -> EventKind {
        EventKind::Woken {
            task: MAIN,
            by,
            queued: true,
            consumed: false,
        }
    }

    #[test]
    fn the_parts_of_the_time_add_up_to_the_whole() {
        let summary = summary([
            (10, EventKind::Entered),
            (12, begin()),
            (20, pending()),
            (21, EventKind::Sleeps { how: Idle::Watch }),
            (
                51,
                EventKind::Exited {
                    reason: ExitReason::Quantum,
                },
            ),
            (60, EventKind::Parked),
            (160, EventKind::Resumed),
            (161, EventKind::Entered),
        ]);
        let Times {
            polls,
            executor,
            watching,
            host,
            parked,
        } = summary.time;
        assert_eq!(
            (polls, executor, watching, host, parked),
            (8, 3, 30, 20, 100)
        );
        assert_eq!(polls + executor + watching + host + parked, summary.end);
    }

    #[test]
    fn a_poll_that_nothing_called_for_and_that_does_nothing_is_in_vain() {
        let nothing_done = |cause| {
            summary([
                (0, begin()),
                (1, pending()),
                (2, woken(cause)),
                (3, begin()),
                (4, pending()),
            ])
        };
        assert_eq!(nothing_done(Cause::Itself).spurious, 1);
        assert_eq!(nothing_done(Cause::Task(TaskId(2))).spurious, 1);
        assert_eq!(nothing_done(Cause::Op(OpId(1))).spurious, 0);
    }

    #[test]
    fn a_poll_that_leaves_a_waker_with_somebody_is_not_in_vain() {
        let cloned = || EventKind::Cloned {
            task: MAIN,
            by: Some(MAIN),
        };
        let dropped = || EventKind::Dropped {
            task: MAIN,
            by: Some(MAIN),
        };
        let in_vain = |during: Vec<EventKind>| {
            let wake = woken(Cause::Task(TaskId(2)));
            let events = [begin(), pending(), wake, begin()].into_iter();
            let events = events.chain(during).chain([pending()]);
            summary(events.map(|kind| (0, kind))).spurious == 1
        };
        assert!(in_vain(vec![]));
        assert!(!in_vain(vec![cloned()]));
        assert!(in_vain(vec![dropped(), cloned()]), "one for another");
        let itself = EventKind::Woken {
            task: MAIN,
            by: Cause::Itself,
            queued: true,
            consumed: true,
        };
        assert!(in_vain(vec![cloned(), itself]), "not even kept");
    }

    #[test]
    fn a_poll_after_the_first_without_a_wake_is_counted() {
        let summary = summary([(0, begin()), (1, pending()), (2, begin())]);
        assert_eq!((summary.polls, summary.uncaused), (2, 1));
    }

    #[test]
    fn of_too_many_tasks_those_that_are_over_are_told_together() {
        let mut summary = Summary::new();
        let mut count = |kind| {
            let (time, side) = (0, Side::Guest);
            summary.count(&Event { time, side, kind });
        };
        let many = TASKS as u32 + 1_000;
        for task in (1..=many).map(TaskId) {
            let aborted = false;
            count(EventKind::Spawned {
                task,
                by: None,
                name: "one of many".into(),
                location: None,
            });
            count(EventKind::PollBegin { task });
            let result = PollResult::Ready;
            count(EventKind::PollEnd { task, result });
            count(EventKind::Ended { task, aborted });
            // Of those that are not known.
            let by = None;
            count(EventKind::Dropped {
                task: TaskId(u32::MAX - task.0),
                by,
            });
            count(EventKind::Woken {
                task: TaskId(u32::MAX - task.0),
                by: Cause::Unknown,
                queued: true,
                consumed: true,
            });
        }
        assert_eq!((summary.tasks.len(), summary.left_out), (TASKS, 1_000));
        assert_eq!((summary.others.polls, summary.polls), (1_000, many.into()));
        assert!(summary.now.ended.len() <= TASKS);
    }

    #[test]
    fn what_a_guest_says_that_it_lost_is_any_number() {
        let lost = EventKind::Lost { count: u64::MAX };
        let summary = summary([(1, lost.clone()), (2, lost)]);
        assert_eq!(summary.lost, u64::MAX);
    }

    #[test]
    fn a_poll_does_not_last_while_an_upcall_interrupts_it() {
        let urgent = TaskId(2);
        let (task, interrupted) = (Some(MAIN), true);
        let ready = PollResult::Ready;
        let summary = summary([
            (0, EventKind::Entered),
            (0, begin()),
            (10, EventKind::UpcallBegin { task, interrupted }),
            (11, EventKind::PollBegin { task: urgent }),
            (
                18,
                EventKind::PollEnd {
                    task: urgent,
                    result: ready,
                },
            ),
            (20, EventKind::UpcallEnd { task }),
            (25, pending()),
        ]);
        let longest = |task| summary.tasks[&task].longest;
        assert_eq!((longest(MAIN), longest(urgent)), (15, 7));
        assert_eq!((summary.time.polls, summary.time.executor), (22, 3));
    }

    #[test]
    fn an_end_whose_beginning_was_lost_is_no_poll() {
        assert_eq!(summary([(5, pending())]).polls, 0);
    }
}
