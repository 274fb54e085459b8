//! Calls, timers, web requests and kills at random, and a watchdog: whether anything ever stands still
//! that should move.
//!
//! A round is a sandbox of its own with the probe `calls`: a web server of axum in front of it, four
//! connections that ask it, callers that call it directly and give some calls up, and timers in the
//! guest. It ends with a close or a kill in the middle. While a caller waits, the watchdog looks
//! whether anything came back; when nothing did for a second, it says where both rings, the wake words
//! and the driver stand, and when nothing does for `PATIENCE`, the run has failed. What a busy
//! machine holds up moves again; what has lost its wake-up does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wakebox::{CallError, Caller, HostContext, Pulse, Sandbox, WakeMode};

use crate::guest;

/// After so long without an answer the watchdog says where everything stands.
const QUIET: Duration = Duration::from_secs(1);

/// After so long without an answer the run has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections to the web server, as browsers and load generators open them.
const CONNECTIONS: usize = 4;

/// Callers beside them.
const CALLERS: usize = 3;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// For how long.
    pub time: Duration,
    /// How the guest is woken.
    pub mode: WakeMode,
    /// Threads that compute all the time.
    pub busy: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Sandboxes.
    pub rounds: u64,
    /// Answers of all kinds.
    pub answers: u64,
    /// Calls that were given up.
    pub given_up: u64,
    /// Sandboxes that were killed in the middle.
    pub kills: u64,
    /// Times at which nothing moved for a second, and then did.
    pub pauses: u64,
    /// The longest of them.
    pub longest: Duration,
}

/// Numbers that look random: splitmix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Nothing, or a moment, or a moment in which every seat goes to sleep.
    async fn pause(&mut self) {
        match self.below(4) {
            0 | 1 => {}
            2 => sleep(Duration::from_micros(self.below(500))).await,
            _ => sleep(Duration::from_millis(self.below(8))).await,
        }
    }
}

/// What moves in a round.
#[derive(Debug, Default)]
struct Progress {
    answers: AtomicU64,
    given_up: AtomicU64,
    /// Those who wait for an answer now.
    waiting: AtomicUsize,
}

impl Progress {
    /// Waits for an answer, and counts it.
    async fn answer<T>(&self, answer: impl Future<Output = T>) -> T {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        let answer = answer.await;
        self.answers.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

impl Stall {
    /// Does it; `say` is told of pauses and how far it is.
    ///
    /// # Errors
    ///
    /// Nothing moved any more, or an answer was wrong. The message says where everything stood.
    pub async fn run(self, mut say: impl FnMut(String)) -> Result<Report> {
        let _busy: Vec<_> = (0..self.busy).map(|_| Busy::start()).collect();
        let mut random = Random(self.seed);
        let mut report = Report::default();
        let (began, mut said) = (Instant::now(), Instant::now());
        while began.elapsed() < self.time {
            self.round(&mut random, &mut report, &mut say).await?;
            report.rounds += 1;
            if said.elapsed() > Duration::from_secs(60) {
                said = Instant::now();
                say(format!("{report}"));
            }
        }
        Ok(report)
    }

    async fn round(
        &self,
        random: &mut Random,
        report: &mut Report,
        say: &mut impl FnMut(String),
    ) -> Result<()> {
        let sandbox = Sandbox::builder()
            .guest(guest("calls"))
            .args(["serve"])
            .wake(self.mode)
            .host_fn("add", async |_: HostContext, (a, b): (u64, u64)| {
                // Sometimes at once, sometimes later.
                if (a ^ b) & 1 == 0 {
                    sleep(Duration::from_micros(a % 300)).await;
                }
                a + b
            })
            .build()?;
        let pulse = sandbox.pulse();
        let running = sandbox.start();
        let progress = Arc::new(Progress::default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let site = Router::new()
            .route("/{name}", get(greeting))
            .with_state(running.caller());
        let server = tokio::spawn(async move { axum::serve(listener, site).await });

        let mut clients = JoinSet::new();
        let length = 20 + random.below(200);
        for _ in 0..CONNECTIONS {
            let (progress, random) = (progress.clone(), random.split());
            clients.spawn(browse(address, progress, random, length));
        }
        for _ in 0..CALLERS {
            let (progress, random) = (progress.clone(), random.split());
            clients.spawn(call(running.caller(), progress, random, length));
        }
        let is_killed = random.below(4) == 0;
        if is_killed {
            let (kill, millis) = (running.handle(), random.below(100));
            tokio::spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                kill.kill();
            });
        }
        let mut watchdog = Watchdog::new(&progress, &pulse);
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    // A killed guest leaves its callers with errors, and that is right.
                    Some(ended) => match ended.context("a client")? {
                        Err(error) if !is_killed => return Err(error),
                        _ => {}
                    },
                    None => break,
                },
                () = sleep(QUIET / 4) => watchdog.look(report, say)?,
            }
        }
        server.abort();
        let ends = timeout(PATIENCE, running.close()).await;
        let Ok(ended) = ends else {
            bail!("the guest does not end\n{pulse}");
        };
        let (outcome, _) = ended?;
        ensure!(is_killed || outcome.is_success(), "the guest: {outcome}");
        report.answers += progress.answers.load(Ordering::Relaxed);
        report.given_up += progress.given_up.load(Ordering::Relaxed);
        report.kills += u64::from(is_killed);
        Ok(())
    }
}

/// Looks whether anything moves.
struct Watchdog<'a> {
    progress: &'a Progress,
    pulse: &'a Pulse,
    answers: u64,
    moved_at: Instant,
    /// Whether it was said of this pause.
    said: bool,
}

impl<'a> Watchdog<'a> {
    fn new(progress: &'a Progress, pulse: &'a Pulse) -> Self {
        Self {
            progress,
            pulse,
            answers: 0,
            moved_at: Instant::now(),
            said: false,
        }
    }

    fn look(&mut self, report: &mut Report, say: &mut impl FnMut(String)) -> Result<()> {
        let answers = self.progress.answers.load(Ordering::Relaxed);
        let waiting = self.progress.waiting.load(Ordering::Relaxed);
        let quiet = self.moved_at.elapsed();
        if answers != self.answers || waiting == 0 {
            if self.said {
                report.longest = report.longest.max(quiet);
                say(format!("it moves again after {} ms", quiet.as_millis()));
            }
            (self.answers, self.moved_at, self.said) = (answers, Instant::now(), false);
            return Ok(());
        }
        let stand = || {
            format!(
                "nothing moved for {} ms, {waiting} wait, after {answers} answers\n{}",
                quiet.as_millis(),
                self.pulse
            )
        };
        ensure!(quiet < PATIENCE, "{}", stand());
        if quiet >= QUIET && !self.said {
            say(stand());
            self.said = true;
            report.pauses += 1;
        }
        Ok(())
    }
}

/// A page that the guest makes.
async fn greeting(State(guest): State<Caller>, Path(name): Path<String>) -> String {
    match guest
        .call::<_, Result<String, String>>("greet", &name)
        .await
    {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(error)) => error,
        Err(error) => format!("{error}"),
    }
}

/// Asks the web server over one connection, again and again.
async fn browse(
    address: SocketAddr,
    progress: Arc<Progress>,
    mut random: Random,
    count: u64,
) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    for _ in 0..count {
        random.pause().await;
        let name = random.next();
        let request = format!("GET /{name:x} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let body = progress.answer(response(&mut stream)).await?;
        ensure!(body == format!("hello {name:x}"), "{body}");
    }
    Ok(())
}

/// The body of an answer.
async fn response(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut len = 0;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "the server left");
        let line = line.trim_end().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8(body)?)
}

/// Calls the guest in every way, again and again.
async fn call(
    guest: Caller,
    progress: Arc<Progress>,
    mut random: Random,
    count: u64,
) -> Result<()> {
    for _ in 0..count {
        random.pause().await;
        let (a, b) = (random.below(1 << 32), random.below(1 << 32));
        match random.below(6) {
            0 | 1 => {
                let sum: Result<u64, CallError> = progress.answer(guest.call("sum", &(a, b))).await;
                ensure!(sum? == a + b, "a wrong sum");
            }
            2 | 3 => {
                let input = (a, b);
                let call = guest.call("add_on_the_host", &input);
                let sum: Result<Option<u64>, CallError> = progress.answer(call).await;
                ensure!(sum? == Some(a + b), "a wrong sum");
            }
            4 => {
                let millis = random.below(6);
                let slept = progress.answer(guest.call("slow", &millis)).await;
                ensure!(slept == Ok(millis), "{slept:?}");
            }
            _ => {
                // Given up at some moment or another.
                let moment = Duration::from_micros(random.below(2_000));
                let millis = random.below(4);
                let call = guest.call::<_, u64>("slow", &millis);
                if timeout(moment, call).await.is_err() {
                    progress.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

/// A thread that computes until it is dropped.
struct Busy(Arc<()>);

impl Busy {
    fn start() -> Self {
        let alive = Arc::new(());
        let seen = Arc::downgrade(&alive);
        std::thread::spawn(move || {
            while seen.strong_count() > 0 {
                for _ in 0..1_000_000 {
                    std::hint::spin_loop();
                }
            }
        });
        Self(alive)
    }
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Busy({})", Arc::strong_count(&self.0))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sandboxes of which {} were killed, {} answers, {} calls given up, {} pauses of a \
             second or more, the longest of {} ms",
            self.rounds,
            self.kills,
            self.answers,
            self.given_up,
            self.pauses,
            self.longest.as_millis()
        )
    }
}
