//! Ten thousand guests sleep in one process, and one of them is woken at random, again and again.
//! `cargo xtask run tenants` runs it.
//!
//! Usage: `tenants GUEST [out|irq|poll|auto] [TENANTS] [VISITS]`
//!
//! Each has a secret and a timer. While it sleeps it has no machine, no descriptor and no thread; when
//! it is visited it gets one of the few machines of the process. Beside them sleep some that have a
//! machine each.

use std::error::Error;
use std::time::{Duration, Instant};

use wakebox::template::{Open, When};
use wakebox::{Machines, Running, Sandbox, Template, WakeMode};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const GUEST_RAM: u64 = 8 << 20;
/// Of those that have a machine each, at most.
const OWNERS: usize = 200;
/// How many are looked at to tell how the first and the last did.
const SAMPLE: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let guest = args
        .next()
        .ok_or("usage: tenants GUEST [MODE] [TENANTS] [VISITS]")?;
    let mode: WakeMode = args.next().as_deref().unwrap_or("auto").parse()?;
    let tenants: usize = args.next().map_or(Ok(10_000), |arg| arg.parse())?;
    let visits: usize = args.next().map_or(Ok(2_000), |arg| arg.parse())?;
    if tenants == 0 || visits == 0 {
        return Err("at least one tenant and one visit".into());
    }
    let template = template(&guest, mode).await?;

    println!("                     made, us      asleep, each              visited, us");
    println!("                   first   last    KiB  descr.  threads    median    99th   tenants");
    let mut right = 0;
    let mut asked = 0;
    for (name, count, own) in [
        ("a machine each", tenants.min(OWNERS), true),
        ("machines lent", tenants, false),
    ] {
        let mut house = House::new(&template, count, own).await?;
        let visited = house.visit(visits).await?;
        house.print(name, visited);
        right += house.right;
        asked += house.asked;
        house.close().await?;
    }
    println!("{right} of {asked} secrets and counts of visits are right");
    match right == asked {
        true => Ok(()),
        false => Err("a tenant has answered wrongly".into()),
    }
}

/// A template of the guest, initialised.
async fn template(guest: &str, mode: WakeMode) -> Result<Template> {
    let builder = Sandbox::builder().guest(guest).memory(GUEST_RAM).wake(mode);
    let sandbox = builder.build()?;
    let handle = sandbox.handle();
    let taken = handle.snapshot(When::GuestAsks, Open::Refuse);
    let running = sandbox.start();
    let template = taken.await?;
    running.close().await?;
    Ok(template)
}

/// What a tenant keeps.
fn secret(tenant: usize) -> Vec<u8> {
    format!("the secret of tenant {tenant}").into_bytes()
}

/// Tenants that sleep.
struct House {
    tenants: Vec<Running>,
    /// How often each was visited.
    visits: Vec<u64>,
    /// How long each took to make.
    made: Vec<Duration>,
    /// What one takes of the process: bytes, descriptors, threads.
    each: [f64; 3],
    asked: usize,
    right: usize,
}

impl House {
    async fn new(template: &Template, count: usize, own: bool) -> Result<Self> {
        let before = Usage::now()?;
        let (mut tenants, mut made) = (Vec::new(), Vec::new());
        for tenant in 0..count {
            let start = Instant::now();
            let builder = template.spawn();
            let builder = if own { builder.own_machine() } else { builder };
            let running = builder.build()?.start();
            running.call::<_, ()>("keep", &secret(tenant)).await?;
            made.push(start.elapsed());
            tenants.push(running);
        }
        // The last ones go to sleep.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = Usage::now()?;
        Ok(Self {
            visits: vec![0; tenants.len()],
            tenants,
            made,
            each: now.since(&before, count),
            asked: 0,
            right: 0,
        })
    }

    /// Visits one after the other, at random. Returns how long each visit took.
    async fn visit(&mut self, times: usize) -> Result<Vec<Duration>> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut visited = Vec::new();
        for _ in 0..times {
            // Xorshift (G. Marsaglia, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let tenant = usize::try_from(random % self.tenants.len() as u64)?;
            let start = Instant::now();
            let answer: (u64, Vec<u8>) = self.tenants[tenant].call("visit", &()).await?;
            visited.push(start.elapsed());
            self.visits[tenant] += 1;
            self.asked += 1;
            self.right += usize::from(answer == (self.visits[tenant], secret(tenant)));
            // Whoever was visited goes to sleep meanwhile.
            tokio::task::yield_now().await;
        }
        Ok(visited)
    }

    fn print(&mut self, name: &str, mut visited: Vec<Duration>) {
        let sample = SAMPLE.min(self.made.len());
        let end = self.made.len() - sample;
        let first = median(&mut self.made[..sample].to_vec());
        let last = median(&mut self.made[end..].to_vec());
        let [bytes, descriptors, threads] = self.each;
        let middle = median(&mut visited);
        let late = micros(visited[visited.len() * 99 / 100]);
        println!(
            "{name:<16} {first:>7.0} {last:>6.0} {:>6.0} {descriptors:>7.2} {threads:>8.2} {middle:>9.0} \
             {late:>7.0} {:>9}",
            bytes / 1024.0,
            self.tenants.len()
        );
    }

    async fn close(self) -> Result<()> {
        for running in self.tenants {
            let (outcome, _) = running.close().await?;
            if !outcome.is_success() {
                return Err(outcome.to_string().into());
            }
        }
        Machines::of_process()?.clear();
        Ok(())
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    micros(times[times.len() / 2])
}

/// What this process takes.
struct Usage {
    bytes: u64,
    descriptors: u64,
    threads: u64,
}

impl Usage {
    fn now() -> Result<Self> {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.ok_or("no Pss in /proc/self/smaps_rollup")?;
        let count = |path| Ok::<_, std::io::Error>(std::fs::read_dir(path)?.count() as u64);
        Ok(Self {
            bytes: pss.trim().trim_end_matches(" kB").parse::<u64>()? * 1024,
            descriptors: count("/proc/self/fd")?,
            threads: count("/proc/self/task")?,
        })
    }

    /// What each of so many takes.
    fn since(&self, before: &Self, count: usize) -> [f64; 3] {
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / count as f64;
        [
            each(self.bytes, before.bytes),
            each(self.descriptors, before.descriptors),
            each(self.threads, before.threads),
        ]
    }
}
