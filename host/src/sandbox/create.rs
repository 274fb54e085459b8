//! From a builder's settings to a machine whose guest has not begun.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wakebox_abi::boot::{self, Boot, Features, Identity, Range};
use wakebox_abi::layout;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::wake::Mode;
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::machines::{Lent, Machines};
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::{Plan, Sizes};
use wakebox_vmm::system::System;

use super::builder::{Builder, Guest};
use super::handle::Live;
use super::instance::Instance;
use super::processors::{Processors, Setup};
use super::snapshot::{Resume, as_it_stands};
use super::turns::Turns;
use super::{QUANTUM, Sandbox};
use crate::account::Account;
use crate::arena::Arena;
use crate::calls::guest::{CallQueue, Caller};
use crate::calls::host::{Callables, Functions, Own};
use crate::debug::symbols::Symbols;
use crate::driver::herd::Herd;
use crate::driver::inflight::Ready;
use crate::driver::placement::{Common, Placement};
use crate::driver::poller::Poller;
use crate::driver::worth::Exits;
use crate::driver::{Driver, Stood};
use crate::error::{Error, Result};
use crate::limits::{LimitKind, Limits, memory_of_the_machine};
use crate::loader::Image;
use crate::meter::Meter;
use crate::observe::{Observer, Sinks, Tracing};
use crate::ops::TokioBackend;
use crate::ops::blocking::BlockingPool;
use crate::ops::handles::{self, Handles};
use crate::ops::lookup::Resolver;
use crate::ops::mounts::Mounts;
use crate::ops::uring::Files;
use crate::policy::check::Guard;
use crate::stdio::{Console, Input, Output, Stdin};
use crate::stop::Stop;
use crate::telemetry::Telemetry;
use crate::template::Stand;

/// Calls of one sandbox that may wait for a disk, at once.
const DISK_CALLS_AT_ONCE: usize = 16;
/// Names of one sandbox that are resolved at once.
const NAMES_AT_ONCE: usize = 8;
/// How long a guest watches the completion ring before it leaves, at most.
const SPIN: Duration = Duration::from_millis(1);

/// Makes the machine, loads the guest, and readies the host's side of it.
#[allow(
    clippy::too_many_lines,
    reason = "a table: what a sandbox is made of, in order"
)]
pub(super) fn create(guest: Guest, builder: Builder) -> Result<Sandbox> {
    let template = guest.load()?;
    let (name, image) = (template.name().map(str::to_owned), template.image());
    let symbols = match (template.symbols(), &builder.symbols) {
        (Some(symbols), None) => symbols.clone(),
        (_, path) => Arc::new(Symbols::of(image, path.as_deref())?),
    };
    let files = Files::new(builder.io)?;
    let policy = Arc::new(Guard::new(builder.policy));
    let limits = builder.limits.or(policy.policy().limits());
    let mounts = Mounts::open(&policy)?;
    let instance = Instance::new(&builder.args, &environment(&policy, builder.env)?)?;
    let trace_records = ring_of_trace(&builder.sinks, builder.trace_records)?;
    let machines = match builder.machines {
        Some(machines) => machines,
        None => Machines::of_process()?,
    };
    let loaded = match template.stand() {
        None => {
            let room = instance.room();
            let processors = processors(&limits, builder.processors, image.processors())?;
            #[cfg(feature = "gdb")]
            if builder.gdb.is_some() && processors > 1 {
                let why = "gdb attaches to guests with one processor: Builder::processors(1)";
                return Err(Error::Setting(why.into()));
            }
            let sizes = Sizes {
                instance: room,
                windows: image.windows(),
                trace_records,
                ..sizes(&limits, builder.arena, builder.stack, processors)?
            };
            let mode = builder.mode.unwrap_or_default();
            let loaded = Loaded::at_entry(image.clone(), &sizes, mode, &machines)?;
            loaded.write_boot_page(&instance.identity());
            loaded
        }
        Some(stand) => {
            let settled = (builder.arena, builder.stack, builder.processors);
            as_it_stands(stand, builder.mode, settled, &limits)?;
            Loaded::standing(image.clone(), stand, trace_records, &machines)?
        }
    };
    let slots = match trace_records {
        0 => 0,
        _ => loaded.memory.plan().trace_records,
    };
    instance.watched(slots).write(&loaded.memory)?;
    let mode = loaded.mode;
    let stood = template.stand().map(|stand| &stand.driver);
    let quantum = match trace_records {
        0 => builder.quantum,
        _ => builder.quantum.min(QUANTUM),
    };
    let telemetry = Telemetry::new(name.as_deref(), mode);
    let tracing = loaded.watched_by(builder.sinks, name.clone(), stood.is_some())?;
    let stood = stood.cloned().unwrap_or_default();
    let stop = Arc::new(Stop::new(loaded.machine.vcpu().kick().clone()));
    let host = Host::new(
        &limits,
        builder.functions,
        (builder.stdin, builder.stdout, builder.stderr),
        stood.next_call,
    )?;
    let meter = Meter::new(limits);
    let live = Arc::new(Live::new(
        mode,
        &loaded.memory,
        stop,
        policy,
        meter,
        host.account.clone(),
    ));
    let resources = host.resources(&loaded, &live, &limits, mounts, files, &stood.handles);
    let recorder = tracing.as_ref().map(Tracing::recorder).cloned();
    let observer = Observer::new(live.operations.clone(), telemetry.ops(), recorder.clone());
    let herd = loaded.herd();
    let placement = loaded.place(
        resources,
        observer,
        &host.callables,
        &stood.rings,
        herd.as_ref(),
    )?;
    let Loaded {
        image,
        memory,
        machine,
        clocks,
        ..
    } = loaded;
    let resume = template.stand().map(|stand| Resume {
        left: stand.left,
        others: stand.others.clone(),
        in_flight: stood.in_flight,
    });
    let processors = herd.zip(placement.share()).map(|(herd, placement)| {
        Processors::new(Setup {
            herd,
            live: live.clone(),
            placement,
            memory: memory.clone(),
            clocks: clocks.clone(),
            home: host.callables.home().clone(),
            mode,
            quantum,
            limits,
            recorder,
        })
    });
    Ok(Sandbox {
        name,
        image,
        symbols,
        signal: 0,
        control: memory.control(),
        live,
        machine,
        clocks,
        memory,
        placement,
        processors,
        ender: 0,
        mode,
        resume,
        tracing,
        telemetry,
        exits: Telemetry::exits(0),
        quantum,
        shares: 0,
        ended: false,
        keeps_machine: false,
        limits,
        turns: Turns::new(&limits),
        callables: host.callables,
        call_queue: host.call_queue,
        console: host.console,
        stdin: host.stdin,
        lost: Vec::new(),
        tasks: Vec::new(),
        is_alone: false,
        #[cfg(feature = "gdb")]
        gdb: builder.gdb,
        #[cfg(feature = "gdb")]
        debugger: None,
    })
}

/// The policy's variables and those of the builder, which count before them.
fn environment(policy: &Guard, own: Vec<(String, String)>) -> Result<Vec<(String, String)>> {
    let mut all = policy.policy().environment()?;
    all.retain(|(granted, _)| own.iter().all(|(key, _)| key != granted));
    all.extend(own);
    Ok(all)
}

/// A machine with its guest.
struct Loaded {
    image: Image,
    memory: Arc<GuestMemory>,
    machine: Lent,
    clocks: Clocks,
    mode: Mode,
    /// Whether a poller takes the driver's turns while the guest runs.
    is_polled: bool,
}

impl Loaded {
    /// One that stands at the guest's entry.
    fn at_entry(image: Image, sizes: &Sizes, mode: Mode, machines: &Machines) -> Result<Self> {
        let plan = Plan::new(&image.pages(), sizes)?;
        let mut machine = machines.take(&image.backing(&plan), plan)?;
        let memory = machine.memory().clone();
        // What the C runtime's entry code expects of a stack: no arguments, no environment, no
        // auxiliary vector (System V ABI, AMD64 supplement, 3.4.1), which is zeroes.
        machine.start(image.entry(), memory.plan().stack_range().end() - 64)?;
        let clocks = Clocks::new(machine.vcpu());
        lined_up(&machine, &clocks)?;
        memory.write_tables();
        for processor in 1..memory.plan().processors() {
            let control = memory.control_of(processor);
            control.store(Word::Processor, processor, Ordering::Relaxed);
        }
        image.load(&memory)?;
        Ok(Self {
            image,
            memory,
            machine,
            clocks,
            mode,
            is_polled: is_polled(mode)?,
        })
    }

    /// One that goes on where a sandbox stood. If it is to have a trace ring, it has one as far as its
    /// memory can: that sandbox may have had none.
    fn standing(
        image: Image,
        stand: &Stand,
        trace_records: u32,
        machines: &Machines,
    ) -> Result<Self> {
        let backing = stand.memory.backing();
        let watched = stand.memory.plan().with_trace(trace_records);
        let mut machine = match &watched {
            // With other page tables than the processor may have seen in the same place.
            Some(plan) => Machines::new(0).take(&backing, plan.clone())?,
            None => machines.take(&backing, stand.memory.plan().clone())?,
        };
        let memory = machine.memory().clone();
        if watched.is_some() {
            memory.write_tables();
        }
        machine.restore(&stand.machine)?;
        let clocks = Clocks::resumed(machine.vcpu(), stand.elapsed);
        if stand.has_counter && !clocks.has_counter() {
            return Err(Error::Setting(
                "the guest of this template tells the time by the processor's counter, which is not \
                 steady here: take the template on a machine like this one"
                    .into(),
            ));
        }
        lined_up(&machine, &clocks)?;
        // Nobody looks at the rings yet.
        for processor in 0..memory.plan().processors() {
            let control = memory.control_of(processor);
            control.store(Word::DriverPolls, 0, Ordering::Relaxed);
        }
        Ok(Self {
            image,
            memory,
            machine,
            clocks,
            mode: stand.mode,
            is_polled: is_polled(stand.mode)?,
        })
    }

    /// Writes what the guest is told of itself before it begins.
    fn write_boot_page(&self, identity: &Identity) {
        let plan = self.memory.plan();
        let mut features = if self.is_polled {
            Features::EXITLESS
        } else {
            0
        };
        if self.clocks.has_counter() {
            features |= Features::TSC_CLOCK;
        }
        let boot = Boot {
            magic: boot::MAGIC,
            // What an older one expects is there.
            version: self.image.abi_version(),
            vcpus: plan.processors(),
            features,
            wake_mode: self.mode as u32,
            spin_ns: SPIN.as_nanos() as u32,
            submissions: plan.submission_entries,
            completions: plan.completion_entries,
            image: self.image.span(),
            stack: plan.stack_range(),
            arena: Range {
                start: layout::ARENA,
                len: plan.arena.len,
            },
            heap: Range {
                start: layout::HEAP,
                len: plan.heap.len,
            },
            args: identity.args,
            env: identity.env,
            seed: identity.seed,
            trace_records: plan.trace_records,
            windows: plan.window_count,
        };
        self.memory.write(plan.boot.offset, boot.as_bytes());
    }

    /// Has the sinks get what both sides do, if there are any.
    fn watched_by(
        &self,
        sinks: Sinks,
        guest: Option<String>,
        is_restored: bool,
    ) -> Result<Option<Tracing>> {
        if sinks.0.is_empty() {
            return Ok(None);
        }
        let mode = self.mode.to_string();
        let tracing = Tracing::new(&self.memory, &self.clocks, mode, guest, sinks, is_restored)?;
        Ok(Some(tracing))
    }

    /// The processors as they are woken, if there are several.
    fn herd(&self) -> Option<Arc<Herd>> {
        let processors = self.memory.plan().processors();
        let member = |processor| {
            let kick = self.machine.vcpu_of(processor).kick().clone();
            (self.memory.control_of(processor), kick)
        };
        let several = processors > 1;
        several.then(|| Arc::new(Herd::new((0..processors).map(member), self.mode)))
    }

    /// Makes the driver, and gives it to whom takes its turns.
    fn place(
        &self,
        resources: TokioBackend,
        observer: Observer,
        callables: &Callables,
        stood: &[Stood],
        herd: Option<&Arc<Herd>>,
    ) -> Result<Placement<TokioBackend>> {
        let (kick, mode) = (self.machine.vcpu().kick(), self.mode);
        let ready = match herd {
            None => Ready::new((mode == Mode::Irq).then(|| kick.clone())),
            Some(_) if self.is_polled => Ready::new(None),
            Some(herd) => Ready::new(None).told(herd.clone()),
        };
        let ready = Arc::new(ready);
        let mut driver = Driver::new(&self.memory, stood, resources, ready, observer);
        if let Some(herd) = herd {
            driver.tell(herd.clone());
        }
        if !self.is_polled && herd.is_some() {
            return Ok(Placement::Shared(Common::new(driver)));
        }
        if !self.is_polled {
            return Ok(Placement::Inline(Box::new(driver)));
        }
        let home = callables.home().clone();
        let kicks = self.machine.vcpus().map(|vcpu| vcpu.kick().clone());
        let poller = Poller::new(driver, mode, home, kicks.collect())?;
        Ok(Placement::Poller(poller, Exits::default()))
    }
}

/// Sees that all processors tell the time as the first does.
fn lined_up(machine: &Lent, clocks: &Clocks) -> Result<()> {
    match machine.vcpus().skip(1).all(|vcpu| clocks.go_on(vcpu)) {
        true => Ok(()),
        false => Err(Error::Setting(
            "the counters of several processors cannot be lined up here: give the guest one".into(),
        )),
    }
}

/// What of the host's side both the run and the operations work with.
struct Host {
    account: Account,
    callables: Callables,
    call_queue: Arc<CallQueue>,
    console: Console,
    stdin: Stdin,
}

impl Host {
    fn new(
        limits: &Limits,
        mut functions: Functions,
        (stdin, stdout, stderr): (Input, Output, Output),
        next_call: u64,
    ) -> Result<Self> {
        let account = Account::new(limits.value(LimitKind::HostMemory));
        let time = limits.time(LimitKind::HostFnTime);
        let call_queue = Arc::new(CallQueue::starting_at(next_call, account.clone()));
        functions
            .state
            .insert(Own(Caller::new(call_queue.clone(), None)));
        let callables = Callables::new(functions, time, account.clone());
        let stdio = |source| Error::Stdio { source };
        Ok(Self {
            call_queue,
            console: Console::new(stdout, stderr, callables.home(), &account).map_err(stdio)?,
            stdin: Stdin::new(stdin, callables.home()).map_err(stdio)?,
            callables,
            account,
        })
    }

    /// What operations work with.
    fn resources(
        &self,
        loaded: &Loaded,
        live: &Live,
        limits: &Limits,
        mounts: Mounts,
        files: Files,
        handles: &[u32],
    ) -> TokioBackend {
        TokioBackend {
            arena: Arena::of(&loaded.memory),
            handles: Handles::resuming(handles::most(limits), handles),
            policy: live.policy.clone(),
            resolver: Resolver::new(live.policy.clone(), NAMES_AT_ONCE),
            mounts,
            disk: BlockingPool::new(DISK_CALLS_AT_ONCE),
            files,
            console: self.console.clone(),
            stdin: self.stdin.clone(),
            callables: self.callables.clone(),
            call_queue: self.call_queue.clone(),
            account: self.account.clone(),
            meter: live.meter.clone(),
            stop: live.stop.clone(),
            requests: live.requests.clone(),
            start: loaded.clocks.start(),
        }
    }
}

/// Whether a poller takes the turns. Watching pays only if somebody else can fill the ring meanwhile.
fn is_polled(mode: Mode) -> Result<bool> {
    Ok(matches!(mode, Mode::Poll | Mode::Auto) && System::get()?.processors > 1)
}

/// Slots of the trace ring; zero if nobody watches.
fn ring_of_trace(sinks: &Sinks, slots: u32) -> Result<u32> {
    let most = layout::TRACE_RECORDS_MAX;
    match slots {
        _ if sinks.0.is_empty() => Ok(0),
        slots if (1..=most).contains(&slots) => Ok(slots.next_power_of_two().max(64)),
        slots => Err(Error::Setting(format!(
            "a trace ring of {slots} slots cannot be: from 1 to {most}"
        ))),
    }
}

fn sizes(
    limits: &Limits,
    arena: Option<u64>,
    stack: Option<u64>,
    processors: u32,
) -> Result<Sizes> {
    let memory = limits.value(LimitKind::Memory);
    let in_flight = match limits.get(LimitKind::InFlight) {
        Some(_) => limits.count(LimitKind::InFlight),
        None => layout::COMPLETIONS_MAX,
    };
    let available = memory_of_the_machine();
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
    let arena = arena.unwrap_or((memory / 8).clamp(256 << 10, 64 << 20));
    let share = memory / 8 / u64::from(processors);
    let stack = stack.unwrap_or(share.clamp(64 << 10, 1 << 20));
    Ok(Sizes {
        memory,
        arena: bounded("an arena", arena, layout::ARENA_MAX)?,
        stack: bounded("a stack", stack, layout::stack_max(processors))?,
        in_flight,
        instance: 0,
        trace_records: 0,
        windows: 0,
        processors,
    })
}

/// How many processors a guest is given, that asks for so many itself.
fn processors(limits: &Limits, given: Option<u32>, asked: u32) -> Result<u32> {
    let processors = given.unwrap_or(asked);
    if !(1..=layout::PROCESSORS_MAX).contains(&processors) {
        return Err(Error::Setting(format!(
            "{processors} processors cannot be: from 1 to {}",
            layout::PROCESSORS_MAX
        )));
    }
    let granted = limits.count(LimitKind::Processors);
    if processors > granted {
        let who = match given {
            Some(_) => "the guest is to have",
            None => "the guest asks for",
        };
        return Err(Error::Setting(format!(
            "{who} {processors} processor{}, and {granted} is the limit: grant more with `Limits::processors` \
             (`--limit processors={processors}`), or give it fewer with `Builder::processors` (`--processors`)",
            if processors > 1 { "s" } else { "" }
        )));
    }
    Ok(processors)
}

/// A size, if it is neither nothing nor too much.
fn bounded(name: &str, value: u64, most: u64) -> Result<u64> {
    if value == 0 || value > most {
        return Err(Error::Setting(format!(
            "{name} of {} cannot be: from 1 byte to {}",
            crate::units::bytes(value),
            crate::units::bytes(most)
        )));
    }
    Ok(value)
}
