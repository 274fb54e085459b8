//! Ending a sandbox from elsewhere, and what limits cost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use wakebox::{Builder, Captured, Limits, Outcome, Output, Sandbox, WakeMode};
use wakebox_tests::{guest, runtime_of};

use crate::table::{Bar, Row, Unit, median};

/// Sandboxes that are killed, of each sort.
const KILLS: usize = 200;
/// How long one has been at it when it is killed.
const SETTLED: Duration = Duration::from_millis(1);
/// Runs with limits and without, in turns.
const ROUNDS: usize = 9;
/// Operations of the probe, one in flight; more where more are in flight.
const OPERATIONS: u32 = 4_000;

/// From the kill to the outcome, in every state that a guest can be in.
pub(crate) fn kills() -> Result<Vec<Row>> {
    let runtime = runtime_of(1);
    let mut rows = Vec::new();
    for (what, verb) in [
        ("computing", "compute"),
        ("parked", "park"),
        ("in a host function", "call"),
    ] {
        let times: Vec<f64> = (0..KILLS)
            .map(|_| kill(&runtime, verb))
            .collect::<Result<_>>()?;
        let worst = times.iter().copied().fold(0.0, f64::max);
        let ns = Unit::Nanoseconds;
        let row = Row::new(format!("kill to outcome, {what}"), ns, median(times));
        rows.push(row.bar(Bar::AtMost(1e6)));
        let what = format!("kill to outcome, {what}, worst of {KILLS}");
        rows.push(Row::new(what, ns, worst));
    }
    Ok(rows)
}

/// Nanoseconds from the kill to the outcome.
fn kill(runtime: &Runtime, verb: &str) -> Result<f64> {
    let (here, mut there) = mpsc::unbounded_channel();
    let never = here.clone();
    let mut sandbox = Sandbox::builder()
        .guest(guest("killme"))
        .args([verb])
        .host_fn("here", move |_, (): ()| {
            let _ = here.send(());
            std::future::ready(())
        })
        .host_fn("never", move |_, (): ()| {
            let _ = never.send(());
            std::future::pending::<()>()
        })
        .build()?;
    let handle = sandbox.kill_handle();
    let run = runtime.spawn(async move {
        let outcome = sandbox.run().await;
        (outcome, Instant::now())
    });
    let calls = if verb == "call" { 2 } else { 1 };
    for _ in 0..calls {
        there
            .blocking_recv()
            .context("the guest never came so far")?;
    }
    std::thread::sleep(SETTLED);
    let killed = Instant::now();
    handle.kill();
    let (outcome, ended) = runtime.block_on(run)?;
    ensure!(outcome? == Outcome::Cancelled, "it was not killed");
    Ok((ended - killed).as_nanos() as f64)
}

/// Every limit set, and none reached.
fn limited() -> Limits {
    let time = Duration::from_secs(3_600);
    let bytes = 1_u64 << 40;
    Limits::new()
        .wall_clock(time)
        .cpu_time(time)
        .network_in(bytes)
        .network_out(bytes)
        .files_in(bytes)
        .files_out(bytes)
        .stdin(bytes)
        .stdout(bytes)
        .calls_in(bytes)
        .calls_out(bytes)
        .log(bytes)
        .host_fn_time(time)
}

/// No-ops with every limit set, beside the same with none.
pub(crate) fn cost(runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in [WakeMode::Out, WakeMode::Poll] {
        let mut with = HashMap::new();
        let mut without = HashMap::new();
        for _ in 0..ROUNDS {
            probe(runtime, mode, limited(), &mut with)?;
            // As many operations in flight as the other has.
            let unlimited = Limits::unlimited().in_flight(4096);
            probe(runtime, mode, unlimited, &mut without)?;
        }
        let mut row = |what: &str, key: &str, nanoseconds: fn(f64) -> f64| -> Result<()> {
            let of = |measured: &HashMap<String, Vec<f64>>| -> Result<f64> {
                let values = measured.get(key);
                let values = values.with_context(|| format!("the probe said no `{key}`"))?;
                Ok(nanoseconds(median(values.clone())))
            };
            let what = format!("{what}, all limits set / none, mode {mode}");
            let row = Row::new(what, Unit::Nanoseconds, of(&with)?);
            rows.push(row.floor(of(&without)?).bar(Bar::Ratio(1.05)));
            Ok(())
        };
        row("one operation and back", "nop_median_ns", |ns| ns)?;
        row(
            "an operation of 256 in flight",
            "ops_per_second_256",
            |rate| 1e9 / rate,
        )?;
    }
    Ok(rows)
}

/// Runs the probe `bench` and adds what it says.
fn probe(
    runtime: &Runtime,
    mode: WakeMode,
    limits: Limits,
    measured: &mut HashMap<String, Vec<f64>>,
) -> Result<()> {
    let output = Captured::new();
    let builder: Builder = Sandbox::builder().guest(guest("bench")).wake(mode);
    let mut sandbox = builder
        .args([OPERATIONS.to_string()])
        .limits(limits)
        .stdout(Output::Capture(output.clone()))
        .build()?;
    let outcome = runtime.block_on(sandbox.run())?;
    ensure!(outcome.is_success(), "{outcome}");
    for line in output.text().lines() {
        let pair = line.split_once(' ');
        let (key, value) = pair.with_context(|| format!("not `key value`: {line}"))?;
        let values: &mut Vec<f64> = measured.entry(key.to_owned()).or_default();
        values.push(value.parse()?);
    }
    Ok(())
}
