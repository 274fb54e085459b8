//! Sandboxes that start where another was parked: taken, made, reset.

use std::io::Seek as _;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Runtime;
use wakebox::template::{Open, Position, When};
use wakebox::{Machines, Outcome, Pool, Running, Sandbox, Template, WakeMode};
use wakebox_tests::floor::Floor;
use wakebox_tests::guest;
use wakebox_tests::leaks::Usage;

use crate::table::{Bar, Row, Unit, median};

/// Of each kind, one after the other.
const ROUNDS: usize = 200;
/// Sandboxes that sleep side by side.
const CROWD: usize = 10_000;
/// What a guest may use, in bytes.
pub(crate) const MEMORY: u64 = 16 << 20;

pub(crate) async fn template(memory: u64, mode: WakeMode) -> Result<Template> {
    let builder = Sandbox::builder()
        .guest(guest("templates"))
        .memory(memory)
        .wake(mode);
    let running = builder.build()?.start();
    let counted: u64 = running.call("count", &()).await?;
    ensure!(counted == 1);
    let template = running
        .handle()
        .snapshot(When::Parked, Open::Refuse)
        .await?;
    running.close().await?;
    Ok(template)
}

pub(crate) async fn count(running: &Running) -> Result<()> {
    let counted: u64 = running.call("count", &()).await?;
    ensure!(counted == 2, "it stands elsewhere: {counted}");
    Ok(())
}

fn since(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64
}

fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * percent / 100]
}

/// All of it, beside a bare VM and a bare exit.
pub(crate) fn measure(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = made(floor, runtime)?;
    rows.extend(pooled(floor, runtime)?);
    rows.extend(reset(floor, runtime)?);
    rows.extend(crowd(floor, runtime)?);
    rows.extend(taken(runtime)?);
    rows.extend(borrowed(runtime)?);
    Ok(rows)
}

/// Of a machine: itself, and its processor.
const DESCRIPTORS: u64 = 2;

/// A sandbox of a template, to its first answer.
fn made(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in [WakeMode::Out, WakeMode::Auto] {
        let template = runtime.block_on(template(MEMORY, mode))?;
        let (mut bare, mut built, mut answered) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut machine = floor.create()?;
            machine.exit()?;
            bare.push(since(start));
            drop(machine);
            runtime.block_on(async {
                let start = Instant::now();
                let sandbox = template.spawn().build()?;
                built.push(since(start));
                let running = sandbox.start();
                count(&running).await?;
                answered.push(since(start));
                let (outcome, _) = running.close().await?;
                ensure!(outcome == Outcome::Exit(0), "{outcome}");
                Ok(())
            })?;
        }
        let floor = median(bare);
        let what = |what: &str| format!("{what} of a template, mode {mode}");
        rows.push(
            Row::new(what("sandbox"), Unit::Nanoseconds, median(built))
                .floor(floor)
                .bar(Bar::Ratio(0.5)),
        );
        rows.push(
            Row::new(
                what("sandbox to its first answer"),
                Unit::Nanoseconds,
                median(answered),
            )
            .floor(floor)
            .bar(Bar::Ratio(1.5)),
        );
    }
    Ok(rows)
}

/// Nanoseconds of a bare exit.
fn exits(floor: &Floor) -> Result<f64> {
    let mut machine = floor.create()?;
    let mut exits = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        machine.exit()?;
        exits.push(since(start));
    }
    Ok(median(exits))
}

/// A sandbox of a pool, to its first answer.
fn pooled(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in [WakeMode::Out, WakeMode::Auto] {
        let template = runtime.block_on(template(MEMORY, mode))?;
        let pool = Pool::builder(template)
            .idle(4)
            .max(4)
            .rehearse(|caller| async move {
                let _: Result<u64, _> = caller.call("count", &()).await;
            });
        let pool = runtime.block_on(pool.build())?;
        let mut answered = Vec::new();
        for _ in 0..ROUNDS {
            runtime.block_on(async {
                // When those are ready again that are to be.
                while pool.ready() < 4 {
                    tokio::task::yield_now().await;
                }
                let start = Instant::now();
                let running = pool.take().await?;
                count(&running).await?;
                answered.push(since(start));
                running.close().await?;
                Ok::<_, anyhow::Error>(())
            })?;
        }
        let exit = exits(floor)?;
        let middle = median(answered.clone());
        rows.push(
            Row::new(
                format!("taken of a pool to its first answer, mode {mode}"),
                Unit::Nanoseconds,
                middle,
            )
            .floor(exit)
            .bar(Bar::Ratio(8.0)),
        );
        rows.push(
            Row::new(
                format!("the same, 99th percentile beside the median, mode {mode}"),
                Unit::Nanoseconds,
                percentile(answered, 99),
            )
            .floor(middle)
            .bar(Bar::Ratio(3.0)),
        );
    }
    Ok(rows)
}

/// What it takes to write again what a guest has written.
fn reset(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let template = runtime.block_on(template(MEMORY, WakeMode::Out))?;
    let exit = exits(floor)?;
    let mut rows = Vec::new();
    for (pages, bar) in [(20_u32, 6.0), (256, 12.0)] {
        let machines = Machines::keeping(1, u64::MAX);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let sandbox = template.spawn().machines(machines.clone()).build()?;
            runtime.block_on(async {
                let running = sandbox.start();
                running.call::<_, ()>("dirty", &pages).await?;
                running.close().await?;
                Ok::<_, anyhow::Error>(())
            })?;
            ensure!(machines.waiting() == 1, "its machine waits");
            let start = Instant::now();
            machines.tidy_up();
            times.push(since(start));
        }
        rows.push(
            Row::new(
                format!("reset after a call that writes {pages} pages"),
                Unit::Nanoseconds,
                median(times),
            )
            .floor(exit)
            .bar(Bar::Ratio(bar)),
        );
    }
    Ok(rows)
}

/// What a call to each of some takes, of those that sleep.
async fn calls(all: &[Running], counts: &mut [u64]) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    // Each but the last few that ran, far from another.
    for index in (0..all.len()).step_by((all.len() / ROUNDS).max(1)) {
        let start = Instant::now();
        let counted: u64 = all[index].call("count", &()).await?;
        times.push(since(start));
        counts[index] += 1;
        ensure!(counted == counts[index], "it is another: {counted}");
        // Whoever was called gives its machine away.
        tokio::task::yield_now().await;
    }
    Ok(times)
}

/// What sandboxes cost that sleep side by side, and what they cost others.
fn crowd(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let exit = exits(floor)?;
    runtime.block_on(async {
        let template = template(MEMORY, WakeMode::Out).await?;
        let alone = template.spawn().build()?.start();
        count(&alone).await?;
        let mut undisturbed = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let _: u64 = alone.call("count", &()).await?;
            undisturbed.push(since(start));
        }
        let machines = Machines::of_process()?;
        let there_are = || (machines.waiting() + machines.lent()) as u64;
        let (before, machines_before) = (Usage::now()?, there_are());
        let mut all = Vec::new();
        let mut times = Vec::new();
        for _ in 0..CROWD {
            let start = Instant::now();
            let running = template.spawn().build()?.start();
            count(&running).await?;
            times.push(since(start));
            all.push(running);
        }
        settle().await?;
        let now = Usage::now()?;
        let of_machines = DESCRIPTORS * there_are().saturating_sub(machines_before);
        let mut counts = vec![2; CROWD];
        let woken = calls(&all, &mut counts).await?;
        settle().await?;
        let mut disturbed = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let _: u64 = alone.call("count", &()).await?;
            disturbed.push(since(start));
        }
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / CROWD as f64;
        let resident = each(now.resident, before.resident);
        let descriptors = (now.descriptors as u64).saturating_sub(of_machines);
        let descriptors = each(descriptors, before.descriptors as u64);
        let threads = each(now.threads as u64, before.threads as u64);
        let (first, last) = (
            median(times[..50].to_vec()),
            median(times[CROWD - 50..].to_vec()),
        );
        let rows = vec![
            Row::new(
                format!("resident memory of each of {CROWD} that sleep"),
                Unit::Bytes,
                resident,
            ),
            Row::new(
                "their descriptors, each, beside those of the machines that all share",
                Unit::Number,
                descriptors,
            )
            .bar(Bar::AtMost(0.0)),
            Row::new("their threads, each", Unit::Number, threads).bar(Bar::AtMost(0.0)),
            Row::new(
                "one of them woken to its answer",
                Unit::Nanoseconds,
                median(woken),
            )
            .floor(exit)
            .bar(Bar::Ratio(10.0)),
            Row::new(
                "a call to one that has a machine, beside none that sleep",
                Unit::Nanoseconds,
                median(disturbed),
            )
            .floor(median(undisturbed))
            .bar(Bar::Ratio(1.5)),
            Row::new(
                "the last of them to its first answer, beside the first",
                Unit::Nanoseconds,
                last,
            )
            .floor(first)
            .bar(Bar::Ratio(1.3)),
        ];
        for running in all {
            running.close().await?;
        }
        alone.close().await?;
        Ok(rows)
    })
}

/// Waits until those that sleep have given away what machines they can.
async fn settle() -> Result<()> {
    let machines = Machines::of_process()?;
    while machines.patience().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(())
}

/// A template of a guest that uses 64 MiB: taken, written to a file and read from it.
fn taken(runtime: &Runtime) -> Result<Vec<Row>> {
    runtime.block_on(async {
        let builder = Sandbox::builder()
            .guest(guest("templates"))
            .memory(64 << 20)
            .wake(WakeMode::Out);
        let running = builder.build()?.start();
        let _: u64 = running.call("count", &()).await?;
        let handle = running.handle();
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            let template = handle.snapshot(When::Parked, Open::Refuse).await?;
            times.push(since(start));
            drop(template);
        }
        let mut rows = vec![
            Row::new(
                "template of a guest of 64 MiB, taken",
                Unit::Nanoseconds,
                median(times),
            )
            .bar(Bar::AtMost(5e6)),
        ];
        // All but what the runtime and its buffers need.
        let filled: u64 = running.call("fill", &(48_u32 << 20)).await?;
        ensure!(filled >= 48 << 20, "it has no more than {filled} bytes");
        let template = handle.snapshot(When::Parked, Open::Refuse).await?;
        running.close().await.context("the end")?;
        rows.extend(file(&template)?);
        Ok(rows)
    })
}

/// A template, written to a file that the kernel has in memory, and read from it.
fn file(template: &Template) -> Result<Vec<Row>> {
    let Position::Parked { held, .. } = template.info().at else {
        bail!("it stands at the entry");
    };
    let mut file = tempfile::tempfile()?;
    template.save(&mut file)?;
    let (mut saved, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let start = Instant::now();
        file.rewind()?;
        template.save(&mut file)?;
        saved.push(held as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        file.rewind()?;
        let read = Template::load(&mut file)?;
        loaded.push(held as f64 / start.elapsed().as_secs_f64());
        // Page tables are not in the file, and so it holds a little less.
        ensure!(
            matches!(read.info().at, Position::Parked { .. }),
            "it stands at the entry"
        );
    }
    let row = |what: &str, rates| {
        let what = format!("template of 64 MiB in use, {what}");
        Row::new(what, Unit::BytesPerSecond, median(rates)).bar(Bar::AtLeast(0.5e9))
    };
    Ok(vec![row("saved", saved), row("loaded", loaded)])
}

/// Calls of a sandbox that never parks for long: one that has borrowed its machine of the process,
/// beside one that has it for itself.
fn borrowed(runtime: &Runtime) -> Result<Vec<Row>> {
    const CALLS: usize = 200;
    runtime.block_on(async {
        let make = |machines: Machines| {
            let builder = Sandbox::builder().guest(guest("templates"));
            let builder = builder.memory(MEMORY).wake(WakeMode::Out);
            Ok::<_, anyhow::Error>(builder.machines(machines).build()?.start())
        };
        let sandboxes = [make(Machines::of_process()?)?, make(Machines::new(0))?];
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..2 * ROUNDS {
            // In turns, each first as often as the other.
            for which in [round % 2, 1 - round % 2] {
                let start = Instant::now();
                for _ in 0..CALLS {
                    let _: u64 = sandboxes[which].call("count", &()).await?;
                }
                times[which].push(since(start) / CALLS as f64);
            }
        }
        let [borrowed, own] = times.map(median);
        let row = Row::new(
            "call of a sandbox whose machine is borrowed, beside one with its own",
            Unit::Nanoseconds,
            borrowed,
        );
        for sandbox in sandboxes {
            sandbox.close().await?;
        }
        Ok(vec![row.floor(own).bar(Bar::Ratio(1.01))])
    })
}
