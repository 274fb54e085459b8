//! Who receives a trace.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::event::{Event, EventKind, TaskId};

/// Receives the events of a run, each once, in the order of their times, on a thread of the trace's
/// own.
///
/// A sink that is slow slows the sandbox down: when too many events wait for it
/// ([`BACKLOG`](super::BACKLOG)), the guest, once left, is not entered before it has caught up.
/// No event is lost by that.
pub trait Sink: Send {
    /// Takes an event.
    ///
    /// # Errors
    ///
    /// What it could not do. The sink is not called again, the sandbox goes on, and
    /// [`Sandbox::trace_error`](crate::Sandbox::trace_error) has the error.
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

/// Those of one sandbox.
#[derive(Default)]
pub(crate) struct Sinks(pub(crate) Vec<Box<dyn Sink>>);

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sinks({})", self.0.len())
    }
}

/// Keeps all events. Clones share what they keep: give one to
/// [`Builder::trace`](crate::Builder::trace) and ask the other.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Vec<Event>>>);

impl Recording {
    /// An empty recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What there is so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Sink for Recording {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event.clone());
        Ok(())
    }
}

/// A sink that can be looked into while it receives a run and afterwards: give a clone to
/// [`Builder::trace`](crate::Builder::trace).
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

/// The names of tasks, learnt from the events that spawn them. Grows with the number of tasks.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<TaskId, String>);

impl Names {
    /// No names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns what an event says.
    pub fn learn(&mut self, event: &Event) {
        if let EventKind::Spawned { task, name, .. } = &event.kind {
            self.0.insert(*task, name.clone());
        }
    }

    /// The name of a task; "task 7" if it is not known. Any text, as the guest wrote it: escape it
    /// for wherever it goes.
    #[must_use]
    pub fn name(&self, task: TaskId) -> String {
        match self.0.get(&task) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => task.to_string(),
        }
    }
}
