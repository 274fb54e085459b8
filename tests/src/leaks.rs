//! Thousands of sandboxes in one process, and what is left of them: nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wakebox::{Builder, Machines, Outcome, Policy, Sandbox, WakeMode};
use wakebox_abi::entry::Token;
use wakebox_abi::op::{Deadline, Operation};

use crate::elf::{Elf, code};
use crate::{guest, runtime_of};

/// Sandboxes that go on at once.
const AT_ONCE: usize = 16;
/// How long what is in other threads' hands may take to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// RAM of a guest in bytes.
const MEMORY: u64 = 4 << 20;

/// Open descriptors of this process, with the one that counts them, and without those of machines that
/// wait for a guest, two each.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn descriptors() -> Result<usize> {
    let waiting = Machines::of_process()?.waiting();
    let all = std::fs::read_dir("/proc/self/fd")
        .context("/proc/self/fd")?
        .count();
    Ok(all.saturating_sub(2 * waiting))
}

/// The names of this process's threads.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn thread_names() -> Result<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task").context("/proc/self/task")?;
    // One that has ended since has no name.
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    Ok(tasks.filter_map(name).collect())
}

/// Threads of this process, without those in which newer kernels do KVM's housekeeping for each VM.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn threads() -> Result<usize> {
    let names = thread_names()?.into_iter();
    Ok(names.filter(|name| !name.starts_with("kvm-")).count())
}

/// What this process has.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads, without those in which newer kernels do KVM's housekeeping for each VM.
    pub threads: usize,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// As `/proc` has it.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .context("no VmRSS in /proc/self/status")?;
        Ok(Self {
            descriptors: descriptors()?,
            threads: threads()?,
            resident: resident * 1024,
        })
    }
}

/// What a soak left.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Sandboxes that were measured.
    pub sandboxes: usize,
    /// How long they took.
    pub time: Duration,
    /// Before them, after a warm-up.
    pub before: Usage,
    /// After them.
    pub after: Usage,
}

impl Left {
    /// Growth of resident memory in bytes; negative if there is less.
    pub fn growth(&self) -> i64 {
        self.after.resident.cast_signed() - self.before.resident.cast_signed()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |before: usize, after: usize| after.cast_signed() - before.cast_signed();
        write!(
            f,
            "{} sandboxes in {:.1} s left {} descriptors, {} threads and {:.2} MiB of resident memory",
            self.sandboxes,
            self.time.as_secs_f64(),
            signed(self.before.descriptors, self.after.descriptors),
            signed(self.before.threads, self.after.threads),
            self.growth() as f64 / f64::from(1 << 20),
        )
    }
}

/// Creates, runs and ends `count` sandboxes in every way that there is, after a warm-up of
/// `warm_up`. Returns when no more descriptors and threads are left than were there before.
///
/// # Errors
///
/// The host fails, a guest ends in another way than it should, or something is left after a minute.
pub fn sandboxes(warm_up: usize, count: usize) -> Result<Left> {
    let runtime = runtime_of(2);
    let dir = tempfile::tempdir()?;
    runtime.block_on(all(warm_up, dir.path()))?;
    let before = Usage::now()?;
    let started = Instant::now();
    runtime.block_on(all(count, dir.path()))?;
    let time = started.elapsed();
    let after = settled(&before)?;
    Ok(Left {
        sandboxes: count,
        time,
        before,
        after,
    })
}

/// What this process has when it has no more descriptors and threads than before.
///
/// # Errors
///
/// Something is left after a minute.
pub fn settled(before: &Usage) -> Result<Usage> {
    // Other threads let go of what they have in hand when their turn comes, and threads for blocking
    // calls end when they have had nothing to do for a while.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = Usage::now()?;
        if now.descriptors <= before.descriptors && now.threads <= before.threads {
            return Ok(now);
        }
        if Instant::now() > deadline {
            bail!("something is left: {before:?} became {now:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn all(count: usize, dir: &Path) -> Result<()> {
    let mut runs = JoinSet::new();
    for number in 0..count {
        if runs.len() == AT_ONCE
            && let Some(run) = runs.join_next().await
        {
            run??;
        }
        let dir = dir.to_owned();
        runs.spawn(async move {
            let mode = WakeMode::ALL[number % 4];
            let way = number / 4 % WAYS;
            one(way, mode, &dir)
                .await
                .with_context(|| format!("sandbox {number}, way {way}, mode {mode}"))
        });
    }
    while let Some(run) = runs.join_next().await {
        run??;
    }
    Ok(())
}

/// Ways to live and to end.
const WAYS: usize = 8;

async fn one(way: usize, mode: WakeMode, dir: &Path) -> Result<()> {
    match way {
        // It waits for operations and ends.
        0 => ends_with(small(&[waits(), code::exit(3)].concat(), mode), 3).await,
        // It ends with operations in flight.
        1 => {
            let never = code::submit(&[deadline(0, u64::MAX), deadline(1, u64::MAX)]);
            ends_with(small(&[never, code::exit(4)].concat(), mode), 4).await
        }
        // It is never run.
        2 => {
            drop(small(&code::exit(0), mode).build()?);
            Ok(())
        }
        // It computes and is killed, or is dropped in the middle.
        3 => killed(small(&code::spin(), mode), None).await,
        4 => {
            let mut sandbox = small(&code::spin(), mode).build()?;
            tokio::select! {
                biased;
                _ = sandbox.run() => bail!("it never ends"),
                () = tokio::task::yield_now() => Ok(()),
            }
        }
        // It waits for the host or for a disk, and is killed or dropped.
        5 => {
            let (builder, here) = busy("call", mode, dir)?;
            killed(builder, Some(here)).await
        }
        6 => {
            let (builder, here) = busy("work", mode, dir)?;
            killed(builder, Some(here)).await
        }
        _ => {
            let (builder, here) = busy("work", mode, dir)?;
            let mut sandbox = builder.build()?;
            tokio::select! {
                outcome = sandbox.run() => bail!("it never ends, and yet: {:?}", outcome),
                permit = here.acquire() => {
                    permit?.forget();
                    Ok(())
                }
            }
        }
    }
}

fn deadline(slot: u32, at_ns: u64) -> wakebox_abi::entry::Submission {
    let token = Token {
        slot,
        generation: 7,
    };
    Deadline { at_ns }.submission(token)
}

/// Code that waits for a few deadlines, all in flight at once.
fn waits() -> Vec<u8> {
    let deadlines: Vec<_> = (0..4)
        .map(|slot| deadline(slot, u64::from(slot) * 500_000))
        .collect();
    let waits = (0..4).flat_map(code::wait).collect();
    [code::submit(&deadlines), waits].concat()
}

fn small(machine_code: &[u8], mode: WakeMode) -> Builder {
    let guest = Elf::guest(machine_code).to_bytes();
    Sandbox::builder().guest(guest).memory(MEMORY).wake(mode)
}

/// The probe that does something for ever, and a permit when it does.
fn busy(verb: &str, mode: WakeMode, dir: &Path) -> Result<(Builder, Arc<Semaphore>)> {
    let here = Arc::new(Semaphore::new(0));
    let there = here.clone();
    let grant = format!("{}:/d", dir.display());
    let builder = Sandbox::builder()
        .guest(guest("killme"))
        .args([verb])
        .memory(MEMORY)
        .wake(mode)
        .policy(Policy::new().allow_dir(grant.parse()?))
        .host_fn("here", move |_, (): ()| {
            there.add_permits(1);
            std::future::ready(())
        })
        .host_fn("never", |_, (): ()| std::future::pending::<()>());
    Ok((builder, here))
}

async fn ends_with(builder: Builder, code: i32) -> Result<()> {
    let outcome = builder.build()?.run().await?;
    ensure!(outcome == Outcome::Exit(code), "{outcome}");
    Ok(())
}

/// Kills it when it is there, or after others have had a turn.
async fn killed(builder: Builder, here: Option<Arc<Semaphore>>) -> Result<()> {
    let mut sandbox = builder.build()?;
    let handle = sandbox.handle();
    let run = tokio::spawn(async move { sandbox.run().await });
    match here {
        Some(here) => here.acquire().await?.forget(),
        None => tokio::task::yield_now().await,
    }
    handle.kill();
    let outcome = run.await??;
    ensure!(outcome == Outcome::Cancelled, "{outcome}");
    Ok(())
}
