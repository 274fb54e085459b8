//! Who watches the guests of the group `traces`: every sink of the library, the screen of `wakebox top`,
//! and what all that costs.

use std::io::{self, Write};

use wakebox::trace::lint::{Lint, Thresholds};
use wakebox::trace::{Event, Recording, Shared, Sink, Summary, json, timeline};
use wakebox::{Builder, Sandbox};
use wakebox_cli::Picture;
use wakebox_hostile::Case;

use crate::memory::heap_in_use;

/// What all sinks together, and what waits for them, may take of the heap at once, in bytes. Without a
/// bound on tasks they would take more for those that the cases make up: what woke a task, and on which processor, is
/// known of 65,536 by each that draws.
const HEAP: u64 = 144 << 20;
/// The same when all tasks have names and locations of the longest: six sinks know 65,536 tasks each, of
/// half a KiB with both, and a table that grows is there twice.
const HEAP_OF_NAMES: u64 = 384 << 20;
/// Places of the ring: fewer than usual, so that it is often full.
const RECORDS: u32 = 1 << 13;
/// Events between two looks at the heap.
const LOOK_EVERY: u64 = 1 << 12;
/// Events between two pictures: a person sees ten a second, of which each sorts all tasks.
const DRAW_EVERY: u64 = 1 << 17;

/// The sinks that are asked afterwards.
pub(super) struct Watchers {
    lint: Shared<Lint>,
    heap: Shared<Heap>,
    file: Shared<json::Writer<Clean>>,
    page: Shared<timeline::Writer<Clean>>,
}

impl Watchers {
    /// Has a sandbox watched.
    pub(super) fn watch(builder: Builder) -> (Self, Builder) {
        let watchers = Self {
            lint: Shared::new(Lint::new(Thresholds::default())),
            heap: Shared::new(Heap::new()),
            file: Shared::new(json::Writer::new(Clean)),
            page: Shared::new(timeline::Writer::new(Clean)),
        };
        let builder = builder
            .trace(watchers.lint.clone())
            .trace(Summary::new())
            .trace(Recording::new().most(1 << 17))
            .trace(watchers.file.clone())
            .trace(watchers.page.clone())
            .trace(Top::new())
            .trace(watchers.heap.clone())
            .trace_records(RECORDS);
        (watchers, builder)
    }

    /// Whether all of them have seen the end, and kept no more than they may.
    pub(super) fn check(&self, case: &Case, sandbox: &Sandbox) -> Result<(), String> {
        if let Some(error) = sandbox.trace_error() {
            return Err(format!("a sink failed: {error}"));
        }
        let report = self.lint.with(|lint| lint.report());
        if !report.whole {
            return Err("the trace has no end".into());
        }
        let grown = self.heap.with(|heap| heap.peak - heap.before);
        let most = match case.name.as_str() {
            "traces/names-of-the-longest" => HEAP_OF_NAMES,
            _ => HEAP,
        };
        if grown > most {
            return Err(format!("{grown} bytes were kept while it was watched"));
        }
        Ok(())
    }
}

/// Draws the screen of `wakebox top` now and then, and at the end.
struct Top {
    picture: Picture,
    events: u64,
}

impl Top {
    fn new() -> Self {
        Self {
            picture: Picture::new(100, 40).expect("a terminal in memory"),
            events: 0,
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let shown = self.picture.draw()?;
        match shown.chars().find(|char| char.is_control()) {
            Some(char) => Err(io::Error::other(format!("{char:?} is on the screen"))),
            None => Ok(()),
        }
    }
}

impl Sink for Top {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.picture.event(event)?;
        self.events += 1;
        if self.events.is_multiple_of(DRAW_EVERY) {
            self.look()?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.picture.end()?;
        self.look()
    }
}

/// Looks at the heap now and then.
struct Heap {
    before: u64,
    peak: u64,
    events: u64,
}

impl Heap {
    fn new() -> Self {
        let before = heap_in_use();
        Self {
            before,
            peak: before,
            events: 0,
        }
    }

    fn look(&mut self) {
        self.peak = self.peak.max(heap_in_use());
    }
}

impl Sink for Heap {
    fn event(&mut self, _: &Event) -> io::Result<()> {
        self.events += 1;
        if self.events.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.look();
        Ok(())
    }
}

/// Takes lines without the control characters that JSON forbids, and nothing else.
struct Clean;

impl Write for Clean {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.iter().find(|byte| **byte < b' ' && **byte != b'\n') {
            Some(byte) => Err(io::Error::other(format!("the control character {byte:#x}"))),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
