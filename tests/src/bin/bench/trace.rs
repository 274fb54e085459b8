//! What it costs to be watched, and how much can be seen.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;
use wakebox::trace::{Event, EventKind, Sink, json};
use wakebox::{Output, Sandbox, WakeMode};
use wakebox_tests::guest;

use crate::pairs::{Costs, MODES, noops, probe};
use crate::table::{Bar, Row, Unit, median};

/// Turns of a guest that does nothing but tell of them: three events each.
const TURNS: u64 = 2_000_000;

/// A guest that can be watched and is not, beside the same without the feature.
pub(crate) fn off(runtime: &Runtime) -> Result<Vec<Row>> {
    let counted = Count::default();
    probe(
        runtime,
        noops("untraced", WakeMode::Out).trace(counted.clone()),
    )?;
    ensure!(
        counted.of_guest.load(Ordering::Relaxed) == 0,
        "the guest `untraced` can be watched: `cargo xtask bench` builds it without the feature"
    );
    let mut rows = Vec::new();
    for mode in MODES {
        let mut costs = Costs::default();
        while !costs.are_known_to(0.25) {
            let without = probe(runtime, noops("untraced", mode))?;
            let off = probe(runtime, noops("bench", mode))?;
            costs.add(without, off);
        }
        rows.extend(costs.rows("tracing off", mode, 1.0, None));
    }
    Ok(rows)
}

/// The same guest, watched in two ways, and not.
pub(crate) fn on(runtime: &Runtime) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("trace.json");
    let mut rows = Vec::new();
    for mode in MODES {
        let (mut counted, mut written) = (Costs::default(), Costs::default());
        while !(counted.are_known_to(5.0) && written.are_known_to(5.0)) {
            let off = probe(runtime, noops("bench", mode))?;
            let count = noops("bench", mode).trace(Count::default());
            counted.add(off, probe(runtime, count)?);
            let write = noops("bench", mode).trace(json::Writer::create(&file)?);
            written.add(off, probe(runtime, write)?);
        }
        rows.extend(counted.rows("tracing to a counter", mode, 25.0, None));
        rows.extend(written.rows("tracing to a JSON file", mode, 25.0, None));
    }
    Ok(rows)
}

/// Events from a guest that makes as many as it can, until the last is with the sink.
pub(crate) fn events(runtime: &Runtime) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let (mut counted, mut written) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let count = Count::default();
        counted.push(rate(runtime, TURNS, &count, None)?);
        let file = folder.path().join("trace.json");
        written.push(rate(runtime, TURNS / 10, &count, Some(&file))?);
    }
    let row = |to, rate| {
        let what = format!("events a second without loss, to a {to}");
        Row::new(what, Unit::PerSecond, rate)
    };
    Ok(vec![
        row("counter", median(counted)).bar(Bar::AtLeast(5e6)),
        row("JSON file", median(written)),
    ])
}

/// Events a second, all of which have arrived.
fn rate(runtime: &Runtime, turns: u64, count: &Count, file: Option<&Path>) -> Result<f64> {
    let before = count.events.load(Ordering::Relaxed);
    let mut builder = Sandbox::builder()
        .guest(guest("traced"))
        .wake(WakeMode::Out)
        .stdout(Output::Null)
        .args(["events".to_owned(), turns.to_string()])
        .trace(count.clone());
    if let Some(file) = file {
        builder = builder.trace(json::Writer::create(file)?);
    }
    let mut sandbox = builder.build()?;
    let start = Instant::now();
    let outcome = runtime.block_on(sandbox.run())?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(outcome.is_success(), "{outcome}");
    let lost = count.lost.load(Ordering::Relaxed);
    ensure!(lost == 0, "{lost} events were lost");
    let events = count.events.load(Ordering::Relaxed) - before;
    ensure!(events > 3 * turns, "only {events} events of {turns} turns");
    Ok(events as f64 / seconds)
}

/// Counts what it gets. Clones count together.
#[derive(Clone, Default)]
struct Count {
    events: Arc<AtomicU64>,
    /// Those that say something of a task.
    of_guest: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Sink for Count {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.events.fetch_add(1, Ordering::Relaxed);
        match event.kind {
            EventKind::PollBegin { .. } => {
                self.of_guest.fetch_add(1, Ordering::Relaxed);
            }
            EventKind::Finished { lost, .. } => {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(())
    }
}
