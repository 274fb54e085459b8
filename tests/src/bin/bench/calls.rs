//! Calls of host functions, and of guest functions.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use wakebox::{HostContext, Sandbox, Stats, WakeMode};
use wakebox_tests::guest;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 5;
/// Calls of a guest function in a round, after those that warm up.
const CALLS: usize = 2_000;

/// Throughput and round trips of calls.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (mode, at_once, calls) in [
        (WakeMode::Out, 1, 2_000),
        (WakeMode::Out, 256, 100_096),
        (WakeMode::Poll, 1, 10_000),
        (WakeMode::Poll, 256, 100_096),
    ] {
        let (mut rates, mut exits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (rate, stats) = host_calls(runtime, mode, calls, at_once)?;
            rates.push(rate);
            exits.push(stats.exits.total() as f64 / calls as f64);
        }
        let row = Row::new(
            format!("host function calls a second, {at_once} in flight, mode {mode}"),
            Unit::PerSecond,
            median(rates),
        );
        let exits = Row::new("    exits a call", Unit::Number, median(exits));
        if at_once == 256 {
            rows.extend([
                row.bar(Bar::AtLeast(300_000.0)),
                exits.bar(Bar::AtMost(0.01)),
            ]);
        } else {
            rows.extend([row, exits]);
        }
    }
    for mode in [WakeMode::Poll, WakeMode::Out] {
        let trips = (0..ROUNDS)
            .map(|_| guest_calls(mode))
            .collect::<Result<Vec<_>>>()?;
        let trips: Vec<f64> = trips.into_iter().flatten().collect();
        let row = Row::new(
            format!("guest function call and back, warm, mode {mode}"),
            Unit::Nanoseconds,
            median(trips),
        );
        rows.push(match mode {
            WakeMode::Poll => row.bar(Bar::AtMost(10_000.0)),
            _ => row,
        });
    }
    Ok(rows)
}

/// What a guest measures that calls an addition on the host.
fn host_calls(runtime: &Runtime, mode: WakeMode, calls: u64, at_once: u64) -> Result<(f64, Stats)> {
    let builder = Sandbox::builder()
        .guest(guest("callbench"))
        .wake(mode)
        .args([calls.to_string(), at_once.to_string()])
        .host_fn("add", async |_: HostContext, (a, b): (u64, u64)| a + b);
    let (said, stats) = run(runtime, builder).context("the guest of the calls")?;
    let rate = said.trim().parse().context("the guest says a number")?;
    Ok((rate, stats))
}

/// Round trips of one call at a time, in nanoseconds. The guest runs on one thread, the caller on
/// another, and there is no third.
fn guest_calls(mode: WakeMode) -> Result<Vec<f64>> {
    let runtime = wakebox_tests::runtime_of(1);
    runtime.block_on(async {
        let builder = Sandbox::builder()
            .guest(guest("calls"))
            .wake(mode)
            .args(["serve"]);
        let running = builder.build()?.start();
        let mut trips = Vec::with_capacity(CALLS);
        for call in 0..CALLS as u64 * 2 {
            let start = Instant::now();
            let sum: u64 = running.call("sum", &(call, 1_u64)).await?;
            let trip = start.elapsed();
            ensure!(sum == call + 1, "a wrong sum");
            if call >= CALLS as u64 {
                trips.push(trip.as_nanos() as f64);
            }
        }
        running.close().await?;
        Ok(trips)
    })
}
