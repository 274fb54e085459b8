//! A guest initialises itself once, and a thousand copies of it answer. `cargo xtask run fork` runs it.
//!
//! Usage: `fork GUEST [out|irq|poll|auto] [CLONES]`
//!
//! The questions are how many primes there are up to a number. The host finds the answers in another
//! way, which tells all that are asked for at once.

use std::error::Error;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wakebox::template::{Open, Position, When};
use wakebox::{Builder, Pool, Running, Sandbox, Template, WakeMode};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The guest knows the primes up to here.
const MOST: u32 = 400_000_000;
const GUEST_RAM: u64 = 64 << 20;
/// Sandboxes that are started from the guest's file: each takes as long as it initialises itself.
const COLD: u32 = 3;
/// Sandboxes that sleep side by side, at most.
const SLEEPERS: u32 = 200;
/// Sandboxes that a pool has ready while somebody takes one after the other.
const READY: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let guest = args.next().ok_or("usage: fork GUEST [MODE] [CLONES]")?;
    let mode: WakeMode = args.next().as_deref().unwrap_or("auto").parse()?;
    let clones: u32 = args.next().map_or(Ok(1_000), |arg| arg.parse())?;
    if clones == 0 {
        return Err("at least one clone".into());
    }
    raise_limit()?;
    let cold = || {
        let builder = Sandbox::builder().guest(&*guest);
        builder.memory(GUEST_RAM).wake(mode)
    };

    let template = template(cold()).await?;
    if let Position::Parked { held, ram, .. } = template.info().at {
        let (held, ram) = (held >> 10, ram >> 10);
        println!(
            "a template that holds {held} KiB of {ram}, of a guest that has initialised itself"
        );
    }

    let mut questions = Questions::new();
    let mut rows = [
        Row::new("cold start"),
        Row::new("clone of the template"),
        Row::new("taken of a pool"),
    ];
    let mut asleep = Vec::new();

    // Memory first, with all of them alive: what is free again would hide what the next ones take.
    let sleepers = clones.min(SLEEPERS);
    let before = resident()?;
    for _ in 0..COLD {
        let start = Instant::now();
        let running = cold().build()?.start();
        questions.ask(&running).await?;
        rows[0].times.push(start.elapsed());
        asleep.push(running);
    }
    let before = rows[0].slept(before, COLD).await?;
    for _ in 0..sleepers {
        let running = template.spawn().build()?.start();
        questions.ask(&running).await?;
        asleep.push(running);
    }
    let before = rows[1].slept(before, sleepers).await?;
    let pool = pool_of(&template, sleepers as usize).await?;
    for _ in 0..sleepers {
        let running = pool.take().await?;
        questions.ask(&running).await?;
        asleep.push(running);
    }
    rows[2].slept(before, sleepers).await?;
    drop(pool);
    for running in asleep {
        end(running).await?;
    }

    for _ in 0..clones {
        let start = Instant::now();
        let running = template.spawn().build()?.start();
        questions.ask(&running).await?;
        rows[1].times.push(start.elapsed());
        end(running).await?;
    }
    let pool = pool_of(&template, READY).await?;
    for _ in 0..clones {
        while pool.ready() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        let running = pool.take().await?;
        questions.ask(&running).await?;
        rows[2].times.push(start.elapsed());
        end(running).await?;
    }

    Row::print_all(rows);
    questions.result()
}

/// Takes a template where the guest says that it has initialised itself.
async fn template(builder: Builder) -> Result<Template> {
    let sandbox = builder.build()?;
    let handle = sandbox.handle();
    let taken = handle.snapshot(When::GuestAsks, Open::Refuse);
    let running = sandbox.start();
    let template = taken.await?;
    end(running).await?;
    Ok(template)
}

/// A pool with so many that are ready, each of which has written what a question writes.
async fn pool_of(template: &Template, ready: usize) -> Result<Pool> {
    let pool = Pool::builder(template.clone())
        .idle(ready)
        .max(ready)
        .rehearse(async |caller| {
            // If it fails, so will the one that is timed.
            let _ = caller.call::<_, Option<u32>>("primes_up_to", &MOST).await;
        });
    Ok(pool.build().await?)
}

async fn end(running: Running) -> Result<()> {
    let (outcome, _) = running.close().await?;
    match outcome.is_success() {
        true => Ok(()),
        false => Err(outcome.to_string().into()),
    }
}

/// Questions to which the answers are known.
struct Questions {
    /// How many primes there are up to `MOST / (index + 1)`.
    answers: Vec<u32>,
    asked: usize,
    right: usize,
}

impl Questions {
    /// Counts without finding a single large prime: what is left up to each quotient of [`MOST`] when
    /// the multiples of the primes up to its square root are taken away (Legendre).
    fn new() -> Self {
        let root = MOST.isqrt() as usize;
        let most = MOST as usize;
        // Numbers from two up to each `n`, and up to each `most / n`.
        let mut small: Vec<usize> = (0..=root).map(|n| n.saturating_sub(1)).collect();
        let mut large: Vec<usize> = (0..=root).map(|n| most / n.max(1) - 1).collect();
        for prime in 2..=root {
            let before = small[prime - 1];
            if small[prime] == before {
                continue;
            }
            let square = prime * prime;
            for n in 1..=root.min(most / square) {
                let rest = match n * prime {
                    product if product <= root => large[product],
                    product => small[most / product],
                };
                large[n] -= rest - before;
            }
            for n in (square..=root).rev() {
                small[n] -= small[n / prime] - before;
            }
        }
        let answers = large.into_iter().skip(1);
        Self {
            answers: answers.filter_map(|n| u32::try_from(n).ok()).collect(),
            asked: 0,
            right: 0,
        }
    }

    /// Asks the next one.
    async fn ask(&mut self, running: &Running) -> Result<()> {
        let number = self.asked % self.answers.len();
        self.asked += 1;
        let up_to = MOST / (u32::try_from(number)? + 1);
        let answer: Option<u32> = running.call("primes_up_to", &up_to).await?;
        self.right += usize::from(answer == Some(self.answers[number]));
        Ok(())
    }

    fn result(&self) -> Result<()> {
        println!("{} of {} answers are right", self.right, self.asked);
        match self.right == self.asked {
            true => Ok(()),
            false => Err("a guest has answered wrongly".into()),
        }
    }
}

/// How sandboxes of one kind did.
struct Row {
    name: &'static str,
    /// From before there is a sandbox to its first answer.
    times: Vec<Duration>,
    sleepers: u32,
    /// Bytes of memory for each that sleeps.
    memory: u64,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            times: Vec::new(),
            sleepers: 0,
            memory: 0,
        }
    }

    /// So many more sleep than when this process had `before` bytes; returns what it has now.
    async fn slept(&mut self, before: u64, sleepers: u32) -> Result<u64> {
        // They have answered, and go to sleep.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = resident()?;
        self.sleepers = sleepers;
        self.memory = now.saturating_sub(before) / u64::from(sleepers);
        Ok(now)
    }

    fn print_all(rows: [Self; 3]) {
        println!("                         to the first answer       asleep, side by side");
        println!("                         ms, median  samples       KiB each  sandboxes");
        for mut row in rows {
            row.times.sort_unstable();
            let median = row.times[row.times.len() / 2].as_secs_f64() * 1e3;
            println!(
                "{:<22} {median:>12.3} {:>8} {:>14} {:>10}",
                row.name,
                row.times.len(),
                row.memory / 1024,
                row.sleepers
            );
        }
    }
}

/// Bytes of this process in memory; a page that sandboxes share counts once. What the kernel keeps for
/// a virtual machine and does not map is not in it.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let line = line.ok_or("no Pss in /proc/self/smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Allows this process as many descriptors as it may allow itself: each sandbox has its own machine.
fn raise_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
