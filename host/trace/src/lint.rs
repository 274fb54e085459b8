//! What looks wrong in a run: futures that cannot be woken, polls that take too long, wakes for
//! nothing.
//!
//! A [`Lint`] reads events as they come, from a run or from a file, in memory for the tasks,
//! operations and timers that are alive. What it knows of a poll is what the trace tells; each rule
//! is described at its threshold ([`Thresholds`]) or at its [`FindingKind`].
//!
//! ```no_run
//! use wakebox_trace::json::Reader;
//! use wakebox_trace::lint::{Lint, Thresholds};
//!
//! # fn example() -> Result<(), wakebox_trace::json::ReadError> {
//! let mut lint = Lint::new(Thresholds::default());
//! for event in Reader::open("run.json")? {
//!     lint.look(&event?);
//! }
//! for finding in lint.report().findings {
//!     println!("{}: task `{}` {}", finding.kind, finding.name, finding.what);
//! }
//! # Ok(())
//! # }
//! ```

mod circle;
mod finding;
mod running;
mod thresholds;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::time::Duration;

use wakebox_abi::status::Status;

use self::circle::Circle;
pub use self::finding::{Finding, FindingKind, Report};
use self::running::{Poll, Running};
pub use self::thresholds::Thresholds;
use super::event::{Awaited, Cause, Event, EventKind, OpId, PollResult, TaskId, TimerId};
use super::processors::OfEach;
use super::sink::Sink;
use super::summary::{self, Summary};
use super::tasks::Tasks;
use crate::units;

/// Timers and operations that are remembered. Those dropped unfired leave no event, so that there is
/// no telling when a timer is over; the oldest is forgotten.
const REMEMBERED: usize = 1 << 16;
/// Findings of different kinds and locations.
const FINDINGS: usize = 1_000;
/// What `Outcome::exit_status` gives for a deadlock.
const DEADLOCK: u8 = 123;
const MAIN: TaskId = TaskId(1);

/// Looks for what is wrong, event by event.
#[derive(Debug)]
pub struct Lint {
    thresholds: Thresholds,
    /// Counts. Its tasks are those that live.
    summary: Summary,
    tasks: Tasks<Watched>,
    running: OfEach<Running>,
    /// Timers that are not due.
    timers: BTreeSet<(u64, TimerId)>,
    /// When they are, and on which processor.
    deadlines: BTreeMap<TimerId, (u64, u32)>,
    /// Timers that are due, and for how long polls had lasted when they became so.
    due: BTreeMap<TimerId, u64>,
    ops: BTreeMap<OpId, Op>,
    /// What goes on since something happened.
    circle: Circle,
    /// Holes in the trace so far.
    holes: u64,
    findings: HashMap<(FindingKind, String), Finding>,
    omitted: u64,
    /// Whether those who wait at the end were judged.
    over: bool,
}

/// A task that lives.
#[derive(Debug, Default)]
struct Watched {
    location: Option<String>,
    /// [`Lint::holes`] when it was spawned; `None` if that was not seen.
    since: Option<u64>,
    /// Wakers of it that somebody has. What the guest's other threads do is not seen, and makes it
    /// too large.
    wakers: i64,
    wakes: u64,
    /// Whether what it is polled for next is another task's word.
    by_another: bool,
    state: State,
}

impl Watched {
    /// A task was spawned there, when so many holes were known.
    fn begin(&mut self, location: Option<String>, holes: u64) {
        *self = Self {
            location,
            since: Some(holes),
            ..Self::default()
        };
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Waits to be polled, or is.
    #[default]
    Queued,
    Pending {
        since: u64,
        on: Option<Awaited>,
        /// Whether nobody had a waker of it from the beginning.
        deaf: bool,
    },
}

#[derive(Debug)]
struct Op {
    by: TaskId,
    cancelled: bool,
}

impl Lint {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            summary: Summary::new(),
            tasks: Tasks::default(),
            running: OfEach::default(),
            timers: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            due: BTreeMap::new(),
            ops: BTreeMap::new(),
            circle: Circle::default(),
            holes: 0,
            findings: HashMap::new(),
            omitted: 0,
            over: false,
        }
    }

    /// Looks at an event. They are to come in the order of their times.
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub fn look(&mut self, event: &Event) {
        let (time, on) = (event.time, event.processor);
        self.summary.count(event);
        self.become_due(time);
        if circle::is_progress(&event.kind) {
            self.judge_circle();
        }
        match &event.kind {
            EventKind::Spawned { task, location, .. } => {
                if let Some(watched) = self.tasks.spawned(*task) {
                    watched.begin(location.clone(), self.holes);
                }
            }
            EventKind::PollBegin { task } => self.poll_begins(on, *task, time),
            EventKind::PollEnd { task, result } => self.poll_ends(on, *task, *result, time),
            EventKind::Cloned { task, .. } => self.tasks.of(*task).wakers += 1,
            EventKind::Dropped { task, .. } => self.tasks.of(*task).wakers -= 1,
            EventKind::Woken {
                task,
                by,
                queued,
                consumed,
            } => {
                if let Cause::Timer(timer) = by {
                    self.fires(*timer, *task, time);
                }
                let by_another = circle::is_by_another(*by, *task);
                self.woken(*task, queued.then_some(by_another), *consumed);
            }
            EventKind::UpcallBegin { .. } => self.running.of(on).upcall_begins(time),
            EventKind::UpcallEnd { .. } => self.running.of(on).upcall_ends(time),
            EventKind::Ended { task, .. } => self.ended(*task, time),
            EventKind::TimerSet { timer, at, .. } => self.timer_set(*timer, *at, on),
            EventKind::Submitted {
                op, by: Some(by), ..
            } => {
                let by = *by;
                let cancelled = false;
                self.ops.insert(*op, Op { by, cancelled });
                if self.ops.len() > REMEMBERED {
                    self.ops.pop_first();
                }
            }
            EventKind::CancelAsked { op, .. } => {
                if let Some(op) = self.ops.get_mut(op) {
                    op.cancelled = true;
                }
            }
            EventKind::OpEnds {
                op,
                what,
                status,
                bytes,
                ..
            } => {
                if let Some(Op { by, cancelled }) = self.ops.remove(op)
                    && cancelled
                    && *status == Status::Ok
                    && let Some(bytes @ 1..) = *bytes
                {
                    let moved = units::bytes(bytes.into());
                    let what = format!(
                        "gave up {what} {op}, which then moved {moved} that nobody got to know of"
                    );
                    self.find(FindingKind::UnseenResult, by, time, bytes.into(), what);
                }
            }
            EventKind::Entered => self.running.of(on).inside = Some(time),
            EventKind::Exited { .. } => {
                let running = self.running.of(on);
                running.compute(time);
                running.inside = None;
            }
            EventKind::Lost { .. } | EventKind::Malformed { .. } => self.holes += 1,
            EventKind::Finished { status, .. } => self.finish(*status, time),
            _ => {}
        }
    }

    /// A task was woken: into the run queue, by another or not, or to no effect.
    fn woken(&mut self, task: TaskId, queued_by_another: Option<bool>, consumed: bool) {
        if queued_by_another.is_some() {
            for poll in self.running.iter_mut().filter_map(|it| it.poll.as_mut()) {
                poll.woken |= poll.task == task;
            }
        }
        let watched = self.tasks.of(task);
        watched.wakes += 1;
        watched.wakers -= i64::from(consumed);
        if let Some(by_another) = queued_by_another {
            watched.state = State::Queued;
            watched.by_another = by_another;
        }
    }

    fn ended(&mut self, task: TaskId, time: u64) {
        self.judge(task, time);
        if task == MAIN {
            // The guest now aborts all that is left.
            self.judge_those_who_wait(false, time);
        }
        self.tasks.remove(task);
        self.summary.tasks.remove(&task);
    }

    fn timer_set(&mut self, timer: TimerId, at: u64, on: u32) {
        // One that is set again has one time, and not two.
        if let Some((before, _)) = self.deadlines.insert(timer, (at, on)) {
            self.timers.remove(&(before, timer));
            self.due.remove(&timer);
        }
        self.timers.insert((at, timer));
        if self.deadlines.len() > REMEMBERED
            && let Some((timer, (at, _))) = self.deadlines.pop_first()
        {
            self.timers.remove(&(at, timer));
            self.due.remove(&timer);
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut findings: Vec<_> = self.findings.values().cloned().collect();
        findings.sort_by_key(|finding| (finding.time, finding.kind, finding.task));
        Report {
            findings,
            omitted: self.omitted,
            unwatched: self.tasks.left_out(),
            events: self.summary.events,
            lost: self.summary.lost,
            whole: self.summary.outcome.is_some(),
        }
    }

    fn find(&mut self, kind: FindingKind, task: TaskId, time: u64, weight: u64, what: String) {
        let name = match self.summary.tasks.get(&task) {
            Some(known) if !known.name.is_empty() => known.name.clone(),
            _ => task.to_string(),
        };
        let location = self
            .tasks
            .get(task)
            .and_then(|known| known.location.clone());
        let key = (kind, location.clone().unwrap_or_else(|| name.clone()));
        let finding = Finding {
            kind,
            task,
            name,
            location,
            time,
            count: 1,
            what,
            advice: kind.advice(),
            weight,
        };
        if let Some(known) = self.findings.get_mut(&key) {
            let count = known.count + 1;
            if weight > known.weight {
                *known = finding;
            }
            known.count = count;
        } else if self.findings.len() < FINDINGS {
            self.findings.insert(key, finding);
        } else {
            self.omitted += 1;
        }
    }

    // Polls ----------------------------------------------------------------------------

    fn poll_begins(&mut self, on: u32, task: TaskId, time: u64) {
        self.judge_wakes(task, time);
        let watched = self.tasks.polled(task);
        watched.state = State::Queued;
        let by_another = std::mem::take(&mut watched.by_another);
        let running = self.running.of(on);
        running.poll = Some(Poll {
            task,
            computed: running.computed,
            begin: time,
            woken: false,
            by_another,
        });
    }

    fn poll_ends(&mut self, on: u32, task: TaskId, result: PollResult, time: u64) {
        let running = self.running.of(on);
        running.compute(time);
        // Without the beginning, which was lost, nothing more can be said.
        let Some(poll) = running.poll.take().filter(|poll| poll.task == task) else {
            return;
        };
        let length = time.saturating_sub(poll.begin);
        running.polled = running.polled.saturating_add(length);
        let computed = running.computed - poll.computed;
        self.judge_length(&poll, computed, "computed", time);
        if poll.by_another && matches!(result, PollResult::Pending { .. }) {
            self.circle.count(task, poll.begin, length);
        }
        if let PollResult::Pending { on, .. } = result
            && !poll.woken
        {
            let is_sure = self.is_sure(task);
            let watched = self.tasks.of(task);
            let deaf = is_sure && watched.wakers <= 0 && is_own(on);
            watched.state = State::Pending {
                since: time,
                on,
                deaf,
            };
        }
    }

    fn judge_length(&mut self, poll: &Poll, computed: u64, verb: &str, time: u64) {
        if computed > nanos(self.thresholds.poll) {
            let took = duration(time.saturating_sub(poll.begin));
            let what = format!("{verb} for {} in one poll of {took}", duration(computed));
            self.find(FindingKind::LongPoll, poll.task, poll.begin, computed, what);
        }
    }

    // Wakes ----------------------------------------------------------------------------

    /// Whether all that happened to the wakers of a task was seen.
    fn is_sure(&self, task: TaskId) -> bool {
        let watched = self.tasks.get(task);
        watched.is_some_and(|watched| watched.since == Some(self.holes))
    }

    fn judge_wakes(&mut self, task: TaskId, time: u64) {
        let wakes = std::mem::take(&mut self.tasks.of(task).wakes);
        if wakes > self.thresholds.wakes {
            let what = format!("was woken {} times before one poll", units::count(wakes));
            self.find(FindingKind::WakeStorm, task, time, wakes, what);
        }
    }

    /// What can be said of the polls since something happened the last time.
    fn judge_circle(&mut self) {
        let circle = self.circle.broken();
        if circle.polls <= self.thresholds.circle
            || circle.length / circle.polls > nanos(self.thresholds.spurious_length)
        {
            return;
        }
        if let Some((task, others @ 1..)) = circle.tasks() {
            let what = format!(
                "and {others} more woke each other for {} polls, and nothing else happened meanwhile",
                units::count(circle.polls)
            );
            let kind = FindingKind::WakeCircle;
            self.find(kind, task, circle.since, circle.polls, what);
        }
    }

    /// What can be said of a task at its end, or at that of the run.
    fn judge(&mut self, task: TaskId, time: u64) {
        self.judge_wakes(task, time);
        let Some(summary::Task {
            polls,
            spurious,
            busy,
            ..
        }) = self.summary.tasks.get(&task)
        else {
            return;
        };
        let (polls, spurious, busy) = (*polls, *spurious, *busy);
        let share = spurious as f64 / polls.max(1) as f64;
        if polls >= self.thresholds.spurious_polls
            && share > self.thresholds.spurious
            && busy / polls.max(1) <= nanos(self.thresholds.spurious_length)
        {
            let what = format!(
                "was polled {} times, {} of them ({:.0} %) in vain",
                units::count(polls),
                units::count(spurious),
                share * 100.0
            );
            self.find(FindingKind::SpuriousPolls, task, time, spurious, what);
        }
    }

    fn finish(&mut self, status: u8, time: u64) {
        let polled = self.running.iter_mut().filter_map(|running| {
            running.compute(time);
            let poll = running.poll.take()?;
            let computed = running.computed - poll.computed;
            Some((poll, computed))
        });
        for (poll, computed) in polled.collect::<Vec<_>>() {
            self.judge_length(&poll, computed, "had computed", time);
        }
        for task in self.sorted() {
            self.judge(task, time);
        }
        self.judge_those_who_wait(status == DEADLOCK, time);
    }

    fn sorted(&self) -> Vec<TaskId> {
        let mut tasks: Vec<_> = self.tasks.iter().map(|(task, _)| task).collect();
        tasks.sort_unstable();
        tasks
    }

    fn judge_those_who_wait(&mut self, is_deadlock: bool, time: u64) {
        if !std::mem::replace(&mut self.over, true) {
            for task in self.sorted() {
                self.judge_waiting(task, is_deadlock, time);
            }
        }
    }

    /// What can be said of a task that waits when the run ends.
    fn judge_waiting(&mut self, task: TaskId, is_deadlock: bool, time: u64) {
        let is_sure = self.is_sure(task);
        let watched = self.tasks.of(task);
        let State::Pending { since, on, deaf } = watched.state else {
            return;
        };
        let waited = time.saturating_sub(since);
        let nobody = watched.wakers <= 0;
        let unwoken = self.thresholds.unwoken.map(nanos);
        let (kind, what) = if deaf {
            // `main` that waits for ever lets others work until somebody ends the guest.
            if task == MAIN && !is_deadlock {
                return;
            }
            let what = "returned Pending without having given its waker to anybody, and was never \
                        polled again";
            (FindingKind::NoWaker, what.to_owned())
        } else if is_sure && nobody && is_own(on) {
            let what = "waits, but its last waker was dropped uncalled";
            (FindingKind::NeverWoken, what.to_owned())
        } else if is_deadlock && !matches!(on, Some(Awaited::Task(_))) {
            let what = "waits, and when the run ended nothing was left that could wake it";
            (FindingKind::NeverWoken, what.to_owned())
        } else if is_own(on) && unwoken.is_some_and(|most| waited > most) && task != MAIN {
            let what = format!("had not been woken for {} at the end", duration(waited));
            (FindingKind::NeverWoken, what)
        } else {
            return;
        };
        self.find(kind, task, since, waited, what);
    }

    // Timers ---------------------------------------------------------------------------

    /// Notes which timers are due by now.
    fn become_due(&mut self, time: u64) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= time
        {
            self.timers.pop_first();
            let on = self.deadlines.get(&timer).map_or(0, |(_, on)| *on);
            let running = self.running.of(on);
            let begun = running.poll.as_ref().map_or(at, |poll| poll.begin.min(at));
            let polled = running.polled.saturating_add(at - begun);
            self.due.insert(timer, polled);
        }
    }

    fn fires(&mut self, timer: TimerId, task: TaskId, time: u64) {
        let Some((at, on)) = self.deadlines.remove(&timer) else {
            return;
        };
        self.timers.remove(&(at, timer));
        let now = self.running.of(on).polled;
        let polled = self.due.remove(&timer).unwrap_or(now);
        let late = time.saturating_sub(at);
        let polled = now.saturating_sub(polled);
        let most = nanos(self.thresholds.late);
        if polled > most || late > most.saturating_mul(10) {
            let what = format!(
                "was woken by {timer} {} too late; polls took {} of that",
                duration(late),
                duration(polled)
            );
            self.find(FindingKind::LateTimer, task, at, late, what);
        }
    }
}

impl Sink for Lint {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.look(event);
        Ok(())
    }
}

/// Whether a task waits for something of the guest's own making.
fn is_own(on: Option<Awaited>) -> bool {
    matches!(on, None | Some(Awaited::Unknown))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn duration(nanos: u64) -> String {
    units::duration(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests;
