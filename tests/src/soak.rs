//! Many connections to one guest, opened, used and closed again and again: what they take, and
//! whether everything that they took comes back.
//!
//! The guest is the probe `soak`, which stops at each checkpoint until it is told to go on, so that
//! all is counted while nothing moves. The peers, which send back what comes, are a second process:
//! an open connection is a descriptor on either side, and what they need must not be counted.

use std::io;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use wakebox::{Input, Outcome, Output, Policy, Sandbox, Stats, WakeMode};

use crate::leaks::descriptors;
use crate::memory::{Resident, heap_in_use};
use crate::{guest, limits};

/// The first argument of the process that is the peers; see [`peers`].
pub const PEERS: &str = "--peers";

/// Descriptors that a process has besides those of connections.
pub const OTHER_DESCRIPTORS: u64 = 100;

/// Operations in flight besides a read for each connection.
const WRITES: u32 = 256;

const GUEST_RAM: u64 = 128 << 20;

/// Connections that are being made at once: fewer than may wait to be accepted.
const AT_ONCE: usize = 256;

/// By how much the pages of either side may have grown when nothing else has: an allocator does not
/// give back what lies between other things. What is in use is checked more closely.
const RESIDENT_SLACK: u64 = 8 << 20;

/// Longer no checkpoint takes that is not held on purpose.
fn patience() -> Duration {
    crate::patient(Duration::from_secs(120))
}

/// How long the connections of a cycle are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Until each has sent so many messages, one after another.
    Rounds(u32),
    /// For this time, in which each sends one twice a second or so.
    For(Duration),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Connections that are open at the same time.
    pub connections: usize,
    /// How often they are opened, used and closed; the first time says what they take, the others
    /// whether it comes back.
    pub cycles: usize,
    /// How long they are used each time.
    pub hold: Hold,
    /// How the guest is woken.
    pub mode: WakeMode,
}

/// What there is at a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of the host process in memory, guest RAM not counted.
    pub host: u64,
    /// Bytes in use on its heap.
    pub heap: u64,
    /// Bytes of guest RAM in memory.
    pub guest: u64,
    /// Open descriptors of the host process.
    pub descriptors: u64,
    /// Operations in flight.
    pub in_flight: u64,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the connections took when all were open for the first time, each with a read in flight
    /// and before anything was sent.
    pub open: Held,
    /// What was there after the first cycle.
    pub first: Held,
    /// What was there after the last cycle.
    pub last: Held,
    /// Messages sent in all cycles, of which each came back.
    pub messages: u64,
    /// The sandbox at its end.
    pub stats: Stats,
}

impl Soak {
    /// Does it; `say` is told how far it is.
    ///
    /// # Errors
    ///
    /// A connection broke, an echo is missing, or something did not come back. The message says
    /// what.
    pub async fn run(self, say: impl FnMut(String)) -> Result<Report> {
        ensure!(self.connections > 0 && self.cycles > 0, "nothing to do");
        limits::allow_descriptors(self.connections as u64 + OTHER_DESCRIPTORS)?;
        let (stdin, to_guest) = tokio::io::duplex(256);
        let (stdout, from_guest) = tokio::io::duplex(4096);
        let mut sandbox = self.sandbox(stdin, stdout)?;
        let mut conversation = Conversation {
            lines: BufReader::new(from_guest).lines(),
            to_guest,
            say,
        };
        let report = {
            let mut run = std::pin::pin!(sandbox.run());
            let report = tokio::select! {
                report = self.converse(&mut conversation) => report?,
                outcome = &mut run => bail!("the guest ended early: {}", outcome?),
            };
            let outcome = run.await?;
            ensure!(outcome == Outcome::Exit(0), "the guest: {outcome}");
            report
        };
        Ok(Report {
            stats: sandbox.stats(),
            ..report
        })
    }

    /// By how many bytes the heap may have grown from one cycle to a later one: by what belongs to
    /// places for operations that had not been used before, and by lists that have doubled.
    fn heap_slack(&self) -> u64 {
        const PLACE: u64 = 128;
        let places = (self.connections as u64 + u64::from(WRITES)).next_power_of_two();
        PLACE * (places - self.connections as u64) + (64 << 10)
    }

    fn sandbox(&self, stdin: DuplexStream, stdout: DuplexStream) -> Result<Sandbox> {
        let (rounds, time) = match self.hold {
            Hold::Rounds(rounds) => (rounds, Duration::ZERO),
            Hold::For(time) => (0, time),
        };
        let numbers = [
            self.connections as u64,
            self.cycles as u64,
            rounds.into(),
            time.as_millis() as u64,
        ];
        let sandbox = Sandbox::builder()
            .guest(guest("soak"))
            .args(["127.0.0.1:0"])
            .args(numbers.map(|number| number.to_string()))
            .memory(GUEST_RAM)
            .wake(self.mode)
            .in_flight(u32::try_from(self.connections)? + WRITES)
            // One that is left open in one cycle is one too few in the next.
            .handles(u32::try_from(self.connections + 1)?)
            .policy(Policy::new().allow_listen("127.0.0.1:0".parse()?))
            .stdin(Input::reader(stdin))
            .stdout(Output::writer(stdout))
            .stderr(Output::Inherit)
            .build()?;
        Ok(sandbox)
    }

    /// The host's side of the checkpoints.
    async fn converse<S: FnMut(String)>(self, with: &mut Conversation<S>) -> Result<Report> {
        let address = with.checkpoint("listening", patience()).await?;
        let (address, in_flight) = address.split_once(' ').context("an address")?;
        let address: SocketAddr = address.parse()?;
        let before = Held::now(in_flight)?;
        let mut after = Vec::new();
        let (mut open, mut messages) = (Held::default(), 0);
        for cycle in 1..=self.cycles {
            let start = Instant::now();
            let peers = start_peers(address, self.connections)?;
            with.go_on().await?;
            let in_flight = with.checkpoint("open", patience()).await?;
            let now = Held::now(&in_flight)?;
            with.say(format!(
                "cycle {cycle}: {} connections open after {} ms, {} operations in flight",
                self.connections,
                start.elapsed().as_millis(),
                now.in_flight
            ));
            // A read each, and the read of standard input does not count itself.
            ensure!(
                now.in_flight >= self.connections as u64,
                "not every connection has a read in flight"
            );
            if cycle == 1 {
                open = now.beyond(before);
            }

            let start = Instant::now();
            with.go_on().await?;
            let bound = match self.hold {
                Hold::Rounds(_) => patience(),
                Hold::For(time) => time + patience(),
            };
            let counts = with.checkpoint("held", bound).await?;
            let mut counts = counts.split(' ').map(str::parse::<u64>);
            let mut count = || counts.next().context("a number")?.context("a number");
            let (sent, echoes): (u64, u64) = (count()?, count()?);
            with.say(format!(
                "cycle {cycle}: {sent} messages and {echoes} echoes in {} ms",
                start.elapsed().as_millis()
            ));
            ensure!(
                sent == echoes,
                "{} echoes are missing",
                sent.abs_diff(echoes)
            );
            let least = match self.hold {
                Hold::Rounds(rounds) => u64::from(rounds),
                Hold::For(_) => 1,
            };
            ensure!(
                sent >= least * self.connections as u64,
                "a connection was silent"
            );
            messages += sent;

            with.go_on().await?;
            let in_flight = with.checkpoint("closed", patience()).await?;
            let status = ended(peers).await?;
            ensure!(status.success(), "the peers lost something ({status})");
            let now = Held::now(&in_flight)?;
            with.say(format!("cycle {cycle}: all closed; {now}"));
            ensure!(
                (now.descriptors, now.in_flight) == (before.descriptors, before.in_flight),
                "there were {} descriptors and {} operations before, and now there are {} and {}",
                before.descriptors,
                before.in_flight,
                now.descriptors,
                now.in_flight
            );
            after.push(now);
        }
        with.go_on().await?;
        let (first, last) = (after[0], after[after.len() - 1]);
        for (what, first, last, slack) in [
            ("the heap", first.heap, last.heap, self.heap_slack()),
            ("the host's memory", first.host, last.host, RESIDENT_SLACK),
            (
                "the guest's memory",
                first.guest,
                last.guest,
                RESIDENT_SLACK,
            ),
        ] {
            ensure!(
                last <= first + slack,
                "{what} had {first} bytes after the first cycle and has {last} after the last"
            );
        }
        Ok(Report {
            open,
            first,
            last,
            messages,
            stats: Stats::default(),
        })
    }
}

impl Held {
    fn now(in_flight: &str) -> Result<Self> {
        let Resident { host, guest } = Resident::now(GUEST_RAM)?;
        Ok(Self {
            host,
            heap: heap_in_use(),
            guest,
            descriptors: descriptors()? as u64,
            in_flight: in_flight.parse()?,
        })
    }

    fn beyond(self, before: Self) -> Self {
        Self {
            host: self.host.saturating_sub(before.host),
            heap: self.heap.saturating_sub(before.heap),
            guest: self.guest.saturating_sub(before.guest),
            descriptors: self.descriptors.saturating_sub(before.descriptors),
            in_flight: self.in_flight.saturating_sub(before.in_flight),
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} descriptors, {} operations in flight, {} KiB resident of which {} KiB in use on \
             the heap, {} KiB of guest RAM",
            self.descriptors,
            self.in_flight,
            self.host >> 10,
            self.heap >> 10,
            self.guest >> 10
        )
    }
}

/// What the guest says, and who wants to know.
struct Conversation<S> {
    lines: Lines<BufReader<DuplexStream>>,
    to_guest: DuplexStream,
    say: S,
}

impl<S: FnMut(String)> Conversation<S> {
    fn say(&mut self, text: String) {
        (self.say)(text);
    }

    /// Waits for a checkpoint, and returns what the guest says there.
    async fn checkpoint(&mut self, name: &str, patience: Duration) -> Result<String> {
        let line = tokio::time::timeout(patience, self.lines.next_line()).await;
        let line = line.with_context(|| format!("the guest does not come to `{name}`"))??;
        let line = line.with_context(|| format!("the guest ended before `{name}`"))?;
        let rest = line.strip_prefix(name).map(str::trim_start);
        let rest = rest.with_context(|| format!("the guest should be at `{name}`: {line}"))?;
        Ok(rest.to_owned())
    }

    async fn go_on(&mut self) -> Result<()> {
        Ok(self.to_guest.write_all(b"\n").await?)
    }
}

/// Starts this program once more, as the peers.
fn start_peers(address: SocketAddr, connections: usize) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args([PEERS, &address.to_string(), &connections.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the peers")
}

async fn ended(mut peers: Child) -> Result<ExitStatus> {
    let status = tokio::time::timeout(patience(), peers.wait()).await;
    Ok(status.context("the peers do not see that they were left")??)
}

/// What a program does whose first argument is [`PEERS`]: opens the connections and sends back what
/// comes, until the guest closes them. `args` are those behind the first.
///
/// # Errors
///
/// A connection cannot be made, or breaks.
pub fn peers(args: &[String]) -> Result<()> {
    let [address, count] = args else {
        bail!("usage: {PEERS} ADDRESS CONNECTIONS");
    };
    let (address, count) = (address.parse()?, count.parse()?);
    limits::allow_descriptors(count as u64 + OTHER_DESCRIPTORS)?;
    crate::runtime().block_on(echo_all(address, count))
}

async fn echo_all(address: SocketAddr, count: usize) -> Result<()> {
    let mut streams = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    while streams.len() < count {
        while opening.len() < AT_ONCE && streams.len() + opening.len() < count {
            opening.spawn(TcpStream::connect(address));
        }
        if let Some(stream) = opening.join_next().await {
            streams.push(stream??);
        }
    }
    let mut echoes: JoinSet<_> = streams.into_iter().map(echo).collect();
    while let Some(ended) = echoes.join_next().await {
        ended??;
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count]).await?,
        }
    }
}
