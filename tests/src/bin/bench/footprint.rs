//! Host memory that a sandbox takes beyond its guest's RAM, and that a connection takes.

use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;
use wakebox::{Policy, Sandbox, WakeMode};
use wakebox_tests::memory::Resident;
use wakebox_tests::soak::{Hold, Soak};

use crate::table::{Bar, Row, Unit};

const SANDBOXES: u64 = 200;
const GUEST_RAM: u64 = 16 << 20;

/// Starts many sandboxes whose guests listen and wait, and sees by how much the process
/// has grown. Wants to come first: memory that was used before and is free again would
/// hide what a sandbox takes.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let guest = wakebox_tests::guest("echo");
    let address = "127.0.0.1:0";
    runtime.block_on(async {
        let start = || {
            let mut sandbox = Sandbox::builder()
                .guest(&guest)
                .args([address])
                .policy(Policy::new().allow_listen(address.parse()?))
                .memory(GUEST_RAM)
                .wake(WakeMode::Out)
                .build()?;
            anyhow::Ok(tokio::spawn(async move { sandbox.run().await }))
        };
        // What the first one brings along for all (threads, handlers) is not counted.
        let first = start()?;
        settle().await;
        let before = Resident::now(GUEST_RAM)?.host;
        let runs = (0..SANDBOXES)
            .map(|_| start())
            .collect::<Result<Vec<_>>>()?;
        settle().await;
        let grown = Resident::now(GUEST_RAM)?.host.saturating_sub(before);
        for run in runs.into_iter().chain([first]) {
            anyhow::ensure!(!run.is_finished(), "a guest that should sleep has ended");
            run.abort();
            // Gone, with its descriptors: others count theirs.
            let _ = run.await;
        }
        let row = Row::new(
            "host memory for a sandbox, beyond guest RAM",
            Unit::Bytes,
            grown as f64 / SANDBOXES as f64,
        );
        Ok(vec![row.bar(Bar::AtMost(256.0 * 1024.0))])
    })
}

/// Lets every guest run until it sleeps.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// What connections to a guest take, each with a read in flight.
pub(crate) fn connections(runtime: &Runtime) -> Result<Vec<Row>> {
    let soak = Soak {
        connections: 10_000,
        cycles: 1,
        hold: Hold::Rounds(1),
        mode: WakeMode::Auto,
    };
    let report = runtime.block_on(soak.run(|_| ()))?;
    let each = |bytes: u64| bytes as f64 / soak.connections as f64;
    Ok(vec![
        Row::new(
            "host memory a connection, 10,000 open, beyond the kernel's",
            Unit::Bytes,
            // Pages that were used before and are free again do not count as new ones, but what is
            // in use on the heap does.
            each(report.open.host.max(report.open.heap)),
        )
        .bar(Bar::AtMost(2048.0)),
        Row::new(
            "    of it in use on the heap",
            Unit::Bytes,
            each(report.open.heap),
        ),
        Row::new(
            "    guest memory beside it",
            Unit::Bytes,
            each(report.open.guest),
        ),
    ])
}
