//! From nothing to the first instruction, to the first line, and back to nothing.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;
use wakebox::{Output, Sandbox, WakeMode};
use wakebox_tests::elf::{Elf, R, Segment, code};
use wakebox_tests::floor::Floor;

use crate::table::{Bar, Row, Unit, median};

/// Of either kind, one after the other.
const ROUNDS: usize = 150;
/// What a guest of the usual size has besides the instructions that run first.
const BALLAST: usize = 80 << 10;

/// A guest whose first instructions say that it ends, as large as an ordinary one.
fn ends_at_once() -> Vec<u8> {
    let mut elf = Elf::guest(&code::exit(0));
    elf.segments
        .push(Segment::new(0x20_0000, R, vec![0x5A; BALLAST]));
    elf.to_bytes()
}

/// Start and end of a sandbox, beside those of a bare VM.
pub(crate) fn measure(floor: &Floor, runtime: &Runtime) -> Result<Vec<Row>> {
    let guest = ends_at_once();
    let (mut bare, mut bare_end) = (Vec::new(), Vec::new());
    let modes = [WakeMode::Out, WakeMode::Auto];
    let mut ours = modes.map(|_| Vec::new());
    let mut ours_end = modes.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut machine = floor.create()?;
        machine.exit()?;
        bare.push(nanoseconds(start));
        let start = Instant::now();
        drop(machine);
        bare_end.push(nanoseconds(start));

        for (place, mode) in modes.into_iter().enumerate() {
            let start = Instant::now();
            let mut sandbox = Sandbox::builder()
                .guest(guest.as_slice())
                .wake(mode)
                .build()?;
            let outcome = runtime.block_on(sandbox.run())?;
            ours[place].push(nanoseconds(start));
            ensure!(outcome.is_success(), "{outcome}");
            let start = Instant::now();
            drop(sandbox);
            ours_end[place].push(nanoseconds(start));
        }
    }
    let (bare, bare_end) = (median(bare), median(bare_end));
    let [out, auto] = ours.map(median);
    let [out_end, auto_end] = ours_end.map(median);
    let ns = Unit::Nanoseconds;
    Ok(vec![
        Row::new("cold start to the first instruction, mode out", ns, out)
            .floor(bare)
            .bar(Bar::Ratio(1.5)),
        Row::new("cold start to the first instruction, mode auto", ns, auto)
            .floor(bare)
            .bar(Bar::Ratio(1.5)),
        Row::new("tear-down, mode out", ns, out_end).floor(bare_end),
        Row::new("tear-down, mode auto", ns, auto_end).floor(bare_end),
    ])
}

/// Start of the `hello` guest until the host holds its first line.
pub(crate) fn first_line(runtime: &Runtime) -> Result<Vec<Row>> {
    let path = wakebox_tests::guest("hello");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let stamp = Stamp::default();
        let start = Instant::now();
        let mut sandbox = Sandbox::builder()
            .guest(&path)
            .stdout(Output::writer(stamp.clone()))
            .build()?;
        let outcome = runtime.block_on(sandbox.run())?;
        ensure!(outcome.is_success(), "hello: {outcome}");
        let first = stamp.0.get().context("hello wrote nothing")?;
        times.push((*first - start).as_nanos() as f64);
    }
    let row = Row::new(
        "cold start to the first line of output",
        Unit::Nanoseconds,
        median(times),
    );
    Ok(vec![row])
}

fn nanoseconds(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64
}

/// Output that remembers when the first of it came.
#[derive(Clone, Debug, Default)]
struct Stamp(Arc<OnceLock<Instant>>);

impl AsyncWrite for Stamp {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.get_or_init(Instant::now);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
