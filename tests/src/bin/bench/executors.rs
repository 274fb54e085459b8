//! What a task costs: our executor beside that of `embassy-executor` and a bare loop in the same guest, and beside Tokio on
//! one thread of the host.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use wakebox::{Sandbox, WakeMode};
use wakebox_tests::guest;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 5;
/// As in the guest `executors`.
const TASKS: usize = 1_000;
const TURNS: u32 = 200;

/// What tasks of one executor take, in nanoseconds, a value a round.
#[derive(Default)]
struct Took {
    spawns: Vec<f64>,
    wakes: Vec<f64>,
}

/// The rows.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let names = ["ours", "embassy", "bare"];
    let mut all: [Took; 4] = Default::default();
    for _ in 0..ROUNDS {
        let probe = Sandbox::builder().guest(guest("executors"));
        let (said, _) = run(runtime, probe.wake(WakeMode::Out))?;
        for (name, took) in names.iter().zip(&mut all) {
            let numbers = said.lines().find_map(|line| line.strip_prefix(name));
            let numbers = numbers.and_then(|numbers| numbers.trim().split_once(' '));
            let (spawn, wake) = numbers.context(said.clone())?;
            took.spawns.push(spawn.parse()?);
            took.wakes.push(wake.parse()?);
        }
        let (spawn, wake) = runtime.block_on(tokio_itself());
        all[3].spawns.push(spawn);
        all[3].wakes.push(wake);
    }
    let [ours, embassy, bare, tokio] = all.map(|took| [took.spawns, took.wakes].map(median));
    let mut rows = Vec::new();
    let what = ["a task spawned, polled and gone", "a task woken and polled"];
    for (index, what) in what.into_iter().enumerate() {
        let beside = |what: &str, floor: [f64; 2]| {
            Row::new(what, Unit::Nanoseconds, ours[index]).floor(floor[index])
        };
        rows.extend([
            beside(what, bare),
            beside("    beside embassy-executor", embassy),
            beside("    beside Tokio on one thread of the host", tokio).bar(Bar::Ratio(0.5)),
        ]);
    }
    Ok(rows)
}

/// The same of Tokio, whose runtime polls this.
async fn tokio_itself() -> (f64, f64) {
    let each = |start: Instant| start.elapsed().as_nanos() as f64 / TASKS as f64;
    let (mut spawns, mut wakes) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let start = Instant::now();
        for _ in 0..TASKS {
            drop(tokio::spawn(yields(0)));
        }
        behind_all().await;
        spawns.push(each(start));
    }
    for _ in 0..TASKS {
        drop(tokio::spawn(yields(TURNS)));
    }
    for _ in 0..TURNS {
        let start = Instant::now();
        behind_all().await;
        wakes.push(each(start));
    }
    behind_all().await;
    (median(spawns), median(wakes))
}

/// Wakes itself so many times. (Tokio's own `yield_now` goes by a list of its own.)
fn yields(mut left: u32) -> impl Future<Output = ()> + Send {
    std::future::poll_fn(move |cx| match left {
        0 => Poll::Ready(()),
        _ => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
}

/// Waits until each task that is ready now has had its turn.
async fn behind_all() {
    let last: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(yields(0));
    let _ = tokio::spawn(last).await;
}
