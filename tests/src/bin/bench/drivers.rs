//! What sandboxes cost that sleep, those whose rings are polled by the same threads: a busy one among them beside one alone,
//! and what of a processor all of them take.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use wakebox::{Running, WakeMode};

use crate::pairs::{noops, probe};
use crate::table::{Bar, Row, Unit, median};
use crate::templates::{MEMORY, count, template};

/// Of everything, in turns.
const ROUNDS: usize = 9;
/// How many sleep.
const CROWDS: [usize; 4] = [10, 100, 1_000, 4_000];
/// How long nothing is done but to sleep.
const QUIET: Duration = Duration::from_millis(500);

/// The curve, in the two modes in which a thread polls.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in [WakeMode::Poll, WakeMode::Auto] {
        let template = runtime.block_on(template(MEMORY, mode))?;
        let mut crowd: Vec<Running> = Vec::new();
        for size in CROWDS {
            // Alone, and then beside the crowd: as close to each other as it can be.
            let mut alone = Vec::new();
            for _ in 0..ROUNDS {
                alone.push(probe(runtime, noops("bench", mode))?.together());
            }
            runtime.block_on(async {
                while crowd.len() < size {
                    let running = template.spawn().build()?.start();
                    count(&running).await?;
                    crowd.push(running);
                }
                Ok::<_, anyhow::Error>(())
            })?;
            let mut beside = Vec::new();
            for _ in 0..ROUNDS {
                beside.push(probe(runtime, noops("bench", mode))?.together());
            }
            let asleep = runtime.block_on(asleep());
            rows.push(
                Row::new(
                    format!("a no-op of 256 beside {size} that sleep, mode {mode} / alone"),
                    Unit::Nanoseconds,
                    median(beside),
                )
                .floor(median(alone))
                .bar(Bar::Ratio(1.1)),
            );
            let all = Row::new("    of a processor, all that sleep", Unit::Percent, asleep);
            rows.push(all.bar(Bar::AtMost(1.0)));
            // The next are alone again.
            runtime.block_on(async {
                for running in crowd.drain(..) {
                    running.close().await?;
                }
                Ok::<_, anyhow::Error>(())
            })?;
        }
    }
    Ok(rows)
}

/// Percent of a processor that the process takes while it does nothing.
async fn asleep() -> f64 {
    // Those that are to give their machines away have done so.
    tokio::time::sleep(QUIET).await;
    let used = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let before = used();
    tokio::time::sleep(QUIET).await;
    used().saturating_sub(before).as_secs_f64() / QUIET.as_secs_f64() * 100.0
}
