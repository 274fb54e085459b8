//! The threads that poll, each with a Tokio runtime of its own.
//!
//! A process has one for four processors, started when the first sandbox is given to it: a thread that
//! polls burns a processor, which guests and the embedder want as well. A sandbox goes to the thread that
//! has the fewest and stays there, with its sockets and timers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle};
use wakebox_vmm::process::PerProcess;
use wakebox_vmm::system::System;

use crate::error::{Error, Result};
use crate::{outside, signals};

/// A thread's name.
const NAME: &str = "wakebox-driver";

/// Processors for which there is one thread.
const PROCESSORS: usize = 4;

/// Turns of a thread's tasks between two looks at its sockets and timers, while there is always one
/// that has something to do.
const TURNS_A_LOOK: u32 = 4;

/// Looks at a ring between two visits to the reactor, if a thread looks at one ring alone.
const LOOKS_A_VISIT: u32 = 128;

/// How many threads a process has that may use so many processors.
pub(crate) fn threads_for(processors: usize) -> usize {
    (processors / PROCESSORS).max(1)
}

/// Which of the threads, that have so many, gets the next: the first of those that have the fewest.
pub(crate) fn next(loads: impl Iterator<Item = usize>) -> usize {
    let fewest = loads.enumerate().min_by_key(|(_, load)| *load);
    fewest.map_or(0, |(thread, _)| thread)
}

/// How often a thread looks at a ring before it goes on to the next, if it looks at so many by turns: about as long a round,
/// however many there are, since each of them waits for all the others.
pub(crate) fn looks_a_visit(looked_at: usize) -> u32 {
    LOOKS_A_VISIT
        / u32::try_from(looked_at)
            .unwrap_or(u32::MAX)
            .clamp(1, LOOKS_A_VISIT)
}

/// A thread that polls.
#[derive(Debug, Default)]
struct Thread {
    runtime: OnceLock<Handle>,
    starting: Mutex<()>,
    /// Sandboxes that it has.
    sandboxes: AtomicUsize,
    /// Those whose rings it looks at now.
    looked_at: AtomicUsize,
}

/// The threads of a process.
#[derive(Debug)]
pub(crate) struct Pollers(Box<[Thread]>);

impl Pollers {
    /// Those of this process. A child after `fork` has not inherited its parent's threads, and must leave
    /// its reactors alone: it has its own.
    ///
    /// # Errors
    ///
    /// As [`System::get`].
    pub(crate) fn of_process() -> Result<&'static Self> {
        static POLLERS: PerProcess<Pollers> = PerProcess::new();
        let processors = System::get()?.processors;
        Ok(POLLERS.get_or_init(|| Self::new(threads_for(processors))))
    }

    /// So many.
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| Thread::default()).collect())
    }

    /// A place for a sandbox, on the thread that has the fewest.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] if that is to be started and cannot be.
    pub(crate) fn place(&'static self) -> Result<Place> {
        // Two that look at the same time may choose the same: no harm.
        let loads = self.0.iter();
        let thread = &self.0[next(loads.map(|thread| thread.sandboxes.load(Ordering::Relaxed)))];
        let runtime = thread.runtime()?.clone();
        thread.sandboxes.fetch_add(1, Ordering::Relaxed);
        Ok(Place { runtime, thread })
    }
}

impl Thread {
    /// Its runtime, started at the first call.
    fn runtime(&self) -> Result<&Handle> {
        if let Some(handle) = self.runtime.get() {
            return Ok(handle);
        }
        let _one_at_a_time = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = self.runtime.get() {
            return Ok(handle);
        }
        let failed = |source| Error::Thread { name: NAME, source };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(TURNS_A_LOOK)
            .on_thread_start(outside::this_thread_is_ours)
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let body = move || runtime.block_on(std::future::pending::<()>());
        signals::spawn(NAME, None, body).map_err(failed)?;
        Ok(self.runtime.get_or_init(|| handle))
    }
}

/// A sandbox's place on a thread, which has it until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// The thread's runtime.
    pub(crate) runtime: Handle,
    thread: &'static Thread,
}

impl Place {
    /// The thread looks at the sandbox's rings from now on, by turns with those of others.
    pub(crate) fn looks(&self) -> Looks<'_> {
        self.thread.looked_at.fetch_add(1, Ordering::Relaxed);
        Looks(self.thread)
    }
}

/// That a thread looks at rings, until this is dropped.
#[derive(Debug)]
pub(crate) struct Looks<'a>(&'a Thread);

impl Looks<'_> {
    /// How often it is to look at these now.
    pub(crate) fn a_visit(&self) -> u32 {
        looks_a_visit(self.0.looked_at.load(Ordering::Relaxed))
    }
}

impl Drop for Looks<'_> {
    fn drop(&mut self) {
        self.0.looked_at.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.thread.sandboxes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_spread_over_threads_that_start_when_they_are_needed() {
        static POLLERS: PerProcess<Pollers> = PerProcess::new();
        let pollers = POLLERS.get_or_init(|| Pollers::new(3));
        let started = || {
            let threads = pollers.0.iter();
            threads
                .filter(|thread| thread.runtime.get().is_some())
                .count()
        };
        assert_eq!(started(), 0);
        let first = pollers.place().unwrap();
        assert_eq!(started(), 1);
        let mut places: Vec<_> = (0..5).map(|_| pollers.place().unwrap()).collect();
        assert_eq!(started(), 3);
        let mut ids: Vec<_> = places.iter().map(|place| place.runtime.id()).collect();
        ids.push(first.runtime.id());
        let each = |id| ids.iter().filter(|other| **other == id).count();
        assert!(ids.iter().all(|id| each(*id) == 2), "{ids:?}");
        // Who has lost one gets the next.
        let left = first.runtime.id();
        drop(first);
        places.push(pollers.place().unwrap());
        assert_eq!(places.last().map(|place| place.runtime.id()), Some(left));
        assert_eq!([1, 4, 7, 8, 256].map(threads_for), [1, 1, 1, 2, 64]);
    }

    #[test]
    fn of_several_rings_each_is_looked_at_for_its_part() {
        static POLLERS: PerProcess<Pollers> = PerProcess::new();
        let pollers = POLLERS.get_or_init(|| Pollers::new(1));
        let places = [pollers.place().unwrap(), pollers.place().unwrap()];
        let first = places[0].looks();
        assert_eq!(first.a_visit(), LOOKS_A_VISIT);
        let second = places[1].looks();
        assert_eq!(first.a_visit(), LOOKS_A_VISIT / 2);
        drop(second);
        assert_eq!(first.a_visit(), LOOKS_A_VISIT);
        assert_eq!(
            [0, 1, 3, 128, 1_000].map(looks_a_visit),
            [128, 128, 42, 1, 1]
        );
    }

    #[test]
    fn each_thread_turns_the_reactor_of_its_sandboxes() {
        static POLLERS: PerProcess<Pollers> = PerProcess::new();
        let pollers = POLLERS.get_or_init(|| Pollers::new(2));
        let places = [pollers.place().unwrap(), pollers.place().unwrap()];
        let threads = places.each_ref().map(|place| {
            let (tell, told) = std::sync::mpsc::channel();
            place.runtime.spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                tell.send(std::thread::current().id()).unwrap();
            });
            told.recv().unwrap()
        });
        assert_ne!(threads[0], threads[1]);
    }
}
