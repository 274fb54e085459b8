//! TCP echo and HTTP: a guest beside the same server in native Tokio, with the same client.
//!
//! Either server has one thread for its tasks, the client has another. Every connection has one
//! request under way at a time. The native web server is axum, as one would write it; in the guest
//! it is picoserve.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use wakebox::{Captured, Handle, Limits, Outcome, Output, Policy, Sandbox, Stats, WakeMode};
use wakebox_tests::limits::allow_descriptors;
use wakebox_tests::{guest, runtime_of};

use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 3;
/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
/// Bytes of a connection's buffer in either server, as in the guest program `echo`.
const BUFFER: usize = 16 << 10;
/// How long requests go before any is counted, and how long those go that are.
const WARM_UP: Duration = Duration::from_millis(150);
const COUNTED: Duration = Duration::from_millis(500);
/// What is asked of the web site, and the end of its answer.
const HTTP_REQUEST: &[u8] = b"GET /greet/you HTTP/1.1\r\nHost: bench\r\n\r\n";
const HTTP_BODY: &[u8] = b"\r\n\r\n{\"hello\":\"you\"}";
/// Beyond that a server will not begin to listen any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors of the process: both ends of every connection are here.
const DESCRIPTORS: u64 = 4096;

/// What is asked and answered.
#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    /// The same bytes.
    Echo,
    /// A short page of JSON, over connections that stay open.
    Http,
}

/// Where the server runs.
#[derive(Clone, Copy)]
enum Server {
    Native,
    Guest(WakeMode),
    /// In a guest that hashes 4 KiB for each request, on so many processors.
    Hashing(u32),
}

/// The native one, and a guest in each mode.
const SERVERS: [Server; 5] = [
    Server::Native,
    Server::Guest(WakeMode::Auto),
    Server::Guest(WakeMode::Out),
    Server::Guest(WakeMode::Irq),
    Server::Guest(WakeMode::Poll),
];

/// What became of requests over all connections of a client.
struct Asked {
    /// How many there were, counted or not.
    requests: usize,
    /// How long those took that count, the shortest first.
    took: Vec<Duration>,
}

/// What the client saw, each list with a value a round.
#[derive(Default)]
struct Seen {
    /// Requests a second.
    rates: Vec<f64>,
    /// Nanoseconds within which 99 of 100 requests were answered.
    p99: Vec<f64>,
    /// Nanoseconds of processors for each request, on all threads of the process but the client's.
    processor: Vec<f64>,
    /// Exits of the guest for each request, those for opening and closing connections included.
    exits: Vec<f64>,
}

/// The middle of what was seen in the rounds.
#[derive(Clone, Copy)]
struct Middle {
    rate: f64,
    p99: f64,
    processor: f64,
    exits: f64,
}

/// Requests a second, how long they take and what they cost, by connections; and what the mode that a sandbox
/// has if nothing is said loses to the best of the others.
pub(crate) fn measure(client: &Runtime) -> Result<Vec<Row>> {
    allow_descriptors(DESCRIPTORS)?;
    let mut rows = Vec::new();
    let asked = [1, 64, 1000].map(|connections| (Protocol::Echo, connections));
    for (protocol, connections) in asked.into_iter().chain([(Protocol::Http, 64)]) {
        let mut seen: [Seen; SERVERS.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (server, seen) in SERVERS.into_iter().zip(&mut seen) {
                seen.note(&round(client, protocol, server, connections)?)?;
            }
        }
        let [native, guests @ ..] = seen.map(Seen::middle);
        let plural = if connections == 1 { "" } else { "s" };
        let name = match protocol {
            Protocol::Echo => "TCP echo",
            Protocol::Http => "HTTP requests",
        };
        let name = format!("{name}, {connections} connection{plural}");
        for (mode, seen) in SERVERS[1..].iter().zip(guests) {
            let Server::Guest(mode) = mode else {
                bail!("only the first is in no guest");
            };
            let what = format!("{name}, mode {mode}");
            rows.extend(beside_native(
                what,
                *mode,
                (protocol, connections),
                seen,
                native,
            ));
        }
        let [auto, others @ ..] = guests;
        rows.extend(beside_best(&name, auto, &others));
    }
    Ok(rows)
}

/// A guest beside the native server. What is promised is so of the modes that one would take.
fn beside_native(
    what: String,
    mode: WakeMode,
    (protocol, connections): (Protocol, usize),
    seen: Middle,
    native: Middle,
) -> [Row; 4] {
    let promises = matches!(mode, WakeMode::Auto | WakeMode::Out);
    let rate = Row::new(what, Unit::PerSecond, seen.rate).floor(native.rate);
    let p99 = Row::new("    99 of 100 answered within", Unit::Nanoseconds, seen.p99);
    let p99 = p99.floor(native.p99);
    let processor = Row::new(
        "    of processors, a request",
        Unit::Nanoseconds,
        seen.processor,
    );
    let processor = processor.floor(native.processor);
    let processor = match (mode, connections) {
        (WakeMode::Out, 64..) => processor.bar(Bar::Ratio(1.1)),
        _ => processor,
    };
    let (rate, p99) = match (protocol, connections) {
        (Protocol::Echo, 1000) if promises => {
            // Where many wait, nobody waits for long.
            (rate.bar(Bar::RatioAtLeast(0.6)), p99.bar(Bar::Ratio(3.0)))
        }
        (Protocol::Echo, 64) if promises => (rate.bar(Bar::RatioAtLeast(0.6)), p99),
        _ => (rate, p99),
    };
    [
        rate,
        p99,
        processor,
        Row::new("    exits a request, all told", Unit::Number, seen.exits),
    ]
}

/// Mode `auto` beside whichever other mode is best, of each quantity by itself.
fn beside_best(name: &str, auto: Middle, others: &[Middle]) -> [Row; 3] {
    let most = |value: fn(&Middle) -> f64| others.iter().map(value).fold(0.0, f64::max);
    let least = |value: fn(&Middle) -> f64| others.iter().map(value).fold(f64::INFINITY, f64::min);
    let what = format!("{name}, mode auto beside the best of the others");
    [
        Row::new(what, Unit::PerSecond, auto.rate)
            .floor(most(|seen| seen.rate))
            .bar(Bar::RatioAtLeast(0.95)),
        Row::new("    99 of 100 answered within", Unit::Nanoseconds, auto.p99)
            .floor(least(|seen| seen.p99))
            .bar(Bar::Ratio(1.05)),
        Row::new(
            "    of processors, a request",
            Unit::Nanoseconds,
            auto.processor,
        )
        .floor(least(|seen| seen.processor))
        .bar(Bar::Ratio(1.05)),
    ]
}

/// Two processors beside one: requests a second over a thousand connections, with 4 KiB to hash for each.
pub(crate) fn hashing(client: &Runtime) -> Result<Row> {
    allow_descriptors(DESCRIPTORS)?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (processors, rates) in [1, 2].into_iter().zip(&mut rates) {
            let round = round(client, Protocol::Echo, Server::Hashing(processors), 1000)?;
            rates.push(round.asked.took.len() as f64 / COUNTED.as_secs_f64());
        }
    }
    let [one, two] = rates.map(median);
    let what = "TCP echo with 4 KiB hashed a request, 1,000 connections: 2 processors beside 1";
    Ok(Row::new(what, Unit::PerSecond, two)
        .floor(one)
        .bar(Bar::RatioAtLeast(1.4)))
}

impl Seen {
    fn note(&mut self, round: &Round) -> Result<()> {
        let took = &round.asked.took;
        ensure!(!took.is_empty(), "no request was answered");
        let p99 = took[(took.len() - 1) * 99 / 100];
        let requests = round.asked.requests as f64;
        self.rates.push(took.len() as f64 / COUNTED.as_secs_f64());
        self.p99.push(p99.as_nanos() as f64);
        self.processor
            .push(round.processor.as_nanos() as f64 / requests);
        self.exits.push(round.exits as f64 / requests);
        Ok(())
    }

    fn middle(self) -> Middle {
        Middle {
            rate: median(self.rates),
            p99: median(self.p99),
            processor: median(self.processor),
            exits: median(self.exits),
        }
    }
}

/// What became of one server.
struct Round {
    asked: Asked,
    /// Processor time of all threads but the client's, while it was asked.
    processor: Duration,
    /// Exits of the guest.
    exits: u64,
}

/// Processor time of the process, but for the thread that calls.
pub(crate) fn of_others() -> Duration {
    let used = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let all = used(ClockId::ProcessCPUTime);
    all.saturating_sub(used(ClockId::ThreadCPUTime))
}

/// Starts a server and asks it as often as can be.
fn round(
    client: &Runtime,
    protocol: Protocol,
    server: Server,
    connections: usize,
) -> Result<Round> {
    // The client's runtime has no thread but this.
    let asked = |address| {
        let before = of_others();
        let asked = client.block_on(ask(protocol, address, connections))?;
        Ok::<_, anyhow::Error>((asked, of_others().saturating_sub(before)))
    };
    match server {
        Server::Native => {
            let (address, server) = native(protocol, connections)?;
            let (asked, processor) = asked(address)?;
            server
                .join()
                .map_err(|_| anyhow!("the server panicked"))??;
            Ok(Round {
                asked,
                processor,
                exits: 0,
            })
        }
        Server::Guest(_) | Server::Hashing(_) => {
            let (address, kill, server) = in_guest(protocol, server, connections)?;
            let (asked, processor) = asked(address)?;
            let expected = match protocol {
                // It ends with its last connection.
                Protocol::Echo => Outcome::Exit(0),
                Protocol::Http => {
                    kill.kill();
                    Outcome::Cancelled
                }
            };
            let ended = server.join().map_err(|_| anyhow!("the host panicked"))?;
            let (outcome, stats) = ended?;
            ensure!(outcome == expected, "the guest that serves: {outcome}");
            Ok(Round {
                asked,
                processor,
                exits: stats.exits.total(),
            })
        }
    }
}

/// The server in native Tokio, which ends with its last connection.
fn native(protocol: Protocol, connections: usize) -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        wakebox_tests::runtime().block_on(async {
            let listener = TcpListener::from_std(listener)?;
            if protocol == Protocol::Http {
                return site(listener, connections).await;
            }
            let mut tasks = JoinSet::new();
            for _ in 0..connections {
                let (stream, _) = listener.accept().await?;
                tasks.spawn(echo(stream));
            }
            tasks.join_all().await.into_iter().collect()
        })
    });
    Ok((address, server))
}

/// Sends everything back until the peer has no more.
async fn echo(mut stream: TcpStream) -> Result<()> {
    let mut buf = vec![0; BUFFER];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(()),
            count => stream.write_all(&buf[..count]).await?,
        }
    }
}

/// The page of the demo `http` that is asked for, until so many connections have ended.
async fn site(listener: TcpListener, connections: usize) -> Result<()> {
    #[derive(Serialize)]
    struct Greeting {
        hello: String,
    }

    let greet = async |Path(hello): Path<String>| Json(Greeting { hello });
    let site = Router::new().route("/greet/{name}", get(greet));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(site.clone());
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tasks.spawn(serving);
    }
    while let Some(served) = tasks.join_next().await {
        served??;
    }
    Ok(())
}

type Ended = wakebox::Result<(Outcome, Stats)>;

/// The server in a guest, and what ends one that does not end with its last connection.
fn in_guest(
    protocol: Protocol,
    server: Server,
    connections: usize,
) -> Result<(SocketAddr, Handle, JoinHandle<Ended>)> {
    let stdout = Captured::new();
    let (mode, processors) = match server {
        Server::Hashing(processors) => (WakeMode::Auto, processors),
        Server::Guest(mode) => (mode, 1),
        Server::Native => bail!("this one is in no guest"),
    };
    let (program, begin, end) = match (protocol, server) {
        (_, Server::Hashing(_)) => ("poolbench", "listening on ", ""),
        (Protocol::Echo, _) => ("echo", "listening on ", ""),
        (Protocol::Http, _) => ("http", "http://", "/"),
    };
    let mut sandbox = Sandbox::builder()
        .guest(guest(program))
        .memory(256 << 20)
        .wake(mode)
        .processors(processors)
        .limits(Limits::new().processors(processors))
        .args(["127.0.0.1:0", "--once", &connections.to_string()])
        .policy(Policy::new().allow_listen("127.0.0.1:0".parse()?))
        .stdout(Output::Capture(stdout.clone()))
        .build()?;
    let kill = sandbox.handle();
    let server = thread::spawn(move || {
        // A thread for each processor.
        let runtime = match processors {
            1 => wakebox_tests::runtime(),
            several => runtime_of(several as usize),
        };
        let outcome = runtime.block_on(sandbox.run())?;
        Ok((outcome, sandbox.stats()))
    });
    let started = Instant::now();
    loop {
        let text = stdout.text();
        if let Some((line, _)) = text.split_once('\n') {
            let address = line
                .strip_prefix(begin)
                .and_then(|line| line.strip_suffix(end));
            let address = address.context("no address")?.parse()?;
            return Ok((address, kill, server));
        }
        ensure!(
            !server.is_finished() && started.elapsed() < PATIENCE,
            "the guest that serves does not listen"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Asks over all connections at once.
async fn ask(protocol: Protocol, address: SocketAddr, connections: usize) -> Result<Asked> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // So that the server has accepted it.
        let answer = protocol.first(&mut stream).await?;
        streams.push((stream, answer));
    }
    let mut all = Asked {
        requests: connections,
        took: Vec::new(),
    };
    let begin = Instant::now() + WARM_UP;
    let end = begin + COUNTED;
    let mut clients = JoinSet::new();
    for (mut stream, answer) in streams {
        clients.spawn(async move {
            let (mut requests, mut took) = (0, Vec::with_capacity(1 << 10));
            let mut received = vec![0; answer.len()];
            loop {
                let start = Instant::now();
                if start >= end {
                    return Ok(Asked { requests, took });
                }
                requests += 1;
                match protocol {
                    Protocol::Echo => echoed(&mut stream, requests as u64).await?,
                    Protocol::Http => {
                        stream.write_all(HTTP_REQUEST).await?;
                        stream.read_exact(&mut received).await?;
                        ensure!(is_like(&received, &answer), "an answer of another kind");
                    }
                }
                if start >= begin {
                    took.push(start.elapsed());
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        let client: Result<Asked> = client?;
        let client = client?;
        all.requests += client.requests;
        all.took.extend(client.took);
    }
    all.took.sort_unstable();
    Ok(all)
}

impl Protocol {
    /// The first request over a connection, and its answer.
    async fn first(self, stream: &mut TcpStream) -> Result<Vec<u8>> {
        if self == Self::Echo {
            echoed(stream, 0).await?;
            return Ok(Vec::new());
        }
        stream.write_all(HTTP_REQUEST).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(HTTP_BODY) {
            let count = stream.read_buf(&mut answer).await?;
            ensure!(count > 0, "the server hung up");
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "not what was asked for"
        );
        Ok(answer)
    }
}

/// Whether an answer is another one of the same length, but for a date perhaps.
fn is_like(answer: &[u8], first: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200")
        && answer.ends_with(HTTP_BODY)
        && answer.len() == first.len()
}

/// Sends a request and expects it back.
async fn echoed(stream: &mut TcpStream, number: u64) -> Result<()> {
    let mut sent = [0x5A; REQUEST];
    sent[..8].copy_from_slice(&number.to_le_bytes());
    let mut answer = [0; REQUEST];
    stream.write_all(&sent).await?;
    stream.read_exact(&mut answer).await?;
    ensure!(answer == sent, "an echo differs from what was sent");
    Ok(())
}
