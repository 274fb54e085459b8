//! Reads of a file in memory: a guest beside native Tokio.
//!
//! There are two native ways: a `tokio::fs::File`, which copies once more than it must, and a
//! `pread` into the caller's own buffer on one of Tokio's threads for blocking calls.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, spawn_blocking};
use wakebox::policy::DirGrant;
use wakebox::{Io, Policy, Sandbox, Stats, WakeMode};
use wakebox_tests::guest;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 5;
/// Bytes of the file. Each eight of them hold their own offset.
const SIZE: u64 = 64 << 20;
/// How guests are woken, and wait for what is not read on the spot.
const WAYS: [(WakeMode, Io); 3] = [
    (WakeMode::Auto, Io::Epoll),
    (WakeMode::Out, Io::Epoll),
    (WakeMode::Out, Io::Uring),
];

/// Reads that are measured.
#[derive(Clone, Copy)]
struct Reads {
    what: &'static str,
    /// Bytes of each.
    block: u64,
    /// How many after as many that warm up.
    count: u64,
    at_once: u64,
    random: bool,
    /// Where the file is: of a `tmpfs` nothing is read on the spot.
    tmpfs: bool,
}

impl Reads {
    /// Whether they are waited for.
    fn wait(self) -> bool {
        self.tmpfs || self.block > 256 << 10
    }
}

const ALL: [Reads; 4] = [
    Reads {
        what: "1 MiB sequential file reads",
        block: 1 << 20,
        count: 256,
        at_once: 1,
        random: false,
        tmpfs: false,
    },
    Reads {
        what: "4 KiB random file reads",
        block: 4 << 10,
        count: 4_096,
        at_once: 1,
        random: true,
        tmpfs: false,
    },
    Reads {
        what: "4 KiB random file reads, 32 at once",
        block: 4 << 10,
        count: 16_384,
        at_once: 32,
        random: true,
        tmpfs: false,
    },
    Reads {
        what: "4 KiB random file reads of a tmpfs, 32 at once",
        block: 4 << 10,
        count: 16_384,
        at_once: 32,
        random: true,
        tmpfs: true,
    },
];

impl Reads {
    /// Where the read of a number begins, in bytes. The guest program does the same.
    fn offset(self, number: u64) -> u64 {
        let block = match self.random {
            true => number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32,
            false => number,
        };
        block % (SIZE / self.block) * self.block
    }
}

/// Throughput of each kind of reads.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let directories = [tempfile::tempdir()?, tempfile::tempdir_in("/dev/shm")?];
    let mut files = Vec::new();
    for directory in &directories {
        let path = directory.path().join("file");
        // In large pieces, which the kernel keeps in large pieces, too.
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for offset in (0..SIZE).step_by(8) {
            file.write_all(&offset.to_le_bytes())?;
        }
        // Now, and not while others are measured.
        file.into_inner()?.sync_all()?;
        files.push(Arc::new(File::open(&path)?));
    }
    let mut rows = Vec::new();
    for reads in ALL {
        let (directory, file) = (
            &directories[usize::from(reads.tmpfs)],
            &files[usize::from(reads.tmpfs)],
        );
        let ways = || {
            WAYS.into_iter()
                .filter(|(_, io)| *io == Io::Epoll || reads.wait())
        };
        let (mut files, mut preads) = (Vec::new(), Vec::new());
        let mut ours: [(Vec<f64>, Vec<f64>); WAYS.len()] = Default::default();
        for _ in 0..ROUNDS {
            if !reads.random {
                files.push(runtime.block_on(through_tokio_file(file, reads))?);
            }
            preads.push(runtime.block_on(through_pread(file, reads))?);
            for (way, (rates, exits)) in ways().zip(&mut ours) {
                let (rate, stats) = in_guest(runtime, directory.path(), way, reads)?;
                rates.push(rate);
                exits.push(stats.exits.total() as f64 / (2 * reads.count) as f64);
            }
        }
        let (files, preads) = (median(files), median(preads));
        for ((mode, io), (rates, exits)) in ways().zip(ours) {
            let (rate, exits) = (median(rates), median(exits));
            let by = if io == Io::Uring { ", io_uring" } else { "" };
            let what = format!("{}, mode {mode}{by}", reads.what);
            if reads.random {
                rows.push(Row::new(what, Unit::PerSecond, rate).floor(preads));
            } else {
                let bytes = |reads_a_second| reads_a_second * reads.block as f64;
                let row = |what, floor| {
                    Row::new(what, Unit::BytesPerSecond, bytes(rate)).floor(bytes(floor))
                };
                rows.push(row(what, files).bar(Bar::RatioAtLeast(0.8)));
                rows.push(row(
                    "    beside a bare pread on a thread".to_owned(),
                    preads,
                ));
            }
            rows.push(Row::new("    exits a read", Unit::Number, exits));
        }
    }
    Ok(rows)
}

/// Reads a second of a guest.
fn in_guest(
    runtime: &Runtime,
    directory: &Path,
    (mode, io): (WakeMode, Io),
    reads: Reads,
) -> Result<(f64, Stats)> {
    let order = if reads.random { "random" } else { "sequential" };
    let numbers = [SIZE, reads.block, reads.count, reads.at_once];
    let builder = Sandbox::builder()
        .guest(guest("filebench"))
        .wake(mode)
        .io(io)
        .args(["/data/file", order])
        .args(numbers.map(|number| number.to_string()))
        .policy(Policy::new().allow_dir(DirGrant::new(directory, "/data")?.read_only()));
    let (said, stats) = run(runtime, builder).context("the guest of the reads")?;
    let rate = said.trim().parse().context("the guest says a number")?;
    Ok((rate, stats))
}

/// Reads a second of a Tokio file, one at a time.
async fn through_tokio_file(file: &File, reads: Reads) -> Result<f64> {
    let mut file = tokio::fs::File::from_std(file.try_clone()?);
    let mut buf = vec![0; reads.block as usize];
    let mut start = Instant::now();
    for number in 0..2 * reads.count {
        if number == reads.count {
            start = Instant::now();
        }
        let offset = reads.offset(number);
        if offset == 0 {
            file.rewind().await?;
        }
        file.read_exact(&mut buf).await?;
        ensure!(buf[..8] == offset.to_le_bytes(), "a read from elsewhere");
    }
    Ok(reads.count as f64 / start.elapsed().as_secs_f64())
}

/// Reads a second of positioned reads on threads for blocking calls.
async fn through_pread(file: &Arc<File>, reads: Reads) -> Result<f64> {
    read_all(file, reads).await?;
    let start = Instant::now();
    read_all(file, reads).await?;
    Ok(reads.count as f64 / start.elapsed().as_secs_f64())
}

async fn read_all(file: &Arc<File>, reads: Reads) -> Result<()> {
    let mut readers = JoinSet::new();
    for first in 0..reads.at_once {
        let file = file.clone();
        readers.spawn(async move {
            let mut buf = vec![0; reads.block as usize];
            for number in (first..reads.count).step_by(reads.at_once as usize) {
                let (file, offset) = (file.clone(), reads.offset(number));
                buf = spawn_blocking(move || {
                    file.read_exact_at(&mut buf, offset)?;
                    std::io::Result::Ok(buf)
                })
                .await??;
                ensure!(buf[..8] == offset.to_le_bytes(), "a read from elsewhere");
            }
            Ok(())
        });
    }
    readers.join_all().await.into_iter().collect()
}
