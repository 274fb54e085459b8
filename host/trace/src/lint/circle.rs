//! Tasks that wake each other in turns and get nowhere.

use crate::event::{Cause, EventKind, TaskId};

/// Tasks whose names are kept; a circle of more looks like one of so many.
const TASKS: usize = 16;

/// The polls since something happened: since an operation began or ended, a timer fired, a task was
/// spawned or ended.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// Polls that came of a wake by another task and ended pending.
    pub(super) polls: u64,
    /// How long they took, in nanoseconds.
    pub(super) length: u64,
    /// When the first of them began.
    pub(super) since: u64,
    /// Whose they were, the first ones.
    tasks: Vec<TaskId>,
}

impl Circle {
    /// Counts a poll.
    pub(super) fn count(&mut self, task: TaskId, begin: u64, length: u64) {
        if self.polls == 0 {
            self.since = begin;
        }
        self.polls += 1;
        self.length = self.length.saturating_add(length);
        if self.tasks.len() < TASKS && !self.tasks.contains(&task) {
            self.tasks.push(task);
        }
    }

    /// Something happened: the circle so far, to be judged.
    pub(super) fn broken(&mut self) -> Self {
        std::mem::take(self)
    }

    /// The first task of it, and how many others there are.
    pub(super) fn tasks(&self) -> Option<(TaskId, usize)> {
        let (first, others) = self.tasks.split_first()?;
        Some((*first, others.len()))
    }
}

/// Whether a wake is one task's word to another.
pub(super) fn is_by_another(by: Cause, task: TaskId) -> bool {
    matches!(by, Cause::Task(other) if other != task)
}

/// Whether something happened that tasks do not only say to each other.
pub(super) fn is_progress(event: &EventKind) -> bool {
    match event {
        EventKind::Woken { by, .. } => !matches!(by, Cause::Task(_) | Cause::Itself),
        EventKind::Spawned { .. }
        | EventKind::Ended { .. }
        | EventKind::Submitted { .. }
        | EventKind::OpEnds { .. }
        | EventKind::Finished { .. } => true,
        _ => false,
    }
}
