//! Runs the cases of `tests/guests/hostile`, each in a sandbox of its own, beside neighbours that do
//! I/O all the time, in one process.
//!
//! A case has gone well if the sandbox ended as its table says; if the neighbours, which share this
//! thread and the driver's thread with it, lost no byte and still answer; and if this process has as
//! many open files and threads as before.

mod embedder;
mod expect;
mod kept;
mod neighbour;
mod process;
mod traces;

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use wakebox::{
    Builder, CallError, Caller, Captured, Image, Limits, Output, Policy, Sandbox, WakeMode,
};
use wakebox_abi::op::CallKind;
use wakebox_hostile::{Answer, Case, End, Modes, machine};

use self::expect::{Machine, check};
use self::neighbour::Neighbour;
use self::process::Left;
use self::traces::Watchers;

/// How long a case may take whose end is not the wall clock's. Far beyond what any takes.
fn backstop() -> Duration {
    crate::patient(Duration::from_secs(120))
}

/// How long a loop without end goes on.
const ENDLESS: Duration = Duration::from_millis(20);
/// How long a host function may take, in the case that waits for that.
const HOST_FN: Duration = Duration::from_millis(10);
/// Runs in which the process may grow, before it is measured.
const WARM: usize = 50;

/// All cases of which this says yes.
pub fn cases(wanted: impl Fn(&Case) -> bool) -> Vec<Case> {
    let mut cases = Vec::new();
    wakebox_hostile::cases(&mut |case| {
        if wanted(&case) {
            cases.push(case);
        }
    });
    cases
}

/// What became of some cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Cases run.
    pub cases: usize,
    /// Sandboxes run: one for each case and wake mode.
    pub runs: usize,
    /// What went wrong, a sentence each, beginning with the case's name.
    pub failures: Vec<String>,
}

/// Runs cases in order, and tells of each through `tell`.
///
/// # Panics
///
/// If the neighbours cannot be started.
pub fn run(cases: &[Case], mut tell: impl FnMut(&Case, &Result<(), String>)) -> Report {
    crate::require_kvm();
    let mut world = World::new();
    let mut report = Report::default();
    for (index, case) in cases.iter().enumerate() {
        let mut result = Ok(());
        for mode in modes(case, index) {
            report.runs += 1;
            let ran = world.run(case, mode);
            result = result.and(ran.map_err(|what| format!("{} [{mode}]: {what}", case.name)));
        }
        tell(case, &result);
        report.cases += 1;
        report.failures.extend(result.err());
    }
    report
}

/// In which wake modes a case is run.
fn modes(case: &Case, index: usize) -> Vec<WakeMode> {
    match case.modes {
        Modes::One => vec![WakeMode::ALL[index % WakeMode::ALL.len()]],
        Modes::All => WakeMode::ALL.to_vec(),
        Modes::Irq => vec![WakeMode::Irq],
        Modes::Exitless => vec![WakeMode::Poll, WakeMode::Auto],
    }
}

/// A process with neighbours, in which cases are run one after the other.
struct World {
    image: Image,
    machine: Machine,
    neighbours: Vec<Neighbour>,
    /// The socket that guests may connect to.
    unix: UnixListener,
    dir: tempfile::TempDir,
    runtime: Runtime,
    /// What the process had before the case.
    left: Option<Left>,
    /// Sandboxes run so far.
    runs: usize,
}

impl World {
    fn new() -> Self {
        let runtime = crate::runtime();
        let dir = tempfile::tempdir().expect("a directory");
        let image = Image::from_path(crate::guest("hostile")).expect("the hostile guest");
        let (unix, neighbours) = runtime.block_on(async {
            let unix = UnixListener::bind(dir.path().join("socket")).expect("a socket");
            // One on this thread, one that shares the driver's thread with all exitless guests.
            let neighbours = vec![
                Neighbour::start(WakeMode::Irq).await,
                Neighbour::start(WakeMode::Auto).await,
            ];
            (unix, neighbours)
        });
        let mut world = Self {
            image,
            machine: Machine::Hardware,
            neighbours,
            unix,
            dir,
            runtime,
            left: None,
            runs: 0,
        };
        world.machine = world.find_machine();
        world
    }

    /// PVM and the others differ in what an `int 0x80` does, and from that the rest follows.
    fn find_machine(&mut self) -> Machine {
        if crate::is_qemu() {
            return Machine::Qemu;
        }
        let case = wakebox_hostile::find("processor/int-0x80").expect("the case");
        if self.run(&case, WakeMode::Out).is_ok() {
            return Machine::Hardware;
        }
        Machine::Pvm
    }

    fn builder(&self, case: &Case, mode: WakeMode, data: &Path) -> Builder {
        let socket = self.dir.path().join("socket");
        let ends = self.machine.ends(case);
        let endless = ends
            .iter()
            .any(|end| matches!(end, End::WallClock | End::Anything));
        let too_slow = case.name.as_str() == "calls/call-too-slow";
        builder(case, mode, data, &socket)
            .host_fn_timeout(Some(if too_slow { HOST_FN } else { backstop() }))
            .guest(&self.image)
            .timeout(if endless { ENDLESS } else { backstop() })
    }

    /// Runs a case in a wake mode.
    fn run(&mut self, case: &Case, mode: WakeMode) -> Result<(), String> {
        let data = tempfile::tempdir_in(self.dir.path()).map_err(|error| error.to_string())?;
        furnish(data.path()).map_err(|error| error.to_string())?;
        let stdout = Captured::new();
        let builder = self.builder(case, mode, data.path());
        let builder = match case.name.as_str() {
            // A loop that fills a terminal does not fill this process.
            "loops/console" => builder,
            _ if case.name.group() == "turns" => builder,
            _ => builder.stdout(Output::Capture(stdout)),
        };
        let ran = {
            let Self {
                runtime,
                neighbours,
                unix,
                ..
            } = self;
            // A task of its own: it is polled when it is woken, and not because a neighbour was.
            let case = *case;
            runtime.block_on(beside(neighbours, unix, async {
                let run = tokio::spawn(run_one(case, builder)).await;
                run.unwrap_or_else(|error| Err(format!("the host panicked: {error}")))
            }))
        };
        let (outcome, answer) = ran?;
        drop(data);
        check(case, &outcome, self.machine)?;
        if answer != case.called {
            return Err(format!(
                "its caller got {answer:?}, and was to get {:?}",
                case.called
            ));
        }
        self.nothing_is_left()
    }

    /// Waits until this process has let everything go.
    fn nothing_is_left(&mut self) -> Result<(), String> {
        process::floats_are_as_before()?;
        let began = Instant::now();
        self.runs += 1;
        loop {
            let left = Left::now();
            let Some(before) = &mut self.left else {
                self.left = Some(left);
                break;
            };
            if self.runs <= WARM {
                before.grow(&left);
            }
            before.settle(&left);
            if left.is_no_more_than(before) {
                break;
            }
            if began.elapsed() > backstop() {
                let before = self.left.replace(left);
                return Err(format!(
                    "it left {left:?} behind, before it there were {before:?}"
                ));
            }
            // What the driver's thread and this one have in hand they let go when their turn comes.
            self.runtime.block_on(tokio::task::yield_now());
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// The sandbox of a case, but for its guest and for how long it may take: with what the cases abuse.
///
/// # Panics
///
/// If `data`, the directory that it is granted, cannot be.
pub fn builder(case: &Case, mode: WakeMode, data: &Path, socket: &Path) -> Builder {
    let grant = |text: &str| text.parse().expect("a grant");
    let policy = Policy::new()
        .allow_connect(grant("127.0.0.1"))
        .allow_listen("127.0.0.1:0".parse().expect("an address"))
        .allow_udp(grant("127.0.0.1"))
        .allow_udp_bind("127.0.0.1:0".parse().expect("an address"))
        .allow_unix(socket)
        .allow_dir(
            format!("{}:/data:links", data.display())
                .parse()
                .expect("a directory"),
        );
    let mut limits = Limits::new();
    if case.name.group() == "kept" {
        limits = limits.host_memory(machine::KEPT);
    }
    let builder = functions(Sandbox::builder())
        .limits(limits)
        .args([case.name.as_str(), &socket.to_string_lossy()])
        .policy(policy)
        .wake(mode)
        .stack(machine::STACK)
        .handles(machine::HANDLES);
    match case.name.group() {
        // What is written is copied, and kept nowhere.
        "turns" => builder
            .memory(machine::LARGE_MEMORY)
            .arena(machine::LARGE_ARENA)
            .in_flight(machine::LARGE_IN_FLIGHT)
            .stdout(Output::writer(tokio::io::sink())),
        _ => builder
            .memory(machine::MEMORY)
            .arena(machine::ARENA)
            .in_flight(machine::IN_FLIGHT),
    }
}

/// Gives a case's guest what it expects of a directory.
///
/// # Errors
///
/// What the file system says.
pub fn furnish(data: &Path) -> std::io::Result<()> {
    std::fs::write(data.join("file"), b"what a file has in it")?;
    std::os::unix::fs::symlink("file", data.join("link"))?;
    std::fs::create_dir(data.join("dir"))
}

/// Functions for guests to call.
fn functions(builder: Builder) -> Builder {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Deep(Option<Box<Deep>>);

    kept::functions(embedder::functions(builder))
        .host_fn("echo", async |_, bytes: Vec<u8>| bytes)
        .host_fn("text", async |_, text: String| text)
        .host_fn("deep", async |_, deep: Deep| deep)
        .host_fn("big", async |_, ()| vec![7_u8; 1 << 20])
        .host_fn("never", async |_, ()| std::future::pending::<()>().await)
        .host_fn("panics", async |_, ()| {
            // Without a message: the panic is this function's part in the case.
            std::panic::resume_unwind(Box::new(()))
        } as ())
        .host_stream("numbers", |_, ()| futures_util::stream::iter(0..20_u32))
}

/// Runs a sandbox to its end, and calls its guest if the case wants it. Nothing of it is left when
/// this ends.
async fn run_one(
    case: Case,
    builder: Builder,
) -> Result<(wakebox::Outcome, Option<Answer>), String> {
    let slot = embedder::Slot::default();
    let builder = builder.state(slot.clone());
    let (watchers, builder) = match case.name.group() {
        "traces" => {
            let (watchers, builder) = Watchers::watch(builder);
            (Some(watchers), builder)
        }
        _ => (None, builder),
    };
    let mut sandbox = builder.build().map_err(|error| error.to_string())?;
    let caller = sandbox.caller();
    let _ = slot.set(caller.clone());
    let call = async {
        match case.called {
            None => None,
            Some(_) if case.is_streamed => Some(expect::answer(&streamed(&caller).await)),
            Some(_) => Some(expect::answer(&called(&caller, case.called_as).await)),
        }
    };
    let (outcome, answer) = tokio::join!(sandbox.run(), call);
    let answer = answer.transpose()?;
    let outcome = outcome.map_err(|error| format!("the host failed: {error}"))?;
    // Whatever it says of itself can be asked for.
    let told = sandbox.largest_allocations().len() + sandbox.tasks().len();
    if told > 0 && case.name.group() != "told" {
        return Err(format!("it is said to have {told} tasks and blocks"));
    }
    let peak = sandbox.stats().host_memory_peak;
    if case.name.group() == "kept" && peak > machine::KEPT {
        return Err(format!("the host has kept {peak} bytes for it"));
    }
    if let Some(watchers) = watchers {
        watchers.check(&case, &sandbox)?;
    }
    Ok((outcome, answer))
}

/// What comes of a call of the function `f`.
async fn called(caller: &Caller, kind: CallKind) -> Result<String, CallError> {
    match kind {
        CallKind::Call => caller.call_bytes("f", &[7]).await.map(|_| String::new()),
        CallKind::Json => caller.call_json("f", "7").await,
        _ => caller.call("f", &7_u8).await,
    }
}

/// What comes of the stream of the function `f`, whose items are to be texts: all of them.
async fn streamed(caller: &Caller) -> Result<String, CallError> {
    let stream = caller.stream::<_, String>("f", &7_u8).await?;
    stream.try_collect().await
}

/// Runs a case while the neighbours exchange messages, which they still do afterwards.
async fn beside<T>(
    neighbours: &mut [Neighbour],
    unix: &UnixListener,
    case: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let over = Cell::new(false);
    let case = async {
        let result = case.await;
        over.set(true);
        result
    };
    let exchanges = async {
        loop {
            let last = over.get();
            let exchanges = neighbours.iter_mut().map(Neighbour::exchange);
            futures_util::future::try_join_all(exchanges).await?;
            if last {
                return Ok(());
            }
        }
    };
    // Whoever connects is let go at once.
    let accepts = async {
        loop {
            drop(unix.accept().await);
        }
    };
    let both = async {
        let (result, exchanged) = tokio::join!(case, exchanges);
        exchanged.and(result)
    };
    tokio::select! {
        result = both => result,
        never = accepts => never,
    }
}
