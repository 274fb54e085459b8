//! A guest that has every operation done at its worst: how long it takes to end it, and what its
//! neighbours notice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use wakebox::{Image, Outcome, Policy, Running, Sandbox, WakeMode};
use wakebox_hostile::Case;
use wakebox_tests::{guest, hostile, runtime_of};

use crate::table::{Bar, Row, Unit, median};

/// Kills of each case.
const KILLS: usize = 4;
/// How long a guest has been at it when it is killed.
const SETTLED: Duration = Duration::from_millis(20);
/// Exchanges with an undisturbed neighbour.
const UNDISTURBED: usize = 2_000;
/// Inline, and with the thread that all exitless sandboxes share.
const MODES: [WakeMode; 2] = [WakeMode::Out, WakeMode::Auto];
/// What nobody may take longer for, in nanoseconds.
const MOST: Bar = Bar::AtMost(5e6);

/// A sandbox on the same thread that answers messages, each after a timer.
struct Neighbour {
    stream: TcpStream,
    _running: Running,
}

impl Neighbour {
    fn start(runtime: &Runtime, mode: WakeMode) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let sandbox = Sandbox::builder()
            .guest(guest("neighbour"))
            .args([&address])
            .policy(Policy::new().allow_connect(address.parse()?))
            .wake(mode)
            .build()?;
        let running = {
            let _runtime = runtime.enter();
            sandbox.start()
        };
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            _running: running,
        })
    }

    /// How long a message and its answer take, in nanoseconds.
    fn exchange(&mut self) -> Result<f64> {
        let began = Instant::now();
        let mut answer = [0; 8];
        self.stream.write_all(b"question")?;
        self.stream.read_exact(&mut answer)?;
        ensure!(answer == *b"question", "the neighbour answered {answer:?}");
        Ok(began.elapsed().as_nanos() as f64)
    }
}

/// The worst of something, and of which case it was.
#[derive(Default)]
struct Worst {
    ns: f64,
    of: String,
}

impl Worst {
    fn add(&mut self, ns: f64, case: &Case) {
        if ns > self.ns {
            *self = Self {
                ns,
                of: case.name.to_string(),
            };
        }
    }

    fn row(self, what: &str, mode: WakeMode) -> Row {
        let what = format!("{what}, mode {mode}, worst ({})", self.of);
        Row::new(what, Unit::Nanoseconds, self.ns).bar(MOST)
    }
}

/// The slowest kill and the longest delay of a neighbour.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let cases = hostile::cases(|case| case.name.group() == "turns");
    let image = Image::from_path(guest("hostile"))?;
    let directory = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for mode in MODES {
        // One thread for all of them.
        let runtime = runtime_of(1);
        let mut neighbour = Neighbour::start(&runtime, mode)?;
        let undisturbed: Vec<_> = (0..UNDISTURBED)
            .map(|_| neighbour.exchange())
            .collect::<Result<_>>()?;
        let slowest = undisturbed.iter().copied().fold(0.0, f64::max);
        let undisturbed = median(undisturbed);
        let (mut kill, mut delay) = (Worst::default(), Worst::default());
        for case in &cases {
            for _ in 0..KILLS {
                let dir = tempfile::tempdir_in(directory.path())?;
                let one = One {
                    runtime: &runtime,
                    image: &image,
                    case,
                    mode,
                };
                let (killed, exchanges) = one
                    .run(&mut neighbour, dir.path())
                    .with_context(|| case.name.to_string())?;
                kill.add(killed, case);
                let slowest = exchanges.into_iter().fold(0.0, f64::max);
                delay.add(slowest - undisturbed, case);
            }
        }
        // What the machine itself adds: a busy one explains as much of the rows below.
        rows.push(Row::new(
            format!("delay of a neighbour beside nobody, mode {mode}, worst"),
            Unit::Nanoseconds,
            slowest - undisturbed,
        ));
        rows.push(kill.row("kill to outcome, each operation at its worst", mode));
        rows.push(delay.row("delay of a neighbour, each operation at its worst", mode));
    }
    Ok(rows)
}

/// A run of a case.
struct One<'a> {
    runtime: &'a Runtime,
    image: &'a Image,
    case: &'a Case,
    mode: WakeMode,
}

impl One<'_> {
    /// Nanoseconds from the kill to the outcome, and those of the neighbour's exchanges until then.
    fn run(&self, neighbour: &mut Neighbour, dir: &Path) -> Result<(f64, Vec<f64>)> {
        let (data, socket) = (dir.join("data"), dir.join("socket"));
        std::fs::create_dir(&data)?;
        hostile::furnish(&data)?;
        let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
        let mut sandbox = hostile::builder(self.case, self.mode, &data, &socket)
            .guest(self.image)
            .build()?;
        let handle = sandbox.handle();
        let run = self.runtime.spawn(async move {
            let outcome = sandbox.run().await;
            (outcome, Instant::now())
        });
        let mut exchanges = Vec::new();
        let began = Instant::now();
        while began.elapsed() < SETTLED {
            exchanges.push(neighbour.exchange()?);
        }
        let killed = Instant::now();
        handle.kill();
        let (outcome, ended) = self.runtime.block_on(run)?;
        let outcome = outcome?;
        ensure!(
            outcome == Outcome::Cancelled,
            "it was not killed: {outcome}"
        );
        Ok(((ended - killed).as_nanos() as f64, exchanges))
    }
}
