//! What is known of a run at a moment.

use std::collections::{HashSet, VecDeque};
use std::io;

use wakebox::trace::{
    Awaited, Cause, Event, EventKind, OpId, PollResult, Sink, Summary, TaskId, Tasks,
};

/// Ended tasks that are still shown.
const ENDED: usize = 20;
/// Operations that can be in flight; more are not believed.
const IN_FLIGHT: usize = 1 << 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) summary: Summary,
    pub(super) tasks: Tasks<Row>,
    pub(super) guest: Option<String>,
    pub(super) mode: String,
    /// Whether the first processor is parked.
    first_parked: bool,
    /// Tasks that have ended.
    pub(super) ended: u64,
    in_flight: HashSet<OpId>,
    recently_ended: VecDeque<TaskId>,
}

/// A task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) state: State,
    /// Since when, in nanoseconds since the sandbox was made.
    pub(super) since: u64,
    /// Nanoseconds for which it has waited, up to `since`.
    pub(super) idle: u64,
    pub(super) woken_by: Option<Cause>,
    /// What it waits for.
    pub(super) on: Option<Awaited>,
    /// The processor on which it was polled last.
    pub(super) processor: u32,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It stands in the run queue.
    #[default]
    Ready,
    /// It is being polled.
    Polled,
    /// It waits.
    Waits,
    /// It is over.
    Ended,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Polled => "polled",
            Self::Waits => "waits",
            Self::Ended => "ended",
        }
    }
}

impl Row {
    fn become_(&mut self, state: State, time: u64) {
        if self.state == State::Waits {
            self.idle += time.saturating_sub(self.since);
        }
        self.state = state;
        self.since = time;
    }

    /// Nanoseconds for which it has waited by now.
    pub(super) fn idle_at(&self, now: u64) -> u64 {
        match self.state {
            State::Waits => self.idle + now.saturating_sub(self.since),
            _ => self.idle,
        }
    }
}

impl Board {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether no processor does anything.
    pub(super) fn is_parked(&self) -> bool {
        let others = self.summary.processors.iter().skip(1);
        self.first_parked && others.filter(|one| one.begun).all(|one| one.parked)
    }

    /// Whether the guest has several processors.
    pub(super) fn several(&self) -> bool {
        !self.summary.processors.is_empty()
    }

    fn look(&mut self, event: &Event) {
        self.summary.count(event);
        let time = event.time;
        match &event.kind {
            EventKind::Started { mode, guest, .. } => {
                self.mode.clone_from(mode);
                self.guest.clone_from(guest);
            }
            EventKind::Spawned { task, .. } => {
                if let Some(row) = self.tasks.spawned(*task) {
                    row.become_(State::Ready, time);
                }
            }
            EventKind::PollBegin { task } => {
                let row = self.tasks.polled(*task);
                row.become_(State::Polled, time);
                row.processor = event.processor;
            }
            EventKind::PollEnd { task, result } => {
                let row = self.tasks.of(*task);
                // Woken meanwhile, it is in the run queue already.
                if row.state == State::Polled {
                    row.become_(State::Waits, time);
                }
                row.on = match result {
                    PollResult::Pending { on, .. } => *on,
                    PollResult::Ready => None,
                };
            }
            EventKind::Woken {
                task, by, queued, ..
            } => {
                let row = self.tasks.of(*task);
                row.woken_by = Some(*by);
                if *queued {
                    row.become_(State::Ready, time);
                }
            }
            EventKind::Ended { task, .. } => {
                self.tasks.of(*task).become_(State::Ended, time);
                self.ended += 1;
                self.recently_ended.push_back(*task);
                if self.recently_ended.len() > ENDED
                    && let Some(task) = self.recently_ended.pop_front()
                {
                    self.tasks.remove(task);
                    self.summary.tasks.remove(&task);
                }
            }
            EventKind::Submitted { op, .. } | EventKind::OpBegins { op, .. }
                if self.in_flight.len() < IN_FLIGHT =>
            {
                self.in_flight.insert(*op);
            }
            EventKind::OpEnds { op, .. } => _ = self.in_flight.remove(op),
            EventKind::Parked if event.processor == 0 => self.first_parked = true,
            EventKind::Resumed if event.processor == 0 => self.first_parked = false,
            _ => {}
        }
    }
}

impl Sink for Board {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.look(event);
        Ok(())
    }
}
