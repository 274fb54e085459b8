//! Very many tenants of one pool, ended at random: nothing is left of them, and none finds a byte of
//! another.
//!
//! Each keeps a secret and looks for those of others: in what the guest itself has kept, and, from
//! outside, in the memory that it was given. Of that, the pages that are shared with all who start from
//! the template cannot be written by anybody, and are not read.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use wakebox::template::{Open, When};
use wakebox::{Outcome, Pool, Running, Sandbox, Template, WakeMode};

use crate::leaks::{Left, Usage, settled};
use crate::{guest, runtime_of};

/// Sandboxes that are ready, and that may be taken at once.
const IDLE: usize = 4;
const AT_ONCE: usize = 6;
/// RAM of a guest in bytes.
const MEMORY: u64 = 4 << 20;
const PAGE: u64 = 4096;

/// What every secret begins with; the number of the tenant follows, and the same once more, scattered: an
/// allocator writes what it likes over parts of what was freed. It is put together as the program runs, so
/// that it lies nowhere else.
fn mark() -> [u8; 16] {
    std::array::from_fn(|at| b"bs!dsfu!uifz!ije"[at] - 1)
}

fn secret(tenant: u64) -> Vec<u8> {
    // Over more than a page, so that it is not only in one place.
    let one = [
        &mark()[..],
        &tenant.to_le_bytes(),
        &scattered(tenant).to_le_bytes(),
    ];
    one.concat().repeat(150)
}

/// Takes `count` sandboxes of a pool one after the other, a few at once, after a warm-up of `warm_up` with
/// another pool. Which end each comes to is chosen by `seed`. Returns when the pool is gone, and with it
/// the memory of all guests and as many descriptors and threads as had come.
///
/// # Errors
///
/// The host fails, a tenant finds a byte of another, or something is left after a minute.
pub fn takes(warm_up: u64, count: u64, seed: u64) -> Result<Left> {
    let runtime = runtime_of(2);
    runtime.block_on(all(0..warm_up, seed))?;
    let before = Usage::now()?;
    let started = Instant::now();
    runtime.block_on(all(warm_up..warm_up + count, seed))?;
    let time = started.elapsed();
    let after = settled(&before)?;
    Ok(Left {
        sandboxes: count as usize,
        time,
        before,
        after,
    })
}

async fn template() -> Result<Template> {
    let builder = Sandbox::builder()
        .guest(guest("templates"))
        .memory(MEMORY)
        .wake(WakeMode::Out);
    let running = builder.build()?.start();
    let counted: u64 = running.call("count", &()).await?;
    ensure!(counted == 1);
    let handle = running.handle();
    Ok(handle.snapshot(When::Parked, Open::Refuse).await?)
}

async fn pool() -> Result<Pool> {
    let pool = Pool::builder(template().await?)
        .idle(IDLE)
        .max(AT_ONCE)
        .rehearse(|caller| async move {
            let _: Result<u64, _> = caller.call("count", &()).await;
        });
    Ok(pool.build().await?)
}

/// Tenants with these numbers, of a pool that is gone when this returns.
async fn all(tenants: std::ops::Range<u64>, seed: u64) -> Result<()> {
    let pool = pool().await?;
    let mut jobs = JoinSet::new();
    for tenant in tenants {
        if jobs.len() == AT_ONCE
            && let Some(job) = jobs.join_next().await
        {
            job??;
        }
        let pool = pool.clone();
        jobs.spawn(async move {
            let fate = scattered(seed ^ tenant);
            one(&pool, tenant, fate)
                .await
                .with_context(|| format!("tenant {tenant}, seed {seed}"))
        });
    }
    while let Some(job) = jobs.join_next().await {
        job??;
    }
    wait_for("all are ready that are to be", || Ok(pool.ready() == IDLE)).await?;
    drop(pool);
    wait_for("the memory of the last guest is gone", || {
        Ok(mappings()?.is_empty())
    })
    .await
}

/// Waits until something is so that other threads bring about.
async fn wait_for(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + crate::patient(Duration::from_secs(60));
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not after a minute: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The number's bits, spread over all of it (SplitMix64).
fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

async fn one(pool: &Pool, tenant: u64, fate: u64) -> Result<()> {
    let running = pool.take().await?;
    if fate.is_multiple_of(16) {
        // It has not begun, or has.
        return killed(running, fate >> 4).await;
    }
    let counted: u64 = running.call("count", &()).await?;
    ensure!(counted == 2, "it stands where another left it: {counted}");
    let kept: Vec<u8> = running.call("kept", &()).await?;
    ensure!(kept.is_empty(), "it keeps what another gave it: {kept:?}");
    running.call::<_, ()>("keep", &secret(tenant)).await?;
    look(tenant)?;
    match fate % 4 {
        0 => killed(running, fate >> 4).await,
        1 => {
            // In the middle of a call.
            let caller = running.caller();
            let call =
                tokio::spawn(async move { caller.call::<_, u64>("wait", &60_000_u64).await });
            for _ in 0..fate >> 4 & 3 {
                tokio::task::yield_now().await;
            }
            killed(running, fate >> 6).await?;
            ensure!(call.await?.is_err(), "a call was answered by who had ended");
            Ok(())
        }
        _ => {
            let (outcome, _) = running.close().await?;
            ensure!(outcome == Outcome::Exit(0), "{outcome}");
            Ok(())
        }
    }
}

/// Killed, or dropped.
async fn killed(running: Running, fate: u64) -> Result<()> {
    if fate.is_multiple_of(2) {
        drop(running);
        return Ok(());
    }
    running.handle().kill();
    let (outcome, _) = running.ended().await?;
    ensure!(outcome == Outcome::Cancelled, "{outcome}");
    Ok(())
}

/// Looks for secrets in the memory of the guest that has this tenant's: there are none of others.
fn look(tenant: u64) -> Result<()> {
    let mark = mark();
    let mut guests = 0;
    for (start, end) in mappings()? {
        let own = own_pages(start, end)?;
        let tenants: Vec<u64> = memchr::memmem::find_iter(&own, &mark)
            .filter_map(|at| {
                let (words, _) = own[at + mark.len()..].as_chunks::<8>();
                let [number, again, ..] = words else {
                    return None;
                };
                let [number, again] = [number, again].map(|word| u64::from_le_bytes(*word));
                (scattered(number) == again).then_some(number)
            })
            .collect();
        if tenants.contains(&tenant) {
            guests += 1;
            let others = tenants.iter().find(|other| **other != tenant);
            ensure!(others.is_none(), "it has bytes of tenant {others:?}");
        }
    }
    ensure!(
        guests == 1,
        "the secret is found in {guests} guests, not in one"
    );
    Ok(())
}

/// Where memory lies that is made of a template, from its first to behind its last byte.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn mappings() -> Result<Vec<(u64, u64)>> {
    let maps = BufReader::new(File::open("/proc/self/maps")?);
    let mut all = Vec::new();
    for line in maps.lines() {
        let line = line?;
        if !line.contains("memfd:wakebox-template") {
            continue;
        }
        let range = line.split_whitespace().next().unwrap_or_default();
        let (start, end) = range.split_once('-').context("/proc/self/maps")?;
        let address = |text| u64::from_str_radix(text, 16);
        all.push((address(start)?, address(end)?));
    }
    Ok(all)
}

/// What lies in the pages that were copied to be written, one behind the other. One that is gone
/// meanwhile is left out: it was another guest's.
fn own_pages(start: u64, end: u64) -> Result<Vec<u8>> {
    // Documentation/admin-guide/mm/pagemap.rst
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_A_FILE: u64 = 1 << 61;
    let (pagemap, memory) = (
        File::open("/proc/self/pagemap")?,
        File::open("/proc/self/mem")?,
    );
    let mut entries = vec![0; ((end - start) / PAGE * 8) as usize];
    pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
    let (entries, _) = entries.as_chunks::<8>();
    let mut bytes = Vec::new();
    for (at, entry) in (start..).step_by(PAGE as usize).zip(entries) {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0 {
            let mut page = [0; PAGE as usize];
            if memory.read_exact_at(&mut page, at).is_ok() {
                bytes.extend(page);
            }
        }
    }
    Ok(bytes)
}
