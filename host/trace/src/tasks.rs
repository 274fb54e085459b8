//! What a sink knows of tasks: of so many at most, whatever a guest spawns or says that it has.

use std::collections::HashMap;

use super::event::TaskId;

/// Most tasks of which a sink knows something at once. Of further ones it has the number.
pub const TASKS: usize = 1 << 16;

/// What a sink knows of each task that lives, of [`TASKS`] at most.
#[derive(Debug, Default)]
pub struct Tasks<T> {
    known: HashMap<TaskId, T>,
    /// Stands for every task that is not known.
    rest: T,
    left_out: u64,
}

impl<T: Default> Tasks<T> {
    /// Nothing is known of any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A task that begins; `None` if there are too many.
    pub fn spawned(&mut self, task: TaskId) -> Option<&mut T> {
        if self.known.len() < TASKS || self.known.contains_key(&task) {
            return Some(self.known.entry(task).or_default());
        }
        self.left_out += 1;
        None
    }

    /// A task that is being polled, and so lives, whether or not it was seen to begin.
    pub fn polled(&mut self, task: TaskId) -> &mut T {
        if self.known.len() < TASKS {
            self.known.entry(task).or_default()
        } else {
            self.of(task)
        }
    }

    /// What is known of a task. One that is not known, perhaps because it is over and somebody still
    /// has a waker of it, does not become known by being asked for: what is noted of it goes nowhere.
    pub fn of(&mut self, task: TaskId) -> &mut T {
        self.known.get_mut(&task).unwrap_or(&mut self.rest)
    }

    /// What is known of a task, if it is known.
    #[must_use]
    pub fn get(&self, task: TaskId) -> Option<&T> {
        self.known.get(&task)
    }

    /// Forgets a task, which is over.
    pub fn remove(&mut self, task: TaskId) {
        self.known.remove(&task);
    }

    /// Tasks that began when there were too many.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Those that are known, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &T)> {
        self.known.iter().map(|(task, known)| (*task, known))
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_tasks_are_counted_and_not_kept() {
        let mut tasks = Tasks::<u64>::default();
        for task in 0..TASKS as u32 + 10 {
            if let Some(known) = tasks.spawned(TaskId(task)) {
                *known += 1;
            }
            *tasks.polled(TaskId(task)) += 1;
        }
        assert_eq!((tasks.len(), tasks.left_out()), (TASKS, 10));
        assert_eq!(tasks.get(TaskId(0)), Some(&2));
        assert_eq!(tasks.get(TaskId(TASKS as u32)), None);
    }

    #[test]
    fn a_task_that_is_over_does_not_come_back() {
        let mut tasks = Tasks::<u64>::default();
        tasks.spawned(TaskId(1));
        tasks.remove(TaskId(1));
        *tasks.of(TaskId(1)) += 1;
        assert_eq!(tasks.len(), 0);
    }
}
