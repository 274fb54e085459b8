//! What it costs to be watched, and how much can be seen.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use wakebox::trace::{Event, EventKind, Sink, json};
use wakebox::{Builder, Captured, Output, Sandbox, WakeMode};
use wakebox_tests::guest;

use crate::table::{Bar, Row, Unit, median};

/// Where both a completion without an exit and one with two can be seen.
const MODES: [WakeMode; 2] = [WakeMode::Out, WakeMode::Poll];
/// Operations of the probe, one in flight; more where more are in flight.
const OPERATIONS: u32 = 2_000;
/// Fewest and most rounds. In between, it is enough as soon as the noise allows to judge.
const ROUNDS: std::ops::RangeInclusive<usize> = 7..=61;
/// Turns of a guest that does nothing but tell of them: three events each.
const TURNS: u64 = 2_000_000;

/// A guest that can be watched and is not, beside the same without the feature.
pub(crate) fn off(runtime: &Runtime) -> Result<Vec<Row>> {
    let counted = Count::default();
    probe(
        runtime,
        watched("untraced", WakeMode::Out).trace(counted.clone()),
    )?;
    ensure!(
        counted.of_guest.load(Ordering::Relaxed) == 0,
        "the guest `untraced` can be watched: `cargo xtask bench` builds it without the feature"
    );
    let mut rows = Vec::new();
    for mode in MODES {
        let mut costs = Costs::default();
        while !costs.are_known_to(0.25) {
            let without = probe(runtime, watched("untraced", mode))?;
            let off = probe(runtime, watched("bench", mode))?;
            costs.add(without, off);
        }
        rows.extend(costs.rows("tracing off", mode, 1.0));
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
            let off = probe(runtime, watched("bench", mode))?;
            let count = watched("bench", mode).trace(Count::default());
            counted.add(off, probe(runtime, count)?);
            let write = watched("bench", mode).trace(json::Writer::create(&file)?);
            written.add(off, probe(runtime, write)?);
        }
        rows.extend(counted.rows("tracing to a counter", mode, 25.0));
        rows.extend(written.rows("tracing to a JSON file", mode, 25.0));
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

/// What a probe says of itself.
#[derive(Clone, Copy)]
struct Said {
    /// Median round trip of one no-op, in nanoseconds.
    trip: f64,
    /// No-ops a second, 256 in flight.
    rate: f64,
}

/// A probe that does no-ops.
fn watched(probe: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest(probe))
        .wake(mode)
        .args([OPERATIONS.to_string(), "nop".into()])
}

fn probe(runtime: &Runtime, builder: Builder) -> Result<Said> {
    let output = Captured::new();
    let mut sandbox = builder.stdout(Output::Capture(output.clone())).build()?;
    let outcome = runtime.block_on(sandbox.run())?;
    ensure!(outcome.is_success(), "{outcome}");
    let text = output.text();
    let value = |key: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.with_context(|| format!("the probe said no `{key}`"))?;
        Ok(value.trim().parse()?)
    };
    Ok(Said {
        trip: value("nop_median_ns ")?,
        rate: value("ops_per_second_256 ")?,
    })
}

/// Pairs of runs, one right after the other: what slows one for a while slows both.
#[derive(Default)]
struct Costs {
    without: Vec<Said>,
    with: Vec<Said>,
}

impl Costs {
    fn add(&mut self, without: Said, with: Said) {
        self.without.push(without);
        self.with.push(with);
    }

    /// What came to the round trip in each pair, in percent.
    fn percents(&self) -> Vec<f64> {
        let pairs = self.without.iter().zip(&self.with);
        pairs
            .map(|(without, with)| (with.trip / without.trip - 1.0) * 100.0)
            .collect()
    }

    /// Whether the standard error of the middle of all pairs is below so many percent, or there have
    /// been enough of them.
    fn are_known_to(&self, percent: f64) -> bool {
        let count = self.with.len();
        if !ROUNDS.contains(&count) || count == *ROUNDS.end() {
            return count >= *ROUNDS.end();
        }
        let percents = self.percents();
        let middle = median(percents.clone());
        let off = median(percents.iter().map(|cost| (cost - middle).abs()).collect());
        // For a normal distribution: from the median deviation to the standard deviation, and
        // from that of one to that of the median of all.
        1.4826 * off * 1.2533 / (count as f64).sqrt() < percent
    }

    fn rows(&self, what: &str, mode: WakeMode, most: f64) -> [Row; 3] {
        let of = |said: &[Said], part: fn(&Said) -> f64| median(said.iter().map(part).collect());
        let row = |what: &str, unit, part| {
            let what = format!("    {what}, mode {mode}");
            Row::new(what, unit, of(&self.with, part)).floor(of(&self.without, part))
        };
        let what = format!("{what}: cost of a no-op, mode {mode}");
        [
            Row::new(what, Unit::Percent, median(self.percents())).bar(Bar::AtMost(most)),
            row("round trip", Unit::Nanoseconds, |said| said.trip),
            row("256 in flight", Unit::PerSecond, |said| said.rate),
        ]
    }
}
