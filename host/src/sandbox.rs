//! The life of a sandbox: built, run, ended.
//!
//! [`Sandbox::run`] is the whole story as one `async fn`: enter the guest, see why it was
//! left, serve what it submitted, enter again; when the guest has nothing to do and nothing
//! has completed, await.

mod end;
mod output;
mod processor_time;

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tracing::Instrument;
use wakebox_abi::boot::{self, Boot, Features, Range};
use wakebox_abi::memory::{Control, MappedControl, Word};
use wakebox_abi::wake::{self, Mode};
use wakebox_abi::{ABI_VERSION, layout, report};

use crate::account::Account;
use crate::calls::guest::{Caller, GuestEnd, Mailbox};
use crate::calls::host::{Callables, Functions, HostContext};
use crate::debug::symbols::Symbols;
use crate::driver::handles::{self, Handles};
use crate::driver::inflight::Ready;
use crate::driver::thread::Seat;
use crate::driver::{Driver, Ended, OpCounts, Violation};
use crate::error::{Error, Result};
use crate::limits::{LimitKind, Limits};
use crate::loader::Image;
use crate::meter::Meter;
use crate::observe::{Recorder, Sinks, Tracing};
use crate::ops::Resources;
use crate::ops::blocking::Lanes;
use crate::ops::lookup::Resolver;
use crate::policy::Policy;
use crate::policy::check::Guard;
use crate::pulse::Pulse;
use crate::report::{Fault, Limit, Outcome, Panic};
use crate::running::Running;
use crate::stats::{Exits, GuestCounts, Stats};
use crate::stdio::{Console, Input, LostOutput, Output, Stdin};
use crate::stop::{Stop, Why};
use crate::telemetry::Telemetry;
use crate::trace::{self, ExitReason, Sink};
use crate::tree::Tree;
use crate::vm;
use crate::vm::clock::Clocks;
use crate::vm::kick::Reasons;
use crate::vm::memory::{GuestMemory, Shared};
use crate::vm::signal::RunPage;
use crate::vm::space::{Sizes, Space};
use crate::vm::system::System;
use crate::vm::vcpu::{Exit, Vcpu};
use output::Flushed;
use processor_time::ProcessorTime;

/// How long a guest may compute before others get a turn, unless it is said.
const QUANTUM: Duration = Duration::from_millis(2);
/// Turns of dropping what is in flight and open at the end, before the outcome is told.
const PIECES_AT_END: usize = 3;
/// Calls of one sandbox that may wait for a disk, at once.
const DISK_CALLS_AT_ONCE: usize = 16;
/// Names of one sandbox that are resolved at once.
const NAMES_AT_ONCE: usize = 8;
/// How long a guest watches the completion ring before it leaves, at most.
const SPIN: Duration = Duration::from_millis(1);
/// Two exits closer than this make it likely that an exitless driver would pay.
const DENSE: Duration = Duration::from_micros(200);
/// How often in a row a runtime may turn to its other tasks before a guest goes on, if the guest's
/// calls are among them. Tokio's runtime of one thread takes 61 tasks a turn: four for 256 calls.
const TURNS_FOR_TASKS: u32 = 8;
/// A turn longer than this would outlast the watch of a guest in mode `auto`, whoever took it.
const LONG: Duration = Duration::from_micros(50);

/// Where a guest's program comes from.
#[derive(Clone, Debug)]
enum Source {
    Path(PathBuf),
    Bytes(Vec<u8>),
    Image(Image),
}

/// Something that [`Builder::guest`] takes: a path, the bytes of a file, or an [`Image`].
#[derive(Clone, Debug)]
pub struct Guest(Source);

impl From<&str> for Guest {
    fn from(path: &str) -> Self {
        Self(Source::Path(path.into()))
    }
}

impl From<&Path> for Guest {
    fn from(path: &Path) -> Self {
        Self(Source::Path(path.into()))
    }
}

impl From<PathBuf> for Guest {
    fn from(path: PathBuf) -> Self {
        Self(Source::Path(path))
    }
}

impl From<&PathBuf> for Guest {
    fn from(path: &PathBuf) -> Self {
        Self(Source::Path(path.clone()))
    }
}

impl From<Vec<u8>> for Guest {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<&[u8]> for Guest {
    fn from(bytes: &[u8]) -> Self {
        Self(Source::Bytes(bytes.into()))
    }
}

impl From<Image> for Guest {
    fn from(image: Image) -> Self {
        Self(Source::Image(image))
    }
}

impl From<&Image> for Guest {
    fn from(image: &Image) -> Self {
        Self(Source::Image(image.clone()))
    }
}

/// Settings of a sandbox. All but the guest have defaults; nothing is granted.
#[derive(Debug)]
pub struct Builder {
    guest: Option<Guest>,
    symbols: Option<PathBuf>,
    limits: Limits,
    arena: Option<u64>,
    stack: Option<u64>,
    quantum: Duration,
    mode: Mode,
    args: Vec<String>,
    env: Vec<(String, String)>,
    policy: Policy,
    functions: Functions,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    sinks: Sinks,
    trace_records: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            guest: None,
            symbols: None,
            limits: Limits::new(),
            arena: None,
            stack: None,
            quantum: QUANTUM,
            mode: Mode::default(),
            args: Vec::new(),
            env: Vec::new(),
            policy: Policy::new(),
            functions: Functions::default(),
            stdin: Input::Null,
            stdout: Output::Null,
            stderr: Output::Null,
            sinks: Sinks::default(),
            trace_records: trace::RECORDS,
        }
    }
}

impl Builder {
    /// The program: a path, the bytes of a file, or an [`Image`] that is parsed already.
    #[must_use]
    pub fn guest(mut self, guest: impl Into<Guest>) -> Self {
        self.guest = Some(guest.into());
        self
    }

    /// A file with the guest's debug information, if the guest is stripped: what `objcopy
    /// --only-keep-debug` wrote, or the binary as it was before. It is only used to name places in
    /// backtraces. Where both files have a build ID, it must be the same.
    #[must_use]
    pub fn symbols(mut self, path: impl Into<PathBuf>) -> Self {
        self.symbols = Some(path.into());
        self
    }

    /// How much the guest may use. What is set here counts before what the policy says, and that
    /// before the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits.or(&self.limits);
        self
    }

    /// RAM of the guest in bytes: [`Limits::memory`].
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits = self.limits.memory(bytes);
        self
    }

    /// The part of the memory through which operations' bytes travel, in bytes. An eighth of the
    /// memory by default, at least 256 KiB, at most 64 MiB.
    #[must_use]
    pub fn arena(mut self, bytes: u64) -> Self {
        self.arena = Some(bytes);
        self
    }

    /// The stack in bytes. An eighth of the memory by default, at most 1 MiB.
    #[must_use]
    pub fn stack(mut self, bytes: u64) -> Self {
        self.stack = Some(bytes);
        self
    }

    /// Most operations in flight: [`Limits::in_flight`].
    #[must_use]
    pub fn in_flight(mut self, most: u32) -> Self {
        self.limits = self.limits.in_flight(most);
        self
    }

    /// Most open sockets, files and directories: [`Limits::handles`].
    #[must_use]
    pub fn handles(mut self, most: u32) -> Self {
        self.limits = self.limits.handles(most);
        self
    }

    /// How long the guest may compute before other tasks of its thread get a turn, rounded
    /// up to milliseconds. 2 ms by default.
    #[must_use]
    pub fn quantum(mut self, quantum: Duration) -> Self {
        self.quantum = quantum;
        self
    }

    /// How long a run may take: [`Limits::wall_clock`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits = self.limits.wall_clock(limit);
        self
    }

    /// How the guest sleeps and is woken. [`Mode::Auto`] by default.
    #[must_use]
    pub fn wake(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment, which is empty otherwise. The last one of a name counts.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.env.retain(|(known, _)| *known != key);
        self.env.push((key, value.into()));
        self
    }

    /// What the guest may reach. Nothing by default.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Gives the guest a function of this program to call, and grants it thereby.
    ///
    /// `function` gets a context and the arguments: any serde type, a tuple for several. What
    /// it returns is any serde type too; its own errors arrive typed if that is a `Result`.
    /// Calls go on concurrently, each as a task of the runtime in which the sandbox runs
    /// ([threads and signals](crate#threads-and-signals)); work that blocks belongs into
    /// `spawn_blocking`. A guest that drops its call drops the future. A panic ends the call with an
    /// error in the guest.
    ///
    /// State is shared through [`Self::state`] (or captured by a closure that clones what it
    /// moves into its future):
    ///
    /// ```
    /// # use wakebox::{HostContext, Sandbox};
    /// # use std::{collections::HashMap, sync::Mutex};
    /// type Store = Mutex<HashMap<String, String>>;
    ///
    /// let builder = Sandbox::builder()
    ///     .state(Store::default())
    ///     .host_fn("kv.get", async |ctx: HostContext, key: String| -> Option<String> {
    ///         ctx.state::<Store>().lock().unwrap().get(&key).cloned()
    ///     });
    /// ```
    #[must_use]
    pub fn host_fn<A, R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(HostContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        self.functions.add_call(name, function);
        self
    }

    /// Gives the guest a function that yields a stream of items, one whenever the guest asks for
    /// it. Otherwise as [`Self::host_fn`].
    #[must_use]
    pub fn host_stream<A, T, F, S>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(HostContext, A) -> S + Send + Sync + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        self.functions.add_stream(name, function);
        self
    }

    /// A value for host functions, found by its type with [`HostContext::state`].
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.functions.state.insert(value);
        self
    }

    /// How long one call of a host function may take, `None` for no limit:
    /// [`Limits::host_fn_time`].
    #[must_use]
    pub fn host_fn_timeout(mut self, limit: Option<Duration>) -> Self {
        self.limits = self.limits.host_fn_time(limit);
        self
    }

    /// Where standard input comes from. It is at its end by default.
    #[must_use]
    pub fn stdin(mut self, input: Input) -> Self {
        self.stdin = input;
        self
    }

    /// Where standard output goes. Nowhere by default.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// Where standard error goes. Nowhere by default.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }

    /// Watches the run: `sink` gets every event of both sides ([`crate::trace`]). Called several
    /// times, each sink gets them all.
    ///
    /// A sandbox that is watched takes memory for the guest's records
    /// ([`Self::trace_records`]) beyond [`Self::memory`], has a quantum of at most 2 ms, after which they are
    /// taken out, and a thread `wakebox-trace`.
    #[must_use]
    pub fn trace(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.0.push(Box::new(sink));
        self
    }

    /// Places of the ring in which the guest's records wait, 32 bytes each, rounded up to a power
    /// of two; 131,072 by default. What finds it full is lost, and counted.
    #[must_use]
    pub fn trace_records(mut self, places: u32) -> Self {
        self.trace_records = places;
        self
    }

    /// Makes the machine and loads the guest. No instruction of it has run yet.
    ///
    /// It blocks the thread for about a millisecond with an [`Image`], as long as there are few
    /// relocations, and longer with a file, which is read first ([`Image::from_path`]).
    ///
    /// # Errors
    ///
    /// The guest cannot be read or is refused; a setting cannot be; KVM is missing,
    /// forbidden, or could not do its part.
    pub fn build(self) -> Result<Sandbox> {
        let guest = match &self.guest {
            Some(Guest(Source::Path(path))) => Some(path.display().to_string()),
            _ => None,
        };
        let image = match self.guest.clone() {
            None => {
                return Err(Error::Setting(
                    "a sandbox needs a guest: Builder::guest".into(),
                ));
            }
            Some(Guest(Source::Path(path))) => Image::from_path(path)?,
            Some(Guest(Source::Bytes(bytes))) => Image::from_bytes(bytes)?,
            Some(Guest(Source::Image(image))) => image,
        };
        let limits = self.limits.or(self.policy.limits());
        let symbols = Symbols::of(&image, self.symbols.as_deref())?;
        let policy = Arc::new(Guard::new(self.policy.clone()));
        let tree = Tree::open(&policy)?;
        let mut env = self.policy.environment()?;
        env.retain(|(granted, _)| self.env.iter().all(|(own, _)| own != granted));
        env.extend_from_slice(&self.env);
        let words = Words::new(&self.args, &env)?;
        let sizes = self.sizes(&limits, &words)?;
        let space = Space::plan(&image, &sizes)?;
        let bytes = space.ram;
        let memory = GuestMemory::new(space).map_err(|source| Error::Map { bytes, source })?;

        let mode = self.mode;
        // Watching pays only if somebody else can fill the ring meanwhile.
        let processors = System::get()?.processors;
        let exitless = matches!(mode, Mode::Poll | Mode::Auto) && processors > 1;
        let space = memory.space();
        let stack = Range {
            start: layout::STACK,
            len: space.stack.len,
        };
        // What the C runtime's entry code expects of a stack: no arguments, no environment, no
        // auxiliary vector (System V ABI, AMD64 supplement, 3.4.1), which is zeroes.
        let mut vcpu = Vcpu::new(&memory, image.entry(), stack.end() - 64)?;
        let quantum = if self.sinks.0.is_empty() {
            self.quantum
        } else {
            self.quantum.min(QUANTUM)
        };
        let clocks = Clocks::new(vcpu.fd());
        vm::install(&memory, &image);
        let mut features = if exitless { Features::EXITLESS } else { 0 };
        if clocks.has_counter() {
            features |= Features::TSC_CLOCK;
        }
        let boot = Boot {
            magic: boot::MAGIC,
            version: ABI_VERSION,
            vcpus: 1,
            features,
            wake_mode: mode as u32,
            spin_ns: SPIN.as_nanos() as u32,
            submissions: space.submission_entries,
            completions: space.completion_entries,
            image: image.span(),
            stack,
            arena: Range {
                start: layout::ARENA,
                len: space.arena.len,
            },
            heap: Range {
                start: layout::HEAP,
                len: space.heap.len,
            },
            args: words.args_range(),
            env: words.env_range(),
            seed: seed()?,
            trace_records: space.trace_records,
            reserved: 0,
        };
        memory.write(space.boot.offset, boot.as_bytes());
        memory.write(space.boot.offset + Words::OFFSET, &words.bytes);

        let telemetry = Telemetry::new(guest.as_deref(), mode);
        let tracing = if self.sinks.0.is_empty() {
            None
        } else {
            let tracing = Tracing::new(&memory, &clocks, mode.to_string(), guest, self.sinks)?;
            vcpu.recorder = Some(tracing.recorder().clone());
            Some(tracing)
        };
        let recorder = tracing.as_ref().map(Tracing::recorder);
        let counts = Arc::new(OpCounts::default());
        let host_fn_time = limits.time(LimitKind::HostFnTime);
        let account = Account::new(limits.value(LimitKind::HostMemory));
        let callables = Callables::new(self.functions, host_fn_time, account.clone());
        let mailbox = Arc::new(Mailbox::new(account.clone()));
        let kick = (mode == Mode::Irq).then(|| vcpu.kick().clone());
        let ready = Arc::new(Ready::new(kick));
        let stop = Arc::new(Stop::new(vcpu.kick().clone()));
        let meter = Meter::new(limits);
        let stdio = |source| Error::Stdio { source };
        let console = Console::new(self.stdout, self.stderr, callables.home()).map_err(stdio)?;
        let stdin = Stdin::new(self.stdin, callables.home()).map_err(stdio)?;
        let resources = Resources {
            arena: memory.arena(),
            handles: Handles::new(handles::most(&limits)),
            policy: policy.clone(),
            resolver: Resolver::new(policy.clone(), NAMES_AT_ONCE),
            tree,
            disk: Lanes::new(DISK_CALLS_AT_ONCE),
            console: console.clone(),
            stdin: stdin.clone(),
            callables: callables.clone(),
            mailbox: mailbox.clone(),
            account: account.clone(),
            meter: meter.clone(),
            stop: stop.clone(),
            start: clocks.start(),
        };
        let driver = Driver::new(
            &memory,
            resources,
            counts.clone(),
            ready,
            recorder.cloned(),
            &telemetry,
        );
        let service = if exitless {
            Service::Thread(Seat::new(
                driver,
                memory.control(),
                mode,
                callables.home().clone(),
                vcpu.kick().clone(),
            )?)
        } else {
            Service::Inline(Box::new(driver))
        };
        Ok(Sandbox {
            image,
            symbols: Arc::new(symbols),
            signal: 0,
            control: memory.control(),
            stop,
            meter,
            account,
            vcpu,
            clocks,
            memory,
            service,
            mode,
            tracing,
            telemetry,
            quantum,
            ended: false,
            exits: Exits::default(),
            times: Times {
                computed: limits
                    .time(LimitKind::CpuTime)
                    .map(|_| ProcessorTime::default()),
                ..Times::default()
            },
            limits,
            left_at: None,
            turn_began: Instant::now(),
            counts,
            policy,
            callables,
            mailbox,
            console,
            stdin,
            lost: Vec::new(),
        })
    }

    /// Places of the trace ring; zero if nobody watches.
    fn ring_of_trace(&self) -> Result<u32> {
        let most = layout::TRACE_RECORDS_MAX;
        match self.trace_records {
            _ if self.sinks.0.is_empty() => Ok(0),
            places if (1..=most).contains(&places) => Ok(places.next_power_of_two().max(64)),
            places => Err(Error::Setting(format!(
                "a trace ring of {places} places cannot be: from 1 to {most}"
            ))),
        }
    }

    fn sizes(&self, limits: &Limits, words: &Words) -> Result<Sizes> {
        let memory = limits.value(LimitKind::Memory);
        let in_flight = match limits.get(LimitKind::InFlight) {
            Some(_) => limits.count(LimitKind::InFlight),
            None => layout::COMPLETIONS_MAX,
        };
        let available = rustix::system::sysinfo();
        #[allow(
            clippy::useless_conversion,
            reason = "the field's type differs by platform"
        )]
        let available = u64::from(available.totalram) * u64::from(available.mem_unit);
        if memory > available {
            return Err(Error::MemoryTooLarge {
                asked: memory,
                available,
            });
        }
        if in_flight == 0 || in_flight > layout::COMPLETIONS_MAX {
            return Err(Error::Setting(format!(
                "{in_flight} operations in flight cannot be: from 1 to {}",
                layout::COMPLETIONS_MAX
            )));
        }
        let bounded = |name: &str, value: u64, most: u64| {
            if value == 0 || value > most {
                return Err(Error::Setting(format!(
                    "{name} of {} cannot be: from 1 byte to {}",
                    crate::units::bytes(value),
                    crate::units::bytes(most)
                )));
            }
            Ok(value)
        };
        let arena = self
            .arena
            .unwrap_or((memory / 8).clamp(256 << 10, 64 << 20));
        let stack = self.stack.unwrap_or((memory / 8).clamp(64 << 10, 1 << 20));
        Ok(Sizes {
            memory,
            arena: bounded("an arena", arena, layout::ARENA_MAX)?,
            stack: bounded("a stack", stack, layout::STACK_MAX)?,
            in_flight,
            boot: Words::OFFSET + words.bytes.len() as u64,
            trace_records: self.ring_of_trace()?,
        })
    }
}

/// Arguments and environment, as they lie behind the boot page's structure.
struct Words {
    bytes: Vec<u8>,
    args_len: usize,
}

impl Words {
    /// Where they begin in the boot page.
    const OFFSET: u64 = 256;

    fn new(args: &[String], env: &[(String, String)]) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut push = |word: &str, what: &str| {
            if word.contains('\0') {
                return Err(Error::Setting(format!("{what} contains a NUL: {word:?}")));
            }
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(0);
            Ok(bytes.len())
        };
        let mut args_len = 0;
        for arg in args {
            args_len = push(arg, "an argument")?;
        }
        for (key, value) in env {
            if key.is_empty() || key.contains('=') {
                return Err(Error::Setting(format!(
                    "a variable cannot be named {key:?}"
                )));
            }
            push(&format!("{key}={value}"), "a variable")?;
        }
        if Self::OFFSET + bytes.len() as u64 > layout::BOOT_MAX {
            return Err(Error::Setting(format!(
                "arguments and environment take {}; there is room for {}",
                crate::units::bytes(bytes.len() as u64),
                crate::units::bytes(layout::BOOT_MAX - Self::OFFSET)
            )));
        }
        Ok(Self { bytes, args_len })
    }

    fn args_range(&self) -> Range {
        Range {
            start: layout::BOOT + Self::OFFSET,
            len: self.args_len as u64,
        }
    }

    fn env_range(&self) -> Range {
        let args = self.args_range();
        Range {
            start: args.end(),
            len: (self.bytes.len() - self.args_len) as u64,
        }
    }
}

const _: () = assert!(size_of::<Boot>() as u64 <= Words::OFFSET);

/// Random words for the guest's own generators.
fn seed() -> Result<[u64; 4]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::Setting(format!("the kernel gives no random bytes: {error}")))?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|index| {
        u64::from_le_bytes(words[index])
    }))
}

/// Who serves the guest's submissions.
#[derive(Debug)]
enum Service {
    /// The task that runs the guest.
    Inline(Box<Driver>),
    /// A thread that looks while the guest runs.
    Thread(Arc<Seat>),
}

/// Why a guest is no longer parked.
enum Parked {
    Completion,
    Deadlock,
    /// The turn that was to tell has ended early.
    Unfinished,
    Stopped(Why),
    Broken(Violation),
}

/// Ends a sandbox from elsewhere. Clones end the same one.
#[derive(Clone, Debug)]
pub struct KillHandle(Arc<Stop<RunPage>>);

impl KillHandle {
    /// Ends the sandbox: its run returns [`Outcome::Cancelled`], whether the guest computes,
    /// is parked, waits for a host function, or has not started. Does nothing after the end.
    ///
    /// The guest executes nothing more from then on, and the tasks of host functions are aborted:
    /// their runtime drops the futures. What blocks goes on elsewhere: a call that is under way on a
    /// thread for blocking calls runs to its end there, and what it gives is dropped; a host function
    /// that blocks inside its `poll` holds up its thread, and the run only if that has no other.
    pub fn kill(&self) {
        self.0.end(Why::Killed);
    }
}

/// Where the time went.
#[derive(Debug, Default)]
struct Times {
    in_guest: Duration,
    in_host: Duration,
    parked: Duration,
    /// On a processor in the guest, if that is limited.
    computed: Option<ProcessorTime>,
}

/// A virtual machine with its guest, ready to run.
#[derive(Debug)]
pub struct Sandbox {
    image: Image,
    symbols: Arc<Symbols>,
    /// What a debugger is told that ended the guest.
    signal: i32,
    vcpu: Vcpu,
    clocks: Clocks,
    memory: Arc<GuestMemory>,
    control: Shared<MappedControl>,
    service: Service,
    mode: Mode,
    tracing: Option<Tracing>,
    telemetry: Telemetry,
    quantum: Duration,
    limits: Limits,
    ended: bool,
    exits: Exits,
    times: Times,
    /// When the guest was left last.
    left_at: Option<Instant>,
    /// When others on this thread had a turn last.
    turn_began: Instant,
    counts: Arc<OpCounts>,
    policy: Arc<Guard>,
    callables: Callables,
    mailbox: Arc<Mailbox>,
    meter: Arc<Meter>,
    account: Account,
    stop: Arc<Stop<RunPage>>,
    console: Console,
    stdin: Stdin,
    /// What did not arrive of the guest's output, known at the end.
    lost: Vec<LostOutput>,
}

impl Sandbox {
    /// Settings to begin with.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs the guest to its end.
    ///
    /// The future enters the guest when it is polled, for at most a quantum, and is pending
    /// while the guest has nothing to do. It wants a Tokio runtime with I/O and time enabled,
    /// of whichever flavour; many run side by side on few threads. Dropping it stops the guest
    /// where it is; nothing of it runs any more, and the sandbox cannot be run again.
    ///
    /// What the guest has left open is closed before the outcome is known, except the rest of
    /// hundreds, which a thread for blocking calls closes soon after.
    ///
    /// # Errors
    ///
    /// What the host could not do, or [`Error::Ended`] at a second call. What the guest does is
    /// an [`Outcome`].
    pub async fn run(&mut self) -> Result<Outcome> {
        let span = self.telemetry.span().clone();
        self.run_in_span().instrument(span).await
    }

    async fn run_in_span(&mut self) -> Result<Outcome> {
        if !self.vcpu.is_of_this_process() {
            return Err(Error::Forked);
        }
        if std::mem::replace(&mut self.ended, true) {
            return Err(Error::Ended);
        }
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        self.callables.enter(runtime, self.telemetry.span().clone());
        let run = Run { sandbox: self };
        let result = match run.sandbox.limits.time(LimitKind::WallClock) {
            None => run.sandbox.drive().await,
            Some(limit) => match tokio::time::timeout(limit, run.sandbox.drive()).await {
                Ok(result) => result,
                Err(_) => {
                    run.sandbox.flush_in_haste().await;
                    Ok(Outcome::Limit(Limit::WallClock(limit)))
                }
            },
        };
        let mut result = run.sandbox.account_for_output(result);
        run.sandbox.mailbox.end(GuestEnd::of(&result));
        run.sandbox.close_in_pieces().await;
        drop(run);
        if let Ok(outcome) = &mut result {
            self.examine(outcome).await;
        }
        if let Some(tracing) = &mut self.tracing {
            match &result {
                Ok(outcome) => tracing.end(outcome.to_string(), outcome.exit_status()),
                Err(error) => tracing.end(error.to_string(), 1),
            }
            tracing.ended().await;
        }
        self.telemetry.ended(&result, self.exits.total());
        result
    }

    /// Runs the guest to its end, for callers without a runtime of their own.
    ///
    /// # Errors
    ///
    /// As [`Self::run`]; besides, a runtime could not be made.
    ///
    /// # Panics
    ///
    /// If called inside a Tokio runtime.
    pub fn run_blocking(&mut self) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Thread {
                name: "Tokio runtime",
                source,
            })?;
        let outcome = runtime.block_on(self.run());
        // A read of standard input that never ends must not keep the caller.
        runtime.shutdown_background();
        outcome
    }

    /// What calls functions that the guest exports. They are answered while the sandbox runs.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let seat = match &self.service {
            Service::Thread(seat) if self.mode == Mode::Poll => Some(seat),
            _ => None,
        };
        Caller::new(self.mailbox.clone(), seat)
    }

    /// Runs the sandbox as a task of the current Tokio runtime, for a guest that serves calls.
    ///
    /// Outside a runtime nothing runs, and whoever asks is told: [`Running::call`] gives
    /// [`CallError::NoRuntime`](crate::CallError::NoRuntime), [`Running::ended`] and
    /// [`Running::close`] give [`Error::NoRuntime`].
    #[must_use]
    pub fn start(mut self) -> Running {
        let (caller, kill) = (self.caller(), self.kill_handle());
        // Not `tokio::spawn`: outside a runtime that drops the sandbox while it holds on to what the
        // sandbox's own end needs.
        let Ok(runtime) = Handle::try_current() else {
            return Running::without_runtime(caller, kill);
        };
        let task = runtime.spawn(async move {
            let outcome = self.run().await;
            (outcome, self.stats())
        });
        Running::new(caller, kill, task)
    }

    /// Where its rings stand, to be looked at from elsewhere when nothing seems to move.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let (ready, seat) = match &self.service {
            Service::Inline(driver) => (driver.ready(), None),
            Service::Thread(seat) => (seat.ready(), Some(seat.clone())),
        };
        Pulse {
            control: self.control.clone(),
            ready: ready.clone(),
            seat,
            mailbox: self.mailbox.clone(),
        }
    }

    /// What ends the sandbox from elsewhere.
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle(self.stop.clone())
    }

    /// Its number: from 1 on, in the order in which this process built its sandboxes. As in the span
    /// that [`telemetry`](crate::telemetry) describes.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.telemetry.id()
    }

    /// Why a sink of the trace got no more events, if that happened. Known when the run has ended.
    #[must_use]
    pub fn trace_error(&self) -> Option<&std::io::Error> {
        self.tracing.as_ref()?.error.as_ref()
    }

    /// What the sandbox has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let refused = self.policy.refusals();
        Stats {
            mode: self.mode,
            exits: self.exits,
            interrupts: self.vcpu.interrupts,
            operations: Stats::name_operations(&self.counts),
            refusals: refused.iter().map(|(_, count)| count).sum(),
            refused,
            bytes: self.meter.bytes(),
            host_memory: self.account.kept(),
            host_memory_peak: self.account.peak(),
            guest: GuestCounts::read(&self.control),
            in_guest: self.times.in_guest,
            in_host: self.times.in_host,
            parked: self.times.parked,
        }
    }

    /// Enters the guest for `most` and counts the time on either side.
    fn enter(&mut self, most: Duration) -> Result<Exit> {
        if let Some(moment) = self.clocks.refresh() {
            self.memory.write_clock(&moment);
        }
        let entered = Instant::now();
        if let Some(left) = self.left_at {
            self.times.in_host += entered - left;
        }
        if let Some(computed) = &mut self.times.computed {
            computed.enter(entered);
        }
        let exit = self.vcpu.enter(most);
        let left = Instant::now();
        if let Some(computed) = &mut self.times.computed {
            computed.leave(entered, left);
        }
        self.times.in_guest += left - entered;
        self.left_at = Some(left);
        let reason = exit.as_ref().map_or(ExitReason::Violation, Exit::reason);
        self.telemetry.exited(reason);
        if let Some(tracing) = &mut self.tracing {
            tracing.exited(reason);
        }
        exit
    }

    /// How long the guest may stay in its next turn.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    fn turn_length(&self, began: Instant) -> Result<Duration, Limit> {
        let mut most = self.quantum;
        if let (Some(limit), Some(computed)) =
            (self.limits.time(LimitKind::CpuTime), &self.times.computed)
        {
            match limit.checked_sub(computed.used()) {
                None | Some(Duration::ZERO) => return Err(Limit::CpuTime(limit)),
                Some(left) => most = most.min(left),
            }
        }
        if let Some(limit) = self.limits.time(LimitKind::WallClock) {
            let now = self.left_at.unwrap_or(began);
            match limit.checked_sub(now - began) {
                None | Some(Duration::ZERO) => return Err(Limit::WallClock(limit)),
                Some(left) => most = most.min(left),
            }
        }
        Ok(most)
    }

    async fn drive(&mut self) -> Result<Outcome> {
        let began = Instant::now();
        self.turn_began = began;
        loop {
            if let Some(why) = self.stop.why() {
                return Ok(self.stopped(why).await);
            }
            self.let_sinks_catch_up().await;
            self.let_others_run().await;
            let most = match self.turn_length(began) {
                Ok(most) => most,
                Err(limit) => return Ok(self.limited(limit).await),
            };
            let served = match self.enter(most)? {
                Exit::Submit => {
                    self.exits.submit += 1;
                    let served = self.serve(true).await;
                    served.and(self.let_tasks_begin().await)
                }
                Exit::Wait => {
                    self.exits.wait += 1;
                    match self.park().await {
                        Parked::Completion => self.let_tasks_begin().await,
                        parked => return Ok(self.not_woken(parked).await),
                    }
                }
                Exit::Halt => {
                    self.exits.halt += 1;
                    match self.park().await {
                        Parked::Completion => {
                            self.vcpu.interrupt();
                            self.let_tasks_begin().await
                        }
                        parked => return Ok(self.not_woken(parked).await),
                    }
                }
                Exit::Interrupted(reasons) => {
                    self.exits.kick += 1;
                    if reasons.has(Reasons::QUANTUM) {
                        tokio::task::yield_now().await;
                        self.turn_began = Instant::now();
                    }
                    let served = self.serve(false).await;
                    served.and(self.let_tasks_begin().await)
                }
                Exit::End => {
                    self.exits.end += 1;
                    let served = self.serve_last().await;
                    let flushed = self.flush().await;
                    let code = self.control.load(Word::ExitCode, Ordering::Relaxed);
                    return Ok(self.ended(served, flushed, Outcome::Exit(code.cast_signed())));
                }
                Exit::Abort => {
                    self.exits.end += 1;
                    let served = self.serve_last().await;
                    let flushed = self.flush().await;
                    let mut page = [0; report::SIZE];
                    self.memory
                        .read(self.memory.space().report.offset, &mut page);
                    return Ok(self.ended(
                        served,
                        flushed,
                        Outcome::Panic(Box::new(Panic::read(&page))),
                    ));
                }
                Exit::Fault(fault) => return Ok(self.faulted(fault).await),
                Exit::Shutdown => {
                    let fault = self.vcpu.shut_down(&self.image)?;
                    return Ok(self.faulted(Box::new(fault)).await);
                }
                Exit::Violation(what) => {
                    self.exits.end += 1;
                    return Ok(Outcome::Violation(what));
                }
            };
            if let Err(Violation(what)) = served {
                return Ok(Outcome::Violation(what));
            }
        }
    }

    /// How it ends that raised an exception: what it has submitted before is still served.
    async fn faulted(&mut self, fault: Box<Fault>) -> Outcome {
        self.exits.end += 1;
        let served = self.serve_last().await;
        let flushed = self.flush().await;
        self.ended(served, flushed, Outcome::Fault(fault))
    }

    /// Waits as long as too many events wait for the trace's sinks; not beyond the end.
    async fn let_sinks_catch_up(&mut self) {
        let (stop, Some(tracing)) = (&self.stop, &mut self.tracing) else {
            return;
        };
        poll_fn(|context| match stop.why_else_wake(context) {
            Some(_) => Poll::Ready(()),
            None => tracing.poll_room(context),
        })
        .await;
    }

    /// Lets others of this thread have a turn after a quantum, however often the guest was left
    /// meanwhile, and whether it was the guest that took the time or its driver.
    async fn let_others_run(&mut self) {
        // Limits of time are looked at in between, so a long quantum is no excuse on this side.
        if self.turn_began.elapsed() >= self.quantum.min(QUANTUM) {
            tokio::task::yield_now().await;
            self.turn_began = Instant::now();
        }
    }

    /// A turn of the driver. If the guest goes on at once, a driver on a thread is told to look, where
    /// that saves exits.
    async fn serve(&mut self, goes_on: bool) -> Result<(), Violation> {
        let completed = match &mut self.service {
            Service::Inline(_) => self.serve_inline().await?,
            Service::Thread(seat) => {
                let began = Instant::now();
                let turn = seat.with(|driver| driver.turn(None))?;
                // After a long turn the next is likely to be long, too. The guest would leave
                // before a thread has done it: no exit is saved, and the thread has to be woken.
                // What a turn has left wants another.
                let pays = goes_on && (self.mode == Mode::Poll || began.elapsed() < LONG);
                if pays || turn.ended == Ended::Spent {
                    seat.ring();
                }
                turn.completed > 0
            }
        };
        if self.mode == Mode::Irq && completed {
            self.vcpu.interrupt();
        }
        Ok(())
    }

    /// As many turns on this task as there is work for. Returns whether anything was completed.
    async fn serve_inline(&mut self) -> Result<bool, Violation> {
        let mut completed = false;
        loop {
            let turn = poll_fn(|context| {
                Poll::Ready(match &mut self.service {
                    Service::Inline(driver) => driver.turn(Some(context)),
                    Service::Thread(seat) => seat.with(|driver| driver.turn(None)),
                })
            })
            .await?;
            completed |= turn.completed > 0;
            if turn.ended != Ended::Spent {
                return Ok(completed);
            }
            self.let_others_run().await;
        }
    }

    /// Takes all that a guest has submitted before it ended.
    async fn serve_last(&mut self) -> Result<(), Violation> {
        self.serve_inline().await.map(|_| ())
    }

    /// Lets tasks of the embedder's that the guest has set going begin before the guest is entered
    /// again: they may need the very thread that it would be on. What they come to at once goes to the
    /// guest together.
    async fn let_tasks_begin(&mut self) -> Result<(), Violation> {
        let mut turns = 0;
        while turns < TURNS_FOR_TASKS && self.callables.home().has_waiting() {
            tokio::task::yield_now().await;
            turns += 1;
        }
        if turns == 0 {
            return Ok(());
        }
        self.turn_began = Instant::now();
        self.serve(false).await
    }

    /// Waits until there is a completion that the guest has not seen. Pending without a thread.
    async fn park(&mut self) -> Parked {
        let asleep_since = self.left_at;
        let mut pended = false;
        if let Service::Thread(seat) = &self.service {
            seat.set_parked(true);
        }
        let parked = loop {
            let parked = poll_fn(|context| {
                let poll = self.poll_parked(context);
                if poll.is_pending()
                    && !pended
                    && let Some(recorder) = self.recorder()
                {
                    recorder.parked();
                }
                pended |= poll.is_pending();
                poll
            })
            .await;
            match parked {
                Parked::Unfinished => self.let_others_run().await,
                parked => break parked,
            }
        };
        if let Service::Thread(seat) = &self.service {
            seat.set_parked(false);
        }
        let now = Instant::now();
        if pended {
            if let Some(recorder) = self.recorder() {
                recorder.resumed();
            }
            self.times.parked += asleep_since.map_or(Duration::ZERO, |since| now - since);
            self.left_at = Some(now);
            self.turn_began = now;
        } else if let Service::Thread(seat) = &self.service
            && asleep_since.is_some_and(|since| now - since < DENSE)
        {
            // The guest left for something that was done on the spot: a driver that looks would
            // have saved it the exit.
            seat.ring();
        }
        parked
    }

    fn poll_parked(&mut self, context: &Context<'_>) -> Poll<Parked> {
        if let Some(why) = self.stop.why_else_wake(context) {
            return Poll::Ready(Parked::Stopped(why));
        }
        let turn = |driver: &mut Driver, register: Option<&Context<'_>>| {
            driver
                .turn(register)
                .map(|turn| (turn, driver.published(), driver.in_flight()))
        };
        let turned = match &mut self.service {
            Service::Inline(driver) => turn(driver, Some(context)),
            Service::Thread(seat) => {
                // Registered before the rings are looked at; partner of the thread's wake.
                seat.runner().register(context.waker());
                seat.with(|driver| turn(driver, None))
            }
        };
        let (turn, published, in_flight) = match turned {
            Ok(state) => state,
            Err(violation) => return Poll::Ready(Parked::Broken(violation)),
        };
        if turn.ended != Ended::Done {
            // What is left may complete, be in flight or wake; or it is to end.
            return Poll::Ready(Parked::Unfinished);
        }
        // S4 of `wakebox_abi::wake`, on this side of the exit.
        if published != wake::guest_has_seen(&self.control) {
            Poll::Ready(Parked::Completion)
        } else if in_flight == 0 {
            Poll::Ready(Parked::Deadlock)
        } else {
            Poll::Pending
        }
    }

    async fn not_woken(&mut self, parked: Parked) -> Outcome {
        match parked {
            Parked::Stopped(why) => self.stopped(why).await,
            Parked::Broken(Violation(what)) => Outcome::Violation(what),
            Parked::Deadlock | Parked::Completion | Parked::Unfinished => Outcome::Deadlock,
        }
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.tracing.as_ref().map(Tracing::recorder)
    }

    /// How it ends that was ended from elsewhere.
    async fn stopped(&mut self, why: Why) -> Outcome {
        match why {
            Why::Killed => Outcome::Cancelled,
            Why::Log => {
                let limit = self.limits.value(LimitKind::Log);
                self.limited(Limit::Log(limit)).await
            }
        }
    }

    /// How it ends at a limit: what it has written still leaves.
    async fn limited(&mut self, limit: Limit) -> Outcome {
        self.flush().await;
        Outcome::Limit(limit)
    }

    /// How it ended, unless the guest's last submissions broke the interface or passed a limit, or
    /// somebody had no patience for what it wrote last.
    fn ended(&self, served: Result<(), Violation>, flushed: Flushed, outcome: Outcome) -> Outcome {
        match (served, self.stop.why()) {
            (Err(Violation(what)), _) => Outcome::Violation(what),
            (Ok(()), Some(Why::Log)) => {
                Outcome::Limit(Limit::Log(self.limits.value(LimitKind::Log)))
            }
            (Ok(()), _) => match (flushed, outcome) {
                (Flushed::Killed, Outcome::Exit(_)) => Outcome::Cancelled,
                (_, outcome) => outcome,
            },
        }
    }

    /// Begins to drop what is in flight and open, and lets others of this thread have a turn in between.
    /// Whoever waits for the outcome does not wait for thousands of them.
    async fn close_in_pieces(&mut self) {
        for _ in 0..PIECES_AT_END {
            let all = match &mut self.service {
                Service::Inline(driver) => driver.close_some(),
                Service::Thread(seat) => seat.with(Driver::close_some),
            };
            if all {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Drops every operation in flight and every open resource, here or, if they are many, soon after on
    /// a thread for blocking calls. A copy in a child after `fork` leaves
    /// alone what is its parent's, and what a thread of its parent's may have held.
    fn close(&mut self) {
        if !self.vcpu.is_of_this_process() {
            return;
        }
        match &mut self.service {
            Service::Inline(driver) => driver.close(),
            Service::Thread(seat) => {
                seat.with(Driver::close);
                seat.stop();
            }
        }
        self.console.close();
        self.stdin.close();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// A run under way: when it is dropped, early or at the end, nothing stays open.
struct Run<'a> {
    sandbox: &'a mut Sandbox,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.sandbox.close();
    }
}
