//! The rungs of the ladder (`tests/guests/ladder`), each run under the eyes of a trace.

use wakebox::trace::{Event, Recording};
use wakebox::{Limits, Policy, Sandbox, WakeMode};

use crate::{Ended, guest, run};

/// A rung.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// From 1 on.
    pub number: usize,
    /// What it builds.
    pub title: &'static str,
    /// The line that says what it cannot do yet.
    pub next: &'static str,
    /// How its guest sleeps.
    pub wake: WakeMode,
    /// How many processors it has.
    pub processors: u32,
}

const fn rung(number: usize, title: &'static str, next: &'static str) -> Rung {
    let wake = WakeMode::Out;
    Rung {
        number,
        title,
        next,
        wake,
        processors: 1,
    }
}

/// All of them, from the ground up.
pub const RUNGS: [Rung; 10] = [
    rung(1, "a future by hand", "who calls poll, and when?"),
    rung(
        2,
        "asking all the time",
        "poll only when there is a reason to",
    ),
    rung(3, "a waker", "more than one future"),
    rung(4, "a queue of tasks", "tasks that wait for a time"),
    rung(5, "timers", "waiting for sockets"),
    rung(6, "a reactor", "to be told, instead of having to look"),
    Rung {
        wake: WakeMode::Irq,
        ..rung(
            7,
            "an interrupt",
            "what if nobody wants the result any more?",
        )
    },
    rung(8, "join, select, cancel", "an interrupt that runs a future"),
    Rung {
        wake: WakeMode::Irq,
        ..rung(9, "an upcall", "a second processor")
    },
    Rung {
        processors: 2,
        ..rung(10, "a thread pool", "the library wakebox-guest")
    },
];

impl Rung {
    /// Runs it, optimized, and gives what happened.
    ///
    /// # Panics
    ///
    /// If its guest is not there or cannot be run.
    #[must_use]
    pub fn climb(&self) -> (Ended, Vec<Event>) {
        self.climb_in(self.wake)
    }

    /// Runs it in a mode that may not be its own.
    ///
    /// # Panics
    ///
    /// As [`Self::climb`].
    #[must_use]
    pub fn climb_in(&self, mode: WakeMode) -> (Ended, Vec<Event>) {
        let recording = Recording::new();
        let policy = Policy::new()
            .allow_connect("127.0.0.1".parse().expect("an address"))
            .allow_listen("127.0.0.1:0".parse().expect("an address with a port"));
        let builder = Sandbox::builder()
            .guest(guest(&format!("ladder-{}", self.number)))
            .wake(mode)
            .policy(policy)
            .limits(Limits::new().processors(self.processors));
        let ended = run(builder.trace(recording.clone()));
        (ended, recording.events())
    }
}
