//! Who receives a trace.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::{Event, EventKind, TaskId};
use super::tasks::TASKS;

/// Receives the events of a run, each once, in the order of their times, on a thread of the trace's
/// own.
///
/// A sink that is slow slows the sandbox down: when too many events wait for it
/// (`wakebox::trace::BACKLOG`), the guest, once left, is not entered before it has caught up.
/// No event is lost by that.
pub trait Sink: Send {
    /// Takes an event.
    ///
    /// # Errors
    ///
    /// What it could not do. The sink is not called again, the sandbox goes on, and
    /// `Sandbox::trace_error` has the error.
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// No further event waits at the moment: a good time to show or to write out what there is.
    ///
    /// # Errors
    ///
    /// As [`Self::event`].
    fn caught_up(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// There will be no further event.
    ///
    /// # Errors
    ///
    /// As [`Self::event`].
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        (**self).event(event)
    }

    fn caught_up(&mut self) -> io::Result<()> {
        (**self).caught_up()
    }

    fn end(&mut self) -> io::Result<()> {
        (**self).end()
    }
}

/// Most events that a [`Recording`] keeps, unless it is said: about 200 MiB, and less than twice
/// as much of events with names, which count as several.
pub const RECORDED: usize = 1 << 21;

/// Bytes of text that count as an event.
const TEXT: usize = size_of::<Event>();

/// Keeps the first [`RECORDED`] events. Clones share what they keep: give one to
/// `Builder::trace` and ask the other.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

#[derive(Debug)]
struct Recorded {
    events: Vec<Event>,
    /// What they count.
    counted: usize,
    most: usize,
    left_out: u64,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            counted: 0,
            most: RECORDED,
            left_out: 0,
        }
    }
}

impl Recording {
    /// An empty recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps so many events at most, instead of [`RECORDED`]. A name, a location in the source or an outcome
    /// counts as further events, as many as lie in its length.
    #[must_use]
    pub fn most(self, events: usize) -> Self {
        self.lock().most = events;
        self
    }

    /// What there is so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Events that were not kept, because there were too many before them.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Recording {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let mut recorded = self.lock();
        let counts = recorded.counted + 1 + event.kind.text_len() / TEXT;
        if recorded.left_out == 0 && counts <= recorded.most {
            recorded.counted = counts;
            recorded.events.push(event.clone());
        } else {
            recorded.left_out += 1;
        }
        Ok(())
    }
}

/// A sink that can be looked into while it receives a run and afterwards: give a clone to
/// `Builder::trace`.
#[derive(Debug, Default)]
pub struct Shared<S>(Arc<Mutex<S>>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Shared<S> {
    /// Shares a sink.
    #[must_use]
    pub fn new(sink: S) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    /// Looks into the sink. It gets no event meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Sink> Sink for Shared<S> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.with(|sink| sink.event(event))
    }

    fn caught_up(&mut self) -> io::Result<()> {
        self.with(Sink::caught_up)
    }

    fn end(&mut self) -> io::Result<()> {
        self.with(Sink::end)
    }
}

/// The names of tasks, learnt from the events that spawn them. Of more than
/// [`TASKS`](super::TASKS), those that were spawned first are forgotten.
#[derive(Clone, Debug, Default)]
pub struct Names {
    known: HashMap<TaskId, String>,
    /// Those that are known, the first first; one that was spawned again stands there twice.
    order: VecDeque<TaskId>,
}

impl Names {
    /// No names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns what an event says.
    pub fn learn(&mut self, event: &Event) {
        if let EventKind::Spawned { task, name, .. } | EventKind::Lives { task, name } = &event.kind
        {
            self.known.insert(*task, name.clone());
            self.order.push_back(*task);
            if self.order.len() > TASKS
                && let Some(first) = self.order.pop_front()
            {
                self.known.remove(&first);
            }
        }
    }

    /// The name of a task; "task 7" if it is not known. Any text, as the guest wrote it: escape it
    /// for wherever it goes.
    #[must_use]
    pub fn name(&self, task: TaskId) -> String {
        match self.known.get(&task) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => task.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Side;

    fn spawned(task: u32) -> Event {
        Event {
            time: 0,
            side: Side::Guest,
            processor: 0,
            kind: EventKind::Spawned {
                task: TaskId(task),
                by: None,
                name: format!("n{task}"),
                location: None,
            },
        }
    }

    #[test]
    fn a_recording_keeps_the_first_events_and_counts_the_others() {
        let recording = Recording::new().most(3);
        let mut sink = recording.clone();
        for task in 1..=5 {
            sink.event(&spawned(task)).unwrap();
        }
        let events = recording.events();
        assert_eq!(events, [spawned(1), spawned(2), spawned(3)]);
        assert_eq!(recording.left_out(), 2);
    }

    #[test]
    fn in_a_recording_long_names_count_as_events() {
        let recording = Recording::new().most(10);
        let mut sink = recording.clone();
        let mut long = spawned(1);
        if let EventKind::Spawned { name, .. } = &mut long.kind {
            *name = "n".repeat(4 * TEXT);
        }
        for event in [&long, &long, &long] {
            sink.event(event).unwrap();
        }
        assert_eq!((recording.events().len(), recording.left_out()), (2, 1));
    }

    #[test]
    fn of_too_many_names_the_first_are_forgotten() {
        let mut names = Names::new();
        for task in 1..=TASKS as u32 + 2 {
            names.learn(&spawned(task));
        }
        assert_eq!(names.name(TaskId(2)), TaskId(2).to_string());
        assert_eq!(names.name(TaskId(3)), "n3");
        assert_eq!((names.known.len(), names.order.len()), (TASKS, TASKS));
    }
}
