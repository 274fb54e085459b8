//! Several processors: what a wake from one to another costs, what a task that any may run, and what two do
//! that one cannot.

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use wakebox::{Limits, Sandbox, Stats, WakeMode};
use wakebox_tests::{guest, runtime_of};

use crate::net;
use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 5;

/// The rows. Processors are a task each of a runtime with as many threads.
pub(crate) fn measure(client: &Runtime) -> Result<Vec<Row>> {
    let (mut watched, mut parked, mut nudges) = (Vec::new(), Vec::new(), Vec::new());
    let (mut spawns, mut thefts) = (Vec::new(), Vec::new());
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        watched.push(wakes(WakeMode::Poll)?.0);
        let (each, exits) = wakes(WakeMode::Out)?;
        parked.push(each);
        nudges.push(exits);
        spawns.push(number("spawns", WakeMode::Out, 1)?);
        thefts.push(number("thefts", WakeMode::Poll, 2)?);
        let (one, two) = cores()?;
        alone.push(one);
        together.push(two);
    }
    let ns = |what: &str, of| Row::new(what, Unit::Nanoseconds, median(of));
    Ok(vec![
        ns("wake a task of a processor that watches", watched).bar(Bar::AtMost(1_000.0)),
        ns("wake a task of a processor that is parked", parked),
        Row::new(
            "    exits of the waker for it",
            Unit::Number,
            median(nudges),
        )
        .bar(Bar::AtMost(1.3)),
        ns("spawn_anywhere and complete, one processor", spawns).bar(Bar::AtMost(60.0)),
        ns("    taken by another processor", thefts).bar(Bar::AtMost(300.0)),
        ns("256 tasks of 100 us, 2 processors beside 1", together)
            .floor(median(alone))
            .bar(Bar::Ratio(1.0 / 1.8)),
        net::hashing(client)?,
    ])
}

/// What a guest with so many processors prints, and what it did.
fn says(program: &str, args: &[&str], mode: WakeMode, processors: u32) -> Result<(String, Stats)> {
    let builder = Sandbox::builder()
        .guest(guest(program))
        .args(args.iter().copied())
        .wake(mode)
        .processors(processors)
        .limits(Limits::new().processors(processors));
    run(&runtime_of(processors as usize), builder)
}

fn number(what: &str, mode: WakeMode, processors: u32) -> Result<f64> {
    let (said, _) = says("poolbench", &[what], mode, processors)?;
    said.trim().parse().context(said)
}

/// Nanoseconds of a wake, and how many exits there were for each to wake a processor.
fn wakes(mode: WakeMode) -> Result<(f64, f64)> {
    let (said, stats) = says("poolbench", &["wakes"], mode, 2)?;
    let numbers = said.trim().split_once(' ').context("two numbers")?;
    let (each, count): (f64, f64) = (numbers.0.parse()?, numbers.1.parse()?);
    Ok((each, stats.exits.processor as f64 / count))
}

/// Nanoseconds that the tasks of the demo `cores` take on one processor, and on two.
fn cores() -> Result<(f64, f64)> {
    let (said, _) = says("cores", &[], WakeMode::Auto, 2)?;
    let mut times = said.lines().filter_map(|line| {
        let (_, after) = line.split_once(": ")?;
        let ms: f64 = after.split_once(" ms")?.0.parse().ok()?;
        Some(ms * 1e6)
    });
    times.next().zip(times.next()).context(said.clone())
}
