//! The hostile cases: what a guest may try, and how each attempt must end.
//!
//! The table is made of functions that are guest code, so it serves both sides: the guest finds the
//! case that it was named and runs it, the tests read how it must end. Everything is written
//! against `wakebox-abi` alone. `README.md` beside this package tells how to run and how to add one.
#![no_std]

mod calls;
mod case;
mod embedder;
mod entries;
mod guest;
mod handles;
mod items;
mod kept;
mod lies;
mod loops;
mod memory;
mod ports;
mod processor;
mod races;
mod reports;
mod rings;
mod state;
mod told;
mod traces;
mod turns;
mod typed;
mod upcalls;
mod windows;
mod words;

pub use case::{Act, Answer, Args, Case, End, Ends, Expect, Modes, Name, Trap, Violated};
pub use guest::{Entered, Guest};

/// The machine that the cases expect.
pub mod machine {
    /// RAM in bytes.
    pub const MEMORY: u64 = 4 << 20;
    /// I/O arena in bytes.
    pub const ARENA: u64 = 128 << 10;
    /// Stack in bytes.
    pub const STACK: u64 = 64 << 10;
    /// Most operations in flight, and entries of both rings.
    pub const IN_FLIGHT: u32 = 64;
    /// Bytes that the host keeps for a guest, in the group `kept`.
    pub const KEPT: u64 = 1 << 20;
    /// Most open handles.
    pub const HANDLES: u32 = 16;
    /// RAM in bytes for the group `turns`.
    pub const LARGE_MEMORY: u64 = 32 << 20;
    /// I/O arena in bytes for the group `turns`: as long as the longest message that a host takes.
    pub const LARGE_ARENA: u64 = 16 << 20;
    /// Most operations in flight for the group `turns`.
    pub const LARGE_IN_FLIGHT: u32 = 4096;
}

/// A group of cases.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What stands before the slash in its cases' names.
    pub name: &'static str,
    /// What they are about.
    pub about: &'static str,
    cases: fn(&mut dyn FnMut(Case)),
}

/// The groups.
pub const GROUPS: &[Group] = &[
    Group {
        name: "processor",
        about: "instructions, interrupts, segments and flags that are not for ring 3",
        cases: processor::cases,
    },
    Group {
        name: "memory",
        about: "reads, writes and executions at, over and around every boundary",
        cases: memory::cases,
    },
    Group {
        name: "ports",
        about: "ports that are no doorbells, and doorbells rung in every way",
        cases: ports::cases,
    },
    Group {
        name: "words",
        about: "every word of the control page wrong, in turn and in pairs",
        cases: words::cases,
    },
    Group {
        name: "entries",
        about: "every field of every operation wrong, in turn and in pairs",
        cases: entries::cases,
    },
    Group {
        name: "rings",
        about: "indices that jump, run back and wrap; floods; rings that are never read",
        cases: rings::cases,
    },
    Group {
        name: "races",
        about: "what the host reads changes while it reads it",
        cases: races::cases,
    },
    Group {
        name: "handles",
        about: "handles that are forged, stale or of another kind",
        cases: handles::cases,
    },
    Group {
        name: "calls",
        about: "calls and replies that make no sense, in either direction",
        cases: calls::cases,
    },
    Group {
        name: "embedder",
        about: "the embedder's own code, brought to panic, to wait and to call back",
        cases: embedder::cases,
    },
    Group {
        name: "kept",
        about: "what the host is made to keep in its own memory",
        cases: kept::cases,
    },
    Group {
        name: "reports",
        about: "last words made to harm who reads them",
        cases: reports::cases,
    },
    Group {
        name: "told",
        about: "tasks and blocks of the heap that are told of and are not there, or without end",
        cases: told::cases,
    },
    Group {
        name: "traces",
        about: "what a guest tells of itself, made to harm who watches",
        cases: traces::cases,
    },
    Group {
        name: "state",
        about: "what one guest leaves in the processor, and what the next one finds",
        cases: state::cases,
    },
    Group {
        name: "lies",
        about: "sleeping while awake, waking while asleep, and modes that do not exist",
        cases: lies::cases,
    },
    Group {
        name: "upcalls",
        about: "upcalls to where none should go, never masked, never returning, and in ring 0",
        cases: upcalls::cases,
    },
    Group {
        name: "windows",
        about: "pages that are not the guest's laid where none may lie, and faults that go on where none should",
        cases: windows::cases,
    },
    Group {
        name: "loops",
        about: "loops without end, which the wall clock ends",
        cases: loops::cases,
    },
    Group {
        name: "turns",
        about: "every operation at its worst, without end: as many and as large as can be",
        cases: turns::cases,
    },
];

impl Group {
    /// Visits its cases in order.
    pub fn cases(&self, visit: &mut dyn FnMut(Case)) {
        (self.cases)(visit);
    }
}

/// Visits all cases in order.
pub fn cases(visit: &mut dyn FnMut(Case)) {
    for group in GROUPS {
        group.cases(visit);
    }
}

/// The case of a name.
pub fn find(name: &str) -> Option<Case> {
    let mut found = None;
    let group = name.split('/').next()?;
    let group = GROUPS.iter().find(|known| known.name == group)?;
    group.cases(&mut |case| {
        if case.name.as_str() == name {
            found = Some(case);
        }
    });
    found
}
