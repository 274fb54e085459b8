//! A host made of plain memory, for unit tests: it answers the doorbells of this thread.

use alloc::boxed::Box;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::thread_local;

use wakebox_abi::boot::{Boot, Clock, Features, Identity, Instance, MAGIC, Moment, Range};
use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{MappedControl, MappedSlots};
use wakebox_abi::op::{
    Cancel, Deadline, Opcode, Operation, ReadClock, ReadStdin, ReadStream, WriteConsole,
    WriteStream,
};
use wakebox_abi::ring::{self, CompletionProducer, SubmissionConsumer};
use wakebox_abi::status::Status;
use wakebox_abi::{ABI_VERSION, port};

use crate::executor::Home;
use crate::runtime::{Addresses, Runtime, install};

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
    submissions: SubmissionConsumer<MappedControl, MappedSlots<{ Submission::WORDS }>>,
    completions: CompletionProducer<MappedControl, MappedSlots<{ Completion::WORDS }>>,
    arena: NonNull<u8>,
    instance: &'static Instance,
    now: u64,
    in_flight: Vec<Submission>,
    script: Option<Script>,
    /// What happens when the guest waits and nothing else does, in turn.
    steps: VecDeque<Step>,
    /// Operations seen, by name.
    pub(crate) seen: Vec<&'static str>,
    pub(crate) printed: Vec<u8>,
    pub(crate) doorbells: Vec<u16>,
}

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
    fn words(count: usize) -> NonNull<u64> {
        NonNull::from(Box::leak(vec![0_u64; count].into_boxed_slice())).cast()
    }
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);

    let control = NonNull::from(Box::leak(Box::new(Page([0; 4096])))).cast();
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
        let control = MappedControl::new(control);
        let host = Host {
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
            script: None,
            steps: VecDeque::new(),
            seen: Vec::new(),
            printed: Vec::new(),
            doorbells: Vec::new(),
        };
        HOST.set(Some(host));
        install(Runtime::new(boot, &addresses, Home::NOWHERE))
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
        if port == port::WAIT {
            while self.completions.published() == before {
                self.pass_time();
            }
        }
    }

    /// Reads the submission ring to its end.
    fn serve(&mut self) {
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
                    self.complete(submission.token, Status::Ok, from.len);
                }
                Opcode::ReadClock => {
                    let into = ReadClock::from_params(&submission.params).unwrap().into;
                    let now = self.now.to_le_bytes();
                    self.arena_bytes(into.offset, 8).copy_from_slice(&now);
                    self.complete(submission.token, Status::Ok, 16);
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
                            self.complete(submission.token, status, value);
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

    fn complete(&mut self, token: Token, status: Status, value: u32) {
        let completion = Completion {
            token,
            status,
            value,
        };
        assert!(self.completions.push(completion).unwrap(), "a free slot");
        self.completions.publish();
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
