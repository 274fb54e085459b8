//! A host made of plain memory, for unit tests: it answers the doorbells of this thread.

use alloc::boxed::Box;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::{thread, thread_local};

use wakebox_abi::boot::{Boot, Clock, Features, Identity, Instance, MAGIC, Moment, Range};
use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Word};
use wakebox_abi::op::{
    Cancel, Deadline, Opcode, Operation, ReadClock, ReadStdin, ReadStream, TcpAccept, WriteConsole,
    WriteStream,
};
use wakebox_abi::ring::{self, CompletionProducer, SubmissionConsumer};
use wakebox_abi::status::Status;
use wakebox_abi::{ABI_VERSION, port, wake};

use crate::executor::Home;
use crate::runtime::{Addresses, Runtime, install};
use crate::several::{Common, Here};

/// Bytes of the arena.
pub(crate) const ARENA: usize = 1 << 20;

/// What the host does with an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Now(Status, u32),
    /// It stays in flight until [`Host::end`], or a Cancel.
    Later,
}

type Script = Box<dyn FnMut(&mut Host, &Submission) -> Answer>;
type Step = Box<dyn FnOnce(&mut Host)>;

pub(crate) struct Host {
    control: MappedControl,
    submissions: SubmissionConsumer<MappedControl, MappedSlots<{ Submission::WORDS }>>,
    completions: CompletionProducer<MappedControl, MappedSlots<{ Completion::WORDS }>>,
    arena: NonNull<u8>,
    instance: &'static Instance,
    now: u64,
    in_flight: Vec<Submission>,
    /// Whether something has ended in this look at the ring for which somebody waits.
    owes: bool,
    script: Option<Script>,
    /// What happens when the guest waits and nothing else does, in turn.
    steps: VecDeque<Step>,
    /// Operations seen, by name.
    pub(crate) seen: Vec<&'static str>,
    pub(crate) printed: Vec<u8>,
    pub(crate) doorbells: Vec<u16>,
    /// Where it is one of several.
    seat: Option<(&'static Group, u32)>,
}

/// Several processors, each of which is a thread.
pub(crate) struct Group {
    controls: Vec<MappedControl>,
    common: &'static Common,
    bells: Vec<(Mutex<()>, Condvar)>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// How long a processor of several sleeps before its test fails: nothing will wake it any more.
const FOR_EVER: Duration = Duration::from_secs(20);

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
    static NOW: Cell<u64> = const { Cell::new(0) };
}

pub(crate) fn ring(port: u16) {
    with_host(|host| host.doorbell(port));
}

pub(crate) fn halt(_seen: u32) {
    unreachable!("the fake host knows mode `out` only")
}

pub(crate) fn ticks() -> u64 {
    NOW.get()
}

pub(crate) fn processor() -> u32 {
    with_host(|host| host.seat.map_or(0, |(_, number)| number))
}

pub(crate) fn entry_of_others() -> usize {
    0
}

pub(crate) fn give_way() {
    thread::yield_now();
}

/// Calls `f` with the host of this thread.
pub(crate) fn with_host<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(|host| f(host.as_mut().expect("a test that called `boot`")))
}

/// Starts a guest on this thread, with rings of this many entries.
pub(crate) fn boot(submissions: u32, completions: u32) -> &'static Runtime {
    boot_with(submissions, completions, Features::TSC_CLOCK)
}

/// As [`boot`], with a host that offers these features.
pub(crate) fn boot_with(submissions: u32, completions: u32, features: u64) -> &'static Runtime {
    let control = control_page();
    let common = Box::leak(Box::new(Common::new(std::iter::once(control))));
    enter(submissions, completions, features, control, common, None)
}

/// Starts a guest with so many processors, of which this thread is the first; the others are threads when they
/// are started.
pub(crate) fn boot_several(count: u32) -> (&'static Runtime, &'static Group) {
    let controls: Vec<_> = (0..count).map(|_| control_page()).collect();
    let common = Box::leak(Box::new(Common::new(controls.iter().copied())));
    let group = Box::leak(Box::new(Group {
        controls,
        common,
        bells: (0..count).map(|_| Default::default()).collect(),
        threads: Mutex::default(),
    }));
    (group.enter(0), group)
}

impl Group {
    fn enter(&'static self, number: u32) -> &'static Runtime {
        let control = self.controls[number as usize];
        let features = Features::TSC_CLOCK;
        enter(64, 64, features, control, self.common, Some((self, number)))
    }

    /// Waits until all that were started have ended.
    pub(crate) fn join(&self) {
        let threads = core::mem::take(&mut *self.threads.lock().unwrap());
        threads.into_iter().for_each(|one| one.join().unwrap());
    }

    fn start(&'static self, number: u32) {
        let one = thread::spawn(move || self.enter(number).serve_others());
        self.threads.lock().unwrap().push(one);
    }

    fn nudge(&self, number: u32) {
        let (lock, bell) = &self.bells[number as usize];
        let _locked = lock.lock().unwrap();
        bell.notify_all();
    }

    /// Sleeps until others have posted to a processor.
    fn sleep(&self, number: u32) {
        let (lock, bell) = &self.bells[number as usize];
        let locked = lock.lock().unwrap();
        let control = &self.controls[number as usize];
        let asleep = |_: &mut ()| !wake::guest_has_posts(control);
        let (_locked, waited) = bell.wait_timeout_while(locked, FOR_EVER, asleep).unwrap();
        assert!(!waited.timed_out(), "processor {number} sleeps for ever");
    }
}

/// A fresh control page.
fn control_page() -> MappedControl {
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);

    let page = NonNull::from(Box::leak(Box::new(Page([0; 4096]))));
    // SAFETY: it is new, and lives for ever.
    unsafe { MappedControl::new(page.cast()) }
}

/// Starts a processor on this thread.
fn enter(
    submissions: u32,
    completions: u32,
    features: u64,
    control: MappedControl,
    common: &'static Common,
    seat: Option<(&'static Group, u32)>,
) -> &'static Runtime {
    fn words(count: usize) -> NonNull<u64> {
        NonNull::from(Box::leak(vec![0_u64; count].into_boxed_slice())).cast()
    }
    let clock: &'static Clock = Box::leak(Box::default());
    clock.write(&Moment {
        multiplier: 1,
        ..Moment::default()
    });
    let instance: &'static Instance = Box::leak(Box::default());
    instance.write(&identity(1, &[], &[]));
    let addresses = Addresses {
        control,
        submissions: words(submissions as usize * Submission::WORDS),
        completions: words(completions as usize * Completion::WORDS),
        clock,
        instance,
    };
    let arena = words(ARENA / 8).cast::<u8>();
    let boot = Boot {
        magic: MAGIC,
        version: ABI_VERSION,
        vcpus: 1,
        features,
        submissions,
        completions,
        arena: Range {
            start: arena.as_ptr().expose_provenance() as u64,
            len: ARENA as u64,
        },
        ..Boot::default()
    };
    NOW.set(1);
    // SAFETY: all memory is new, large enough, and lives for ever; there is one thread.
    unsafe {
        let host = Host {
            control,
            submissions: SubmissionConsumer::new(
                control,
                MappedSlots::new(addresses.submissions, submissions),
                ring::SUBMISSION,
            ),
            completions: CompletionProducer::new(
                control,
                MappedSlots::new(addresses.completions, completions),
                ring::COMPLETION,
            ),
            arena,
            instance,
            now: 1,
            in_flight: Vec::new(),
            owes: false,
            script: None,
            steps: VecDeque::new(),
            seen: Vec::new(),
            printed: Vec::new(),
            doorbells: Vec::new(),
            seat,
        };
        HOST.set(Some(host));
        let here = Here::new(common, seat.map_or(0, |(_, number)| number));
        let home = Home::NOWHERE.at(here.whereabouts());
        install(Runtime::new(boot, &addresses, home, here, None))
    }
}

/// The instance of this number, with these arguments and variables.
fn identity(number: u64, args: &[&str], env: &[&str]) -> Identity {
    let range = |words: &[&str]| {
        let bytes: String = words.iter().flat_map(|word| [word, "\0"]).collect();
        let bytes: &'static str = bytes.leak();
        Range {
            start: bytes.as_ptr().expose_provenance() as u64,
            len: bytes.len() as u64,
        }
    };
    Identity {
        generation: [number, !number],
        seed: [number, 2, 3, 4],
        args: range(args),
        env: range(env),
        trace_records: 0,
    }
}

/// Starts a guest with ample rings and runs a future in it.
pub(crate) fn run<F: Future + 'static>(future: F) -> F::Output {
    let runtime = boot(64, 64);
    let output = runtime.block_on(future);
    runtime.flush_console();
    output
}

/// Sets what happens to operations other than Cancel, Deadline and WriteConsole.
pub(crate) fn on_operation(script: impl FnMut(&mut Host, &Submission) -> Answer + 'static) {
    with_host(|host| host.script = Some(Box::new(script)));
}

/// Appends something that happens when the guest has nothing else to do.
pub(crate) fn when_idle(step: impl FnOnce(&mut Host) + 'static) {
    with_host(|host| host.steps.push_back(Box::new(step)));
}

impl Host {
    fn doorbell(&mut self, port: u16) {
        self.doorbells.push(port);
        let before = self.completions.published();
        self.serve();
        if let Some((group, number)) = self.seat {
            let control = &group.controls[number as usize];
            let target = control.load(Word::Target, Ordering::Relaxed);
            match port {
                port::START => group.start(target),
                port::NUDGE => group.nudge(target),
                port::WAIT if self.completions.published() == before => group.sleep(number),
                _ => {}
            }
        } else if port == port::WAIT {
            while self.completions.published() == before && !wake::guest_has_posts(&self.control) {
                self.pass_time();
            }
        }
    }

    /// Reads the submission ring to its end.
    fn serve(&mut self) {
        self.take_submissions();
        if core::mem::take(&mut self.owes) || self.in_flight.is_empty() {
            self.completions.publish();
        }
    }

    fn take_submissions(&mut self) {
        while let Some(submission) = self.submissions.pop().unwrap() {
            self.submissions.release();
            let opcode = Opcode::from_code(submission.opcode).unwrap();
            self.seen.push(opcode.name());
            match opcode {
                Opcode::Cancel => {
                    let Cancel { target } = Cancel::from_params(&submission.params).unwrap();
                    self.end_if_in_flight(target, Status::Cancelled, 0);
                }
                Opcode::Deadline => self.in_flight.push(submission),
                Opcode::WriteConsole => {
                    let from = WriteConsole::from_params(&submission.params).unwrap().from;
                    let bytes = self.arena_bytes(from.offset, from.len).to_vec();
                    self.printed.extend(bytes);
                    self.end_now(&submission, Status::Ok, from.len);
                }
                Opcode::ReadClock => {
                    let into = ReadClock::from_params(&submission.params).unwrap().into;
                    let now = self.now.to_le_bytes();
                    self.arena_bytes(into.offset, 8).copy_from_slice(&now);
                    self.end_now(&submission, Status::Ok, 16);
                }
                _ => {
                    let mut script = self.script.take();
                    let answer = match &mut script {
                        Some(script) => script(self, &submission),
                        None => Answer::Now(Status::Ok, 0),
                    };
                    self.script = script;
                    match answer {
                        Answer::Now(status, value) => {
                            self.end_now(&submission, status, value);
                        }
                        Answer::Later => self.in_flight.push(submission),
                    }
                }
            }
        }
    }

    /// Lets the next thing happen for which the guest may be waiting.
    fn pass_time(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            return step(self);
        }
        let deadlines = self.in_flight.iter().filter_map(|submission| {
            let is_deadline = submission.opcode == Opcode::Deadline as u16;
            let at_ns = Deadline::from_params(&submission.params).ok()?.at_ns;
            is_deadline.then_some((at_ns, submission.token))
        });
        let Some((at_ns, token)) = deadlines.min_by_key(|(at_ns, _)| *at_ns) else {
            panic!("the guest sleeps for ever; it did {:?}", self.seen);
        };
        self.now = self.now.max(at_ns);
        NOW.set(self.now);
        self.end_if_in_flight(token, Status::Ok, 0);
    }

    /// Makes the guest, which sleeps, the instance of this number.
    pub(crate) fn restore(&mut self, number: u64, args: &[&str], env: &[&str]) {
        self.instance.write(&identity(number, args, env));
    }

    /// Lets so many nanoseconds pass.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.now += ns;
        NOW.set(self.now);
    }

    /// Ends an operation on the spot. If nobody waits for that, the guest sees it with another that it waits for: as late as
    /// a host may.
    fn end_now(&mut self, submission: &Submission, status: Status, value: u32) {
        self.put(submission.token, status, value);
        self.owes |= !submission.deferrable || status != Status::Ok;
    }

    fn complete(&mut self, token: Token, status: Status, value: u32) {
        self.put(token, status, value);
        self.completions.publish();
    }

    fn put(&mut self, token: Token, status: Status, value: u32) {
        let completion = Completion {
            token,
            status,
            value,
        };
        assert!(self.completions.push(completion).unwrap(), "a free slot");
    }

    fn end_if_in_flight(&mut self, token: Token, status: Status, value: u32) -> bool {
        let at = self.in_flight.iter().position(|one| one.token == token);
        if let Some(at) = at {
            self.in_flight.remove(at);
            self.complete(token, status, value);
        }
        at.is_some()
    }

    /// Ends the oldest operation of a kind that is in flight, after writing `bytes` to its buffer.
    pub(crate) fn end(&mut self, opcode: Opcode, status: Status, value: u32, bytes: &[u8]) {
        let submission = *self
            .in_flight
            .iter()
            .find(|submission| submission.opcode == opcode as u16)
            .expect("an operation of this kind in flight");
        let into = match opcode {
            Opcode::ReadStdin => ReadStdin::from_params(&submission.params).unwrap().into,
            Opcode::ReadStream => ReadStream::from_params(&submission.params).unwrap().into,
            Opcode::TcpAccept => TcpAccept::from_params(&submission.params).unwrap().peer,
            _ => wakebox_abi::op::Buf::default(),
        };
        let place = self.arena_bytes(into.offset, into.len);
        place[..bytes.len()].copy_from_slice(bytes);
        self.end_if_in_flight(submission.token, status, value);
    }

    /// The bytes that a write names.
    pub(crate) fn written(&mut self, submission: &Submission) -> Vec<u8> {
        let from = WriteStream::from_params(&submission.params).unwrap().from;
        self.arena_bytes(from.offset, from.len).to_vec()
    }

    /// Completes a token that names nothing, or an operation that has ended.
    pub(crate) fn complete_stale(&mut self, token: Token) {
        self.complete(token, Status::Ok, 99);
    }

    /// Bytes of the arena.
    fn arena_bytes(&mut self, offset: u32, len: u32) -> &mut [u8] {
        assert!(offset as usize + len as usize <= ARENA);
        // SAFETY: inside of the arena; an operation in flight owns the range, and the guest
        // does not run while the host does.
        unsafe {
            let start = self.arena.as_ptr().add(offset as usize);
            core::slice::from_raw_parts_mut(start, len as usize)
        }
    }
}
