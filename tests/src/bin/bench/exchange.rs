//! Going to the host and back: a bare exit, one operation, many operations.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use wakebox::{Sandbox, WakeMode};
use wakebox_abi::port;
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::floor::{Floor, Machine};
use wakebox_tests::guest;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 5;
/// Bare exits in a round, on either side.
const EXITS: u32 = 4_000;
/// Operations of the probe, one in flight; more where more are in flight.
const OPERATIONS: u32 = 4_000;

/// What the probe says of itself, over all rounds.
type Measured = HashMap<String, Vec<f64>>;

/// Exits and operations, beside the exits of a bare VM.
pub(crate) fn measure(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut machine = floor.create()?;
    machine.exit()?;
    // One by one for comparison with single operations; on average, with our exits, which
    // cannot be told apart from outside.
    let (mut bare, mut bare_average, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut probes = WakeMode::ALL.map(|_| Measured::new());
    let mut exits_each = Vec::new();
    for _ in 0..ROUNDS {
        for (mode, measured) in WakeMode::ALL.into_iter().zip(&mut probes) {
            let exits = bare_exits(&mut machine)?;
            bare_average.push(exits.iter().sum::<f64>() / f64::from(EXITS));
            bare.extend(exits);
            ours.push(our_exits(runtime)?);
            probe(runtime, mode, measured)?;
        }
        exits_each.push(exits_for_each_operation(runtime)?);
    }
    let bare = median(bare);
    let ns = Unit::Nanoseconds;
    let row = Row::new("bare exit and back, on average", ns, median(ours));
    let mut rows = vec![row.floor(median(bare_average))];
    let at = |mode: WakeMode, key: &str| -> Result<f64> {
        let values = probes[mode as usize].get(key);
        Ok(median(
            values
                .with_context(|| format!("the probe said no `{key}`"))?
                .clone(),
        ))
    };

    for mode in WakeMode::ALL {
        let what = format!("one operation and back, mode {mode}");
        let row = Row::new(what, ns, at(mode, "nop_median_ns")?);
        rows.push(match mode {
            WakeMode::Out => row.floor(bare).bar(Bar::Ratio(1.25)),
            WakeMode::Poll => row.bar(Bar::AtMost(2_000.0)),
            _ => row,
        });
    }
    for mode in WakeMode::ALL {
        for in_flight in [1, 16, 256] {
            let what = format!("operations a second, {in_flight} in flight, mode {mode}");
            let rate = at(mode, &format!("ops_per_second_{in_flight}"))?;
            let row = Row::new(what, Unit::PerSecond, rate);
            rows.push(match (mode, in_flight) {
                (WakeMode::Poll, 256) => row.bar(Bar::AtLeast(1e6)),
                _ => row,
            });
        }
    }
    let what = "exits an operation, 256 in flight, mode out";
    let row = Row::new(what, Unit::Number, median(exits_each));
    rows.push(row.bar(Bar::AtMost(1.0 / 200.0)));

    // The executor alone: the mode makes no difference.
    let spawn = at(WakeMode::Out, "spawn_complete_ns")?;
    rows.push(Row::new("spawn and complete a task", ns, spawn).bar(Bar::AtMost(40.0)));
    let wake = at(WakeMode::Out, "wake_poll_ns")?;
    rows.push(Row::new("wake and poll a task", ns, wake).bar(Bar::AtMost(12.0)));
    Ok(rows)
}

/// Nanoseconds of each exit of the bare VM.
fn bare_exits(machine: &mut Machine) -> Result<Vec<f64>> {
    let exit = |_| {
        let start = Instant::now();
        machine.exit()?;
        Ok(start.elapsed().as_nanos() as f64)
    };
    (0..EXITS).map(exit).collect()
}

/// Nanoseconds of an exit of a guest of ours that rings for nothing, on average.
fn our_exits(runtime: &Runtime) -> Result<f64> {
    // `mov ecx, EXITS; again: out dx, al; dec ecx; jnz again`.
    let mut rings = vec![0xBA];
    rings.extend(u32::from(port::SUBMIT).to_le_bytes());
    rings.push(0xB9);
    rings.extend(EXITS.to_le_bytes());
    rings.extend([0xEE, 0xFF, 0xC9, 0x75, 0xFB]);
    let guest = Elf::guest(&[rings, code::exit(0)].concat()).to_bytes();
    let mut sandbox = Sandbox::builder()
        .guest(guest)
        .wake(WakeMode::Out)
        .build()?;
    let start = Instant::now();
    let outcome = runtime.block_on(sandbox.run())?;
    let time = start.elapsed();
    ensure!(outcome.is_success(), "{outcome}");
    ensure!(
        sandbox.stats().exits.submit == u64::from(EXITS),
        "it rang less"
    );
    Ok(time.as_nanos() as f64 / f64::from(EXITS))
}

/// Runs the probe `bench` and adds what it says.
fn probe(runtime: &Runtime, mode: WakeMode, measured: &mut Measured) -> Result<()> {
    let probe = Sandbox::builder().guest(guest("bench")).wake(mode);
    let (text, _) = run(runtime, probe.args([OPERATIONS.to_string()]))?;
    for line in text.lines() {
        let pair = line.split_once(' ');
        let (key, value) = pair.with_context(|| format!("not `key value`: {line}"))?;
        measured
            .entry(key.to_owned())
            .or_default()
            .push(value.parse()?);
    }
    Ok(())
}

/// Exits for an operation, when 256 tasks do nothing but operations.
fn exits_for_each_operation(runtime: &Runtime) -> Result<f64> {
    let storm = Sandbox::builder().guest(guest("storm")).wake(WakeMode::Out);
    let (_, stats) = run(runtime, storm.args(["256", "512000"]))?;
    Ok(stats.exits_per_operation())
}
