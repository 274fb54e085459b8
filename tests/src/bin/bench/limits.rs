//! Ending a sandbox from elsewhere, and what limits cost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use wakebox::{Limits, Outcome, Sandbox};
use wakebox_tests::{guest, runtime_of};

use crate::pairs::{Costs, MODES, noops, probe};
use crate::table::{Bar, Row, Unit};

/// Sandboxes that are killed, of each sort.
const KILLS: usize = 400;
/// How long one has been at it when it is killed.
const SETTLED: Duration = Duration::from_millis(1);

/// From the kill to the outcome, in every state that a guest can be in.
pub(crate) fn kills() -> Result<Vec<Row>> {
    let runtime = runtime_of(1);
    let mut rows = Vec::new();
    for (what, verb) in [
        ("computing", "compute"),
        ("parked", "park"),
        ("in a host function", "call"),
    ] {
        let mut times: Vec<f64> = (0..KILLS)
            .map(|_| kill(&runtime, verb))
            .collect::<Result<_>>()?;
        times.sort_by(f64::total_cmp);
        let mut row = |part: &str, at: usize, bar: Option<Bar>| {
            let what = format!("kill to outcome, {what}, {part}");
            let row = Row::new(what, Unit::Nanoseconds, times[at]);
            rows.push(match bar {
                Some(bar) => row.bar(bar),
                None => row,
            });
        };
        row("median", KILLS / 2, None);
        row("99th percentile", KILLS * 99 / 100, Some(Bar::AtMost(1e6)));
        row("worst", KILLS - 1, None);
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
    let handle = sandbox.handle();
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
    for mode in MODES {
        let mut costs = Costs::default();
        while !costs.are_known_to(1.0) {
            // As many operations in flight as the other has.
            let none = Limits::unlimited().in_flight(4096);
            let without = probe(runtime, noops("bench", mode).limits(none))?;
            let with = probe(runtime, noops("bench", mode).limits(limited()))?;
            costs.add(without, with);
        }
        rows.extend(costs.rows("every limit set", mode, 5.0, Some(5.0)));
    }
    Ok(rows)
}
