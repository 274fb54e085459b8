//! Events in plain words.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use wakebox_abi::status::Status;

use wakebox::printable_line;
use wakebox::trace::{
    Awaited, Cause, Doorbell, Event, EventKind, ExitReason, Idle, Names, OpId, OpKind, PollResult,
    Roused, TASKS, TaskId, TimerId, Track,
};
use wakebox::units;

/// Where a line belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Host,
    Boundary,
    Guest,
    /// What the guest prints.
    Words,
}

impl Part {
    /// How far in it stands.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Host | Self::Words => 0,
            Self::Boundary => 1,
            Self::Guest => 2,
        }
    }
}

/// Operations whose kinds are remembered: more than can be in flight.
const REMEMBERED: usize = 1 << 16;

/// Tells events, knowing those before.
#[derive(Debug, Default)]
pub(super) struct Teller {
    // All of tasks, of [`TASKS`] at most: a guest names as many as it likes. What is told of further ones
    // is what is told of strangers.
    names: Names,
    kinds: BTreeMap<OpId, OpKind>,
    /// Tasks in the run queue.
    ready: HashSet<TaskId>,
    /// Why each of them is, and on which processor it was woken.
    causes: BTreeMap<TaskId, (Cause, u32)>,
    /// Tasks that were polled.
    polled: HashSet<TaskId>,
    /// Whether there were tasks before the first event.
    is_restored: bool,
    /// Whether the guest has several processors: each line says of which it is.
    several: bool,
}

impl Teller {
    /// An event as a sentence without a full stop, fit for a terminal.
    pub(super) fn tell(&mut self, event: &Event) -> (Part, String) {
        self.names.learn(event);
        let part = match event.kind.track() {
            Track::Host => Part::Host,
            Track::Boundary => Part::Boundary,
            Track::Executor | Track::Task(_) => Part::Guest,
        };
        let words = self.words(event);
        let is_of_one = !matches!(
            event.kind,
            EventKind::Started { .. } | EventKind::Finished { .. }
        );
        match self.several && is_of_one {
            true => (part, format!("vCPU {}: {words}", event.processor)),
            false => (part, words),
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn words(&mut self, event: &Event) -> String {
        match &event.kind {
            EventKind::Started {
                mode,
                guest,
                processors,
            } => {
                self.several = *processors > 1;
                let with = match self.several {
                    true => format!(" with {processors} processors"),
                    false => String::new(),
                };
                let guest = match guest {
                    Some(guest) => format!("`{}`", printable_line(guest)),
                    None => "a guest".into(),
                };
                format!("the run of {guest}{with} begins; a sleeping guest is woken by `{mode}`")
            }
            EventKind::Restored { clock } => {
                self.is_restored = true;
                format!(
                    "it is restored from a template: it goes on where a guest was parked, which had been \
                     there for {}",
                    duration(*clock)
                )
            }
            EventKind::Spawned {
                task, by, location, ..
            } => {
                self.becomes_ready(*task);
                let by = by.map(|by| format!(" by {}", self.task(by)));
                let location = location
                    .as_ref()
                    .map(|location| format!(" at {}", printable_line(location)));
                format!(
                    "{} is spawned{}{}; it stands in the run queue",
                    self.task(*task),
                    by.unwrap_or_default(),
                    location.unwrap_or_default()
                )
            }
            EventKind::Lives { task, .. } => format!("{} is there already", self.task(*task)),
            EventKind::PollBegin { task } => {
                self.ready.remove(task);
                let name = self.task(*task);
                let (cause, place) = match self.causes.remove(task) {
                    Some((cause, on)) => (Some(cause), self.elsewhere(on, event)),
                    None => (None, String::new()),
                };
                if self.polled.len() < TASKS && self.polled.insert(*task) {
                    // Of one that was there before, nobody knows that.
                    let first = match (self.is_restored, cause) {
                        (false, _) => " for the first time".to_owned(),
                        (true, None) => String::new(),
                        (true, Some(cause)) => format!(", because of {}", self.cause(cause)),
                    };
                    return format!("{name} is polled{first}");
                }
                match cause {
                    Some(Cause::Itself) => format!("{name} is polled again, as it wanted"),
                    Some(cause) => {
                        let cause = self.cause(cause);
                        format!("{name} is polled again, because of {cause}{place}")
                    }
                    None => format!("{name} is polled again"),
                }
            }
            EventKind::PollEnd { task, result } => self.poll_end(*task, *result),
            EventKind::Cloned { task, .. } => {
                format!(
                    "a waker of {} is cloned, for whoever will call it",
                    self.task(*task)
                )
            }
            EventKind::Woken {
                task, by, queued, ..
            } => {
                let name = self.task(*task);
                let (cause, whom) = match by {
                    Cause::Itself => (name, "itself".into()),
                    by => (self.cause(*by), name),
                };
                if *queued {
                    self.becomes_ready(*task);
                    if self.causes.len() < TASKS || self.causes.contains_key(task) {
                        self.causes.insert(*task, (*by, event.processor));
                    }
                    format!("{cause} wakes {whom}: into the run queue")
                } else {
                    format!("{cause} wakes {whom}: in the run queue already")
                }
            }
            EventKind::Dropped { task, .. } => {
                format!("a waker of {} is dropped uncalled", self.task(*task))
            }
            EventKind::Ended { task, aborted } => {
                self.ready.remove(task);
                self.causes.remove(task);
                self.polled.remove(task);
                let name = self.task(*task);
                match aborted {
                    true => format!("{name} is aborted, and its future dropped"),
                    false => format!("{name} has ended"),
                }
            }
            EventKind::TimerSet { timer, by, at } => {
                let left = duration(at.saturating_sub(event.time));
                format!("{} sets {timer}, due in {left}", self.who(*by))
            }
            EventKind::Sleeps { how } => match how {
                Idle::Watch => "nothing is ready; the guest watches the completion ring",
                Idle::Out => "nothing is ready; the guest is about to leave with `out WAIT`",
                Idle::Halt => "nothing is ready; the guest halts in ring 0 until an interrupt",
            }
            .into(),
            EventKind::Awake { by } => match by {
                Roused::Memory if self.several => {
                    "the guest sees in memory that there is something"
                }
                Roused::Memory => "the guest sees a completion in memory",
                Roused::Out if self.several => {
                    "`out` returns, and the guest looks for what has come"
                }
                Roused::Out => "`out` returns, and the guest looks at the completion ring",
                Roused::Interrupt => "an interrupt has ended the halt",
                Roused::Timer => "the time of a timer has come",
                Roused::Nothing => "nothing came; the guest gives up watching",
            }
            .into(),
            EventKind::UpcallBegin { task, interrupted } => match (task, interrupted) {
                (Some(task), true) => format!(
                    "an upcall interrupts the poll of {}: urgent tasks have their turn",
                    self.task(*task)
                ),
                (None, true) => {
                    "an upcall interrupts the executor: urgent tasks have their turn".into()
                }
                (Some(task), false) => format!(
                    "urgent tasks have their turn, where {} has come to",
                    self.task(*task)
                ),
                (None, false) => "urgent tasks have their turn first".into(),
            },
            EventKind::UpcallEnd { task } => match task {
                Some(task) => format!(
                    "the upcall returns: the poll of {} goes on",
                    self.task(*task)
                ),
                None => "the upcall returns".into(),
            },
            EventKind::InterruptTaken { count } => {
                format!("the guest notices interrupt number {count}")
            }
            EventKind::Submitted {
                op,
                what,
                bytes,
                by,
            } => {
                self.kinds.insert(*op, *what);
                if self.kinds.len() > REMEMBERED {
                    self.kinds.pop_first();
                }
                format!(
                    "{} puts {}{} into the submission ring",
                    self.who(*by),
                    self.op(*op),
                    of(*bytes)
                )
            }
            EventKind::CancelAsked { op, by } => format!(
                "{} has dropped the future of {}, and asks for its end",
                self.who(*by),
                self.op(*op)
            ),
            EventKind::OpBegins { op, bytes, .. } => {
                format!(
                    "the host takes {}{} and begins it",
                    self.op(*op),
                    of(*bytes)
                )
            }
            EventKind::OpReady { op } => {
                format!("what {} waits for has come", self.op(*op))
            }
            EventKind::OpEnds {
                op, status, bytes, ..
            } => match (status, bytes) {
                (Status::Ok, Some(bytes)) => format!(
                    "{} is done: {} moved",
                    self.op(*op),
                    units::bytes((*bytes).into())
                ),
                (Status::Ok, None) => format!("{} is done", self.op(*op)),
                (status, _) => format!("{} has ended: {}", self.op(*op), status.text()),
            },
            EventKind::CompletionWritten { op } => format!(
                "the completion of {} stands in the completion ring",
                self.op(*op)
            ),
            EventKind::Doorbell { verb } => match verb {
                Doorbell::Submit => "`out SUBMIT`: there are submissions",
                Doorbell::Wait => "`out WAIT`: nothing to do until a completion comes",
                Doorbell::Exit => "`out EXIT`: the guest is done",
                Doorbell::Abort => "`out ABORT`: the guest has panicked",
                Doorbell::Start => "`out START`: another processor is to begin",
                Doorbell::Nudge => "`out NUDGE`: there is something for another processor",
                _ => "`out` to a port that is none",
            }
            .into(),
            EventKind::Exited { reason } => exited(*reason).into(),
            EventKind::Entered => "the host enters the guest".into(),
            EventKind::InterruptInjected => "the host injects an interrupt".into(),
            EventKind::Detached => "the sandbox gives its machine to another; what the guest has \
                                    written is kept beside"
                .into(),
            EventKind::Attached => "the sandbox has a machine again, perhaps another one".into(),
            EventKind::Parked if self.several => "the host parks it; it holds no thread now".into(),
            EventKind::Parked => "the host parks the machine; it holds no thread now".into(),
            EventKind::Resumed if self.several => {
                "it is unparked: there is something for it".into()
            }
            EventKind::Resumed => "the machine is unparked: there is a completion for it".into(),
            EventKind::Lost { count } => {
                format!("(here {} events were lost)", units::count(*count))
            }
            EventKind::Malformed { count, why } => {
                let why = printable_line(why);
                format!(
                    "(here the guest wrote {} records that are none: {why})",
                    units::count(*count)
                )
            }
            EventKind::Finished { outcome, .. } => {
                format!("the run is over: {}", printable_line(outcome))
            }
            other => format!("({})", other.name()),
        }
    }

    /// Where something was, if that was on another processor than an event.
    fn elsewhere(&self, processor: u32, event: &Event) -> String {
        match self.several && processor != event.processor {
            true => format!(", on vCPU {processor}"),
            false => String::new(),
        }
    }

    fn becomes_ready(&mut self, task: TaskId) {
        if self.ready.len() < TASKS {
            self.ready.insert(task);
        }
    }

    fn poll_end(&self, task: TaskId, result: PollResult) -> String {
        let name = self.task(task);
        let PollResult::Pending { on, and } = result else {
            return format!("{name} is Ready");
        };
        let on = match on {
            _ if self.ready.contains(&task) => {
                return format!(
                    "{name} is Pending, but was woken meanwhile and stands in the run queue"
                );
            }
            Some(Awaited::Op(op)) => format!(" on {}", self.op(op)),
            Some(Awaited::HostCall(_)) => " on a call by the host".into(),
            Some(Awaited::Timer(timer)) => format!(" on {timer}"),
            Some(Awaited::Task(other)) => format!(" on the end of {}", self.task(other)),
            Some(Awaited::Slot) => " on a slot among the operations in flight".into(),
            Some(Awaited::Restored) => " on being restored from a template".into(),
            _ => String::new(),
        };
        let and = match and {
            0 => String::new(),
            1 => " and one other thing".into(),
            many => format!(" and {many} other things"),
        };
        let next = match self.ready.len() {
            0 => "nothing else is ready".into(),
            1 => "one other task is ready".into(),
            many => format!("{} other tasks are ready", units::count(many as u64)),
        };
        format!("{name} is Pending{on}{and}; {next}")
    }

    /// A task as it may appear on a terminal.
    fn task(&self, task: TaskId) -> String {
        format!("task `{}`", printable_line(&self.names.name(task)))
    }

    fn who(&self, task: Option<TaskId>) -> String {
        match task {
            Some(task) => self.task(task),
            None => "the guest's runtime".into(),
        }
    }

    fn op(&self, op: OpId) -> String {
        match self.kinds.get(&op) {
            Some(kind) => format!("{kind} {op}"),
            None => format!("operation {op}"),
        }
    }

    fn cause(&self, cause: Cause) -> String {
        match cause {
            Cause::Itself => "itself".into(),
            Cause::Task(task) => self.task(task),
            Cause::Op(op) => format!("the completion of {}", self.op(op)),
            Cause::HostCall(_) => "a call by the host".into(),
            Cause::Timer(TimerId(timer)) => format!("timer {timer}"),
            Cause::Interrupt => "an interrupt".into(),
            Cause::Elsewhere => "another thread".into(),
            Cause::Restored => "the restore from a template".into(),
            _ => "the runtime".into(),
        }
    }
}

fn of(bytes: u32) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(" of {}", units::bytes(bytes.into())),
    }
}

fn duration(nanos: u64) -> String {
    units::duration(Duration::from_nanos(nanos))
}

fn exited(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Submit => "the guest is left: it rang for its submissions",
        ExitReason::Wait => "the guest is left: it has nothing to do",
        ExitReason::Halt => "the guest is left: it has halted",
        ExitReason::Quantum => "the guest is left: its quantum is over, others have their turn",
        ExitReason::Kick => "the guest is pulled out: there is something for it",
        ExitReason::Exit => "the guest is left: it has ended",
        ExitReason::Abort => "the guest is left: it has panicked",
        ExitReason::Fault => "the guest is left: it raised an exception",
        ExitReason::Violation => "the guest is left: it did what no guest may do",
        ExitReason::Start => "the guest is left: it wants another processor to begin",
        ExitReason::Nudge => "the guest is left: it has something for another processor",
        _ => "the guest is left",
    }
}

/// Breaks a line into pieces of at most so many columns, between words where that can be.
pub(super) fn wrap(text: &str, room: Option<usize>) -> Vec<&str> {
    let Some(room) = room.map(|room| room.max(8)) else {
        return vec![text];
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.width() > room {
        let mut columns = 0;
        let full = rest.char_indices().find(|(_, c)| {
            columns += c.width().unwrap_or(0);
            columns > room
        });
        let Some((full, _)) = full.filter(|(full, _)| *full > 0) else {
            break;
        };
        // A space right behind the piece is a good end, too.
        let piece = rest.get(..=full).unwrap_or(&rest[..full]);
        let end = match piece.rfind(' ') {
            Some(space) if space > 0 => space,
            _ => full,
        };
        pieces.push(rest[..end].trim_end());
        rest = rest[end..].trim_start();
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use wakebox::trace::Side;

    #[test]
    fn tasks_that_a_guest_makes_up_are_not_remembered_without_end() {
        let mut teller = Teller::default();
        for task in (1..=TASKS as u32 + 5).map(TaskId) {
            let woken = EventKind::Woken {
                task,
                by: Cause::Unknown,
                queued: true,
                consumed: false,
            };
            for kind in [EventKind::PollBegin { task }, woken] {
                let (time, side) = (0, Side::Guest);
                teller.tell(&Event::new(time, side, kind));
            }
        }
        let lens = (teller.ready.len(), teller.causes.len(), teller.polled.len());
        assert_eq!(lens, (TASKS, TASKS, TASKS));
    }

    #[test]
    fn of_several_processors_each_line_says_of_which_it_is_and_where_a_cause_was() {
        let mut teller = Teller::default();
        let mut tell = |processor, kind| {
            let event = Event::new(0, Side::Guest, kind).on(processor);
            teller.tell(&event).1
        };
        let started = EventKind::Started {
            mode: "out".into(),
            guest: None,
            processors: 2,
        };
        let begins = tell(0, started);
        assert!(begins.contains("a guest with 2 processors"), "{begins}");
        let (task, by) = (TaskId(2), Cause::Task(TaskId(1)));
        assert_eq!(
            tell(1, EventKind::PollBegin { task }),
            "vCPU 1: task `task 2` is polled for the first time"
        );
        let woken = EventKind::Woken {
            task,
            by,
            queued: true,
            consumed: true,
        };
        tell(0, woken);
        let verb = Doorbell::Nudge;
        assert_eq!(
            tell(0, EventKind::Doorbell { verb }),
            "vCPU 0: `out NUDGE`: there is something for another processor"
        );
        assert_eq!(
            tell(1, EventKind::PollBegin { task }),
            "vCPU 1: task `task 2` is polled again, because of task `task 1`, on vCPU 0"
        );
    }

    #[test]
    fn an_upcall_is_told_with_the_poll_that_it_interrupts() {
        let mut teller = Teller::default();
        let mut tell = |kind| {
            let (time, side) = (0, Side::Guest);
            teller.tell(&Event::new(time, side, kind)).1
        };
        let (task, name) = (TaskId(1), "computes".to_owned());
        tell(EventKind::Lives { task, name });
        let (task, interrupted) = (Some(task), true);
        let begin = tell(EventKind::UpcallBegin { task, interrupted });
        assert!(
            begin.contains("an upcall interrupts the poll of"),
            "{begin}"
        );
        assert!(begin.contains("computes"), "{begin}");
        let end = tell(EventKind::UpcallEnd { task });
        assert!(end.contains("goes on"), "{end}");
    }

    #[test]
    fn of_a_task_that_was_there_before_nobody_says_that_it_is_polled_for_the_first_time() {
        let (task, mut teller) = (TaskId(1), Teller::default());
        let mut tell = |side, kind| {
            teller
                .tell(&Event {
                    time: 0,
                    side,
                    processor: 0,
                    kind,
                })
                .1
        };
        let restored = tell(Side::Host, EventKind::Restored { clock: 3_000_000 });
        assert!(restored.contains("restored from a template"), "{restored}");
        let name = "main".to_owned();
        let lives = tell(Side::Guest, EventKind::Lives { task, name });
        assert!(lives.contains("main"), "{lives}");
        let by = Cause::Restored;
        tell(
            Side::Guest,
            EventKind::Woken {
                task,
                by,
                queued: true,
                consumed: true,
            },
        );
        let polled = tell(Side::Guest, EventKind::PollBegin { task });
        assert!(polled.contains("the restore"), "{polled}");
        assert!(!polled.contains("first"), "{polled}");
    }
}
