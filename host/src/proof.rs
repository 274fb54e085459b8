//! The host's side of a sandbox without a machine: what models and fuzzers get hold of.
//!
//! Not a part of the interface. It is there with the feature `proof`, which the fuzzers in
//! `tests/fuzz` set, and in this crate's own tests.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pollers;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod turns;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::task::Poll;
use std::time::Instant;

use futures_util::stream;
use tokio::runtime::Runtime;
use wakebox_abi::entry::{Completion, Submission};
use wakebox_abi::layout::{self, IMAGE_MAX, IMAGE_MIN, PAGE_SIZE};
use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Slots};
use wakebox_abi::queue::Queue;
use wakebox_abi::ring::{self, CompletionConsumer, SubmissionProducer};
use wakebox_abi::status::Status;
use wakebox_abi::wake::Mode;
use wakebox_vmm::memory::{GuestMemory, Shared};
use wakebox_vmm::plan::{Pages, Plan, Region, Sizes};
use wakebox_vmm::signal::{RunPage, VcpuKick};
use wakebox_vmm::x86_64::paging::Rights;
use wakebox_vmm::x86_64::registers::Registers;

use crate::account::Account;
use crate::arena::Arena;
use crate::calls::guest::CallQueue;
use crate::calls::host::{Callables, Functions};
use crate::debug::backtrace::Frame;
use crate::debug::symbols::Symbols;
use crate::debug::unwind;
use crate::driver::backend::Backend;
use crate::driver::inflight::Ready;
use crate::driver::{Driver, Ended, Stood};
use crate::elf::fuel::{Fuel, limits};
use crate::error::LoadError;
use crate::limits::Limits;
use crate::loader::Image;
use crate::meter::Meter;
use crate::observe::Observer;
use crate::ops::TokioBackend;
use crate::ops::blocking::BlockingPool;
use crate::ops::handles::Handles;
use crate::ops::lookup::Resolver;
use crate::ops::mounts::Mounts;
use crate::ops::uring::Files;
use crate::policy::Policy;
use crate::policy::check::Guard;
use crate::probe;
use crate::stdio::{Console, Input, Output, Stdin};
use crate::stop::Stop;
use crate::telemetry::Telemetry;

/// Bytes of the arena of a [`Bench`].
pub const ARENA: usize = 16 << 10;

/// Slots of its rings.
pub const SLOTS: u32 = 64;

/// How often operations in flight are given the chance to go on.
const ROUNDS: usize = 4;

/// A place where the host's side runs with nobody on the other.
#[derive(Debug)]
pub struct Bench {
    runtime: Runtime,
    policy: Policy,
    image: Image,
    memory: Arc<GuestMemory>,
}

impl Bench {
    /// One whose guest may do what `policy` grants. There are the host functions `echo`, of a
    /// string, and `count`, a stream of numbers.
    ///
    /// # Panics
    ///
    /// If there is no memory or no thread.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build();
        let image = Image::from_bytes(probe::program()).expect("the smallest guest is one");
        Self {
            runtime: runtime.expect("a runtime"),
            policy,
            memory: memory(&image),
            image,
        }
    }

    /// The memory of its guest.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Takes up to so many turns over these rings. Returns how many it were before the guest had
    /// broken them.
    pub fn turns<C, S, R>(&self, queue: Queue<C, S, R>, turns: usize) -> usize
    where
        C: Control + Clone,
        S: Slots<{ Submission::WORDS }>,
        R: Slots<{ Completion::WORDS }>,
    {
        let _runtime = self.runtime.enter();
        let mut driver = driver_over(queue, &self.memory, &self.policy);
        let whole = (0..turns).take_while(|_| {
            loop {
                match driver.turn(None) {
                    Ok(turn) if turn.ended == Ended::Spent => {}
                    turn => break turn.is_ok(),
                }
            }
        });
        let taken = whole.count();
        driver.close();
        taken
    }

    /// Has a guest with these bytes in its arena submit these entries, and gives them the chance
    /// to be done. Returns how many were completed, or `None` if the guest has broken its rings.
    ///
    /// # Panics
    ///
    /// If the host does what it must not: writes anywhere but into the arena, or completes what was
    /// not submitted.
    #[must_use]
    pub fn operations(&self, arena: &[u8], entries: &[Submission]) -> Option<usize> {
        let memory = memory(&self.image);
        let plan = memory.plan();
        memory.write(plan.arena.offset, &arena[..arena.len().min(ARENA)]);
        let resources = resources(&memory, &self.policy);
        let callables = &resources.callables;
        callables.enter(self.runtime.handle().clone(), tracing::Span::none());
        let mut driver = driver_of(&memory, &[], resources);
        let Ends {
            mut submissions,
            mut completions,
        } = Ends::of(&memory);
        for entry in entries.iter().take(SLOTS as usize) {
            let room = submissions.push(*entry);
            assert_eq!(room, Ok(true), "the ring has room for as many");
        }
        submissions.publish();
        let turns = self.runtime.block_on(async {
            let mut rounds = 0;
            while rounds < ROUNDS {
                let turn = poll_fn(|context| Poll::Ready(driver.turn(Some(context)))).await?;
                if turn.ended == Ended::Done {
                    rounds += 1;
                    if driver.in_flight() == 0 {
                        break;
                    }
                }
                tokio::task::yield_now().await;
            }
            Ok::<(), crate::driver::Violation>(())
        });
        self.runtime.block_on(async { driver.close() });
        let mut completed = 0;
        while let Ok(Some(completion)) = completions.pop() {
            let is_its = |entry: &Submission| entry.token == completion.token;
            // A cancellation names another operation's token.
            assert!(
                entries.iter().any(is_its),
                "nothing was submitted as {:?}",
                completion.token
            );
            completed += 1;
        }
        assert!(completed <= entries.len());
        untouched(&memory);
        turns.is_ok().then_some(completed)
    }

    /// Has a guest with these bytes in its arena submit one entry, and waits until it is done: it must
    /// not be one that waits for something else. Returns its status, its value, and the arena.
    ///
    /// # Panics
    ///
    /// If the entry breaks the rings.
    #[must_use]
    pub fn complete(&self, arena: &[u8], entry: Submission) -> (Status, u32, Vec<u8>) {
        let memory = memory(&self.image);
        let plan = memory.plan();
        memory.write(plan.arena.offset, &arena[..arena.len().min(ARENA)]);
        let resources = resources(&memory, &self.policy);
        let mut driver = driver_of(&memory, &[], resources);
        let Ends {
            mut submissions,
            mut completions,
        } = Ends::of(&memory);
        assert_eq!(submissions.push(entry), Ok(true), "the rings are empty");
        submissions.publish();
        let completion = self.runtime.block_on(poll_fn(|context| {
            loop {
                let turn = driver.turn(Some(context));
                let turn = turn.expect("the guest is well-behaved");
                if turn.ended == Ended::Done {
                    break;
                }
            }
            match completions.pop().expect("the host is well-behaved") {
                Some(completion) => Poll::Ready(completion),
                None => Poll::Pending,
            }
        }));
        self.runtime.block_on(async { driver.close() });
        let mut arena = vec![0; ARENA];
        memory.read(plan.arena.offset, &mut arena);
        (completion.status, completion.value, arena)
    }
}

#[cfg(feature = "template-file")]
impl Bench {
    /// Reads what may be a template file, and goes on where it stands as a sandbox of it does, as far as
    /// that can be without one. Returns whether it is one.
    ///
    /// # Panics
    ///
    /// If the host does what it must not: KVM refuses a processor's state that was read from a file, or
    /// there are bytes of ring 0 in memory that the host has not written.
    #[must_use]
    pub fn template(&self, file: &[u8]) -> bool {
        let Some((memory, driver)) = template::read(file) else {
            return false;
        };
        let resources = resources(&memory, &self.policy);
        let callables = &resources.callables;
        callables.enter(self.runtime.handle().clone(), tracing::Span::none());
        let mut stood = driver_of(&memory, &driver.rings, resources);
        self.runtime.block_on(async {
            // Whether the guest's rings are as they were is the guest's affair.
            if stood.begin_again(&driver.in_flight).is_ok() {
                let _ = stood.turn(None);
            }
            stood.close();
        });
        true
    }
}

#[cfg(feature = "template-file")]
pub use crate::template::file::proof as template;

/// The status that tells a guest of an error of the kernel.
#[must_use]
pub fn status_of(error: &std::io::Error) -> Status {
    crate::ops::status_of(error)
}

/// Checks an ELF file, and loads it if it is a guest. Returns whether it is.
///
/// # Panics
///
/// If the host does what it must not: maps a page that is writable and executable at once, or
/// overlapping, or outside the image's window.
pub fn load(file: &[u8]) -> bool {
    examine(file).is_ok()
}

/// What was found out about a guest that stopped at once, and how many steps that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// To check the file.
    pub load: u64,
    /// To find the calls on its stack.
    pub unwind: u64,
    /// To find their names and lines.
    pub symbols: u64,
    /// Where it stood, and the calls that led there.
    pub frames: Vec<Frame>,
}

/// The most steps of each kind that there can be.
pub const MOST_STEPS: [u64; 3] = [limits::LOAD, limits::UNWIND, limits::SYMBOLS];

/// Checks an ELF file, loads it if it is a guest, and looks for the calls that led to its entry.
///
/// # Errors
///
/// Why it is none.
///
/// # Panics
///
/// As [`load`].
pub fn examine(file: &[u8]) -> Result<Examined, LoadError> {
    let fuel = Fuel::for_file(file.len());
    let image = Image::parse("guest", file.to_vec(), &fuel)?;
    let mut last = IMAGE_MIN;
    let mut pages = image.pages();
    pages.sort_by_key(|pages| pages.start);
    for Pages { start, len, rights } in pages {
        assert!(
            start >= last && start.is_multiple_of(PAGE_SIZE),
            "{start:#x} behind {last:#x}"
        );
        assert!([Rights::READ, Rights::WRITE, Rights::EXECUTE].contains(&rights));
        last = start + len;
    }
    assert!(last <= IMAGE_MAX);
    let memory = memory(&image);
    memory.write_tables();
    image
        .load(&memory)
        .expect("it goes where it was checked to go");
    let mut examined = Examined {
        load: fuel.spent(),
        unwind: 0,
        symbols: 0,
        frames: Vec::new(),
    };
    find_calls(&image, &Stack(file), layout::STACK, &mut examined);
    // What the guest itself has as a stack.
    if let Some(data) = image.segments().last() {
        let view = memory.view();
        find_calls(&image, &view, data.addresses.start, &mut examined);
    }
    Ok(examined)
}

/// A stack that is made of a file's bytes.
struct Stack<'a>(&'a [u8]);

impl unwind::Memory for Stack<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let at = (address % (self.0.len() as u64 + 64)) as usize;
        let bytes = self.0.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// Looks for the calls that led to where a guest stands, with this stack.
fn find_calls(image: &Image, stack: &dyn unwind::Memory, at: u64, examined: &mut Examined) {
    let Ok(symbols) = Symbols::of(image, None) else {
        return;
    };
    let registers = Registers {
        rip: image.entry(),
        rsp: at - 64,
        rbp: at,
        ..Registers::default()
    };
    let fuel = Fuel::new(limits::UNWIND);
    let elf = symbols.elf();
    let calls = unwind::unwind_with(&fuel, &registers, stack, elf.as_ref(), symbols.bias());
    examined.unwind = examined.unwind.max(fuel.spent());
    let fuel = Fuel::new(limits::SYMBOLS);
    let frames = symbols.resolve_with(&fuel, &calls.addresses);
    examined.symbols = examined.symbols.max(fuel.spent());
    examined.frames = frames.concat();
}

/// The smallest guest there is.
#[must_use]
pub fn smallest_guest() -> Vec<u8> {
    probe::program()
}

pub(crate) fn memory(image: &Image) -> Arc<GuestMemory> {
    memory_with(image, ARENA as u64)
}

/// Memory with so many bytes of arena.
fn memory_with(image: &Image, arena: u64) -> Arc<GuestMemory> {
    let sizes = Sizes {
        memory: image.span().len + arena + (8 << 20),
        arena,
        stack: PAGE_SIZE,
        in_flight: SLOTS,
        instance: PAGE_SIZE,
        trace_records: 0,
        windows: 0,
        processors: 1,
    };
    let plan = Plan::new(&image.pages(), &sizes).expect("there is room for the rest");
    GuestMemory::new(plan).expect("memory")
}

/// Sees that nothing stands around the arena, nor where the host has no business.
fn untouched(memory: &GuestMemory) {
    let plan = memory.plan();
    let mut page = [0; PAGE_SIZE as usize];
    let before = plan.arena.offset - PAGE_SIZE;
    let behind = plan.arena.offset + plan.arena.len;
    let Region { offset: report, .. } = plan.report;
    for offset in [before, behind, report, plan.stack.offset, plan.heap.offset] {
        memory.read(offset, &mut page);
        assert!(
            page.iter().all(|byte| *byte == 0),
            "the host has written at {offset:#x}; the arena begins at {:#x}",
            plan.arena.offset
        );
    }
}

/// A driver over the rings of a guest's memory with so many bytes of arena.
#[cfg(test)]
pub(crate) fn driver(arena: u64, policy: &Policy) -> (Arc<GuestMemory>, Driver<TokioBackend>) {
    let image = Image::from_bytes(probe::program()).expect("the smallest guest is one");
    let memory = memory_with(&image, arena);
    let resources = resources_with(&memory, policy, 64 << 20);
    let driver = driver_of(&memory, &[], resources);
    (memory, driver)
}

/// A driver whom nobody watches, over the rings in this memory, which stand so.
fn driver_of<B: Backend>(memory: &Arc<GuestMemory>, stood: &[Stood], backend: B) -> Driver<B> {
    Driver::new(
        memory,
        stood,
        backend,
        Arc::new(Ready::new(None)),
        unobserved(),
    )
}

/// The observer of a driver whom nobody watches.
fn unobserved() -> Observer {
    let telemetry = Telemetry::new(None, Mode::Out).ops();
    Observer::new(Arc::default(), telemetry, None)
}

/// The guest's ends of the rings in its memory.
struct Ends {
    submissions:
        SubmissionProducer<Shared<MappedControl>, Shared<MappedSlots<{ Submission::WORDS }>>>,
    completions:
        CompletionConsumer<Shared<MappedControl>, Shared<MappedSlots<{ Completion::WORDS }>>>,
}

impl Ends {
    /// Those of a guest that has submitted nothing.
    fn of(memory: &Arc<GuestMemory>) -> Self {
        Self {
            submissions: SubmissionProducer::new(
                memory.control(),
                memory.submissions_of(0),
                ring::SUBMISSION,
            ),
            completions: CompletionConsumer::new(
                memory.control(),
                memory.completions_of(0),
                ring::COMPLETION,
            ),
        }
    }
}

/// A driver over any rings.
pub(crate) fn driver_over<C, S, R>(
    queue: Queue<C, S, R>,
    memory: &Arc<GuestMemory>,
    policy: &Policy,
) -> Driver<TokioBackend, C, S, R>
where
    C: Control + Clone,
    S: Slots<{ Submission::WORDS }>,
    R: Slots<{ Completion::WORDS }>,
{
    let ready = Arc::new(Ready::new(None));
    Driver::over(
        queue,
        Vec::new(),
        resources(memory, policy),
        ready,
        unobserved(),
    )
}

fn resources(memory: &Arc<GuestMemory>, policy: &Policy) -> TokioBackend {
    resources_with(memory, policy, 1 << 20)
}

/// TokioBackend of a sandbox for which the host keeps at most so many bytes.
fn resources_with(memory: &Arc<GuestMemory>, policy: &Policy, account: u64) -> TokioBackend {
    let policy = Arc::new(Guard::new(policy.clone()));
    let account = Account::new(account);
    let mut functions = Functions::default();
    functions.add_call("echo", |_, text: String| async move { text });
    functions.add_stream("count", |_, to: u32| stream::iter(0..to));
    let callables = Callables::new(functions, None, account.clone());
    TokioBackend {
        arena: Arena::of(memory),
        handles: Handles::new(16),
        resolver: Resolver::new(policy.clone(), 1),
        mounts: Mounts::open(&policy).expect("the granted directories are there"),
        policy,
        disk: BlockingPool::new(2),
        files: Files::default(),
        console: Console::new(Output::Null, Output::Null, callables.home(), &account)
            .expect("it takes no descriptor"),
        stdin: Stdin::new(Input::Null, callables.home()).expect("it takes no descriptor"),
        callables,
        call_queue: Arc::new(CallQueue::starting_at(0, account.clone())),
        account,
        meter: Meter::new(Limits::new()),
        stop: Arc::new(Stop::new(Arc::new(nobody()))),
        requests: Arc::default(),
        start: Instant::now(),
    }
}

/// The kick of a processor that is not there.
fn nobody() -> VcpuKick {
    static FLAG: AtomicU8 = AtomicU8::new(0);
    let flag = std::ptr::NonNull::from(&FLAG).cast();
    // SAFETY: the flag is never unmapped, and an atomic may be written through a shared reference.
    VcpuKick::new(unsafe { RunPage::new(flag) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wakebox_abi::entry::Token;
    use wakebox_abi::op::{self, Buf, Operation};

    #[test]
    fn a_guest_without_a_machine_is_served() {
        let bench = Bench::new(Policy::new().allow_fn("echo".parse().unwrap()));
        // Name, and what postcard makes of "hey".
        let arena = b"echo\x03hey";
        let buf = |offset, len| Buf { offset, len };
        let call = op::CallHost {
            form: op::CallForm::Plain,
            function: buf(0, 4),
            input: buf(4, 4),
            into: buf(100, 100),
        };
        let token = |slot| Token {
            slot,
            generation: 1,
        };
        let entries = [call.submission(token(0)), op::Nop {}.submission(token(1))];
        assert_eq!(bench.operations(arena, &entries), Some(2));
        // A slot that is not there, for an operation that waits.
        let never = op::NextCall { into: buf(0, 0) }.submission(token(SLOTS));
        assert_eq!(bench.operations(&[], &[never]), None);
    }

    #[test]
    fn the_smallest_guest_is_loaded_and_half_of_it_is_not() {
        let file = probe::program();
        assert!(load(&file));
        assert!(!load(&file[..file.len() / 2]));
    }
}
