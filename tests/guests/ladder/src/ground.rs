//! The ground under the ladder: how a program enters, allocates, speaks, and reaches the two rings.
//!
//! Nothing here is asynchronous. There is no executor, no reactor and no waker: those are what the
//! rungs build, one after the other, each in a file of its own. A rung is the function that it gives
//! to [`rung!`].
#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, RefCell, RefMut};
use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::Ordering;

use wakebox_abi::boot::{Boot, Clock};
use wakebox_abi::entry::{Completion, Token};
use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Word};
use wakebox_abi::op::{
    Buf, End, Handle, Operation, SocketAddress, SocketName, Stream, TcpAccept, TcpConnect,
    TcpListen, WriteConsole,
};
use wakebox_abi::ring::{COMPLETION, CompletionConsumer, SUBMISSION, SubmissionProducer};
use wakebox_abi::status::Status;
use wakebox_abi::trace::{Idle, Reason, Roused, Trace, What};
use wakebox_abi::wake::{self, Sleep};
use wakebox_abi::{layout, port, report, upcall};

mod symbols;

/// What most rungs use.
pub mod prelude {
    pub use alloc::boxed::Box;
    pub use alloc::collections::{BTreeMap, VecDeque};
    pub use alloc::format;
    pub use alloc::sync::Arc;
    pub use alloc::task::Wake;
    pub use alloc::vec::Vec;
    pub use core::cell::{Cell, RefCell};
    pub use core::future::{Future, poll_fn};
    pub use core::pin::{Pin, pin};
    pub use core::sync::atomic::{AtomicBool, Ordering};
    pub use core::task::{Context, Poll, Waker};

    pub use wakebox_abi::entry::Token;
    pub use wakebox_abi::op::{
        Amount, Buf, Cancel, Deadline, Handle, Operation, ReadStream, TcpAccept, TcpConnect,
        WriteStream,
    };
    pub use wakebox_abi::trace::{Reason, What};

    pub use crate::{
        Local, cloned, poll_begins, poll_ends, say, spawned, submit, token, trace, woken,
    };
}

/// Makes a guest of a function, with so many processors.
#[macro_export]
macro_rules! rung {
    ($main:path) => {
        $crate::rung!($main, 1);
    };
    ($main:path, $processors:expr) => {
        /// Tells the host that this is a guest, and of which version.
        #[used]
        #[unsafe(link_section = ".note.wakebox")]
        static NOTE: ::wakebox_abi::note::Note =
            ::wakebox_abi::note::Note::new(0).processors($processors);

        /// What the C compiler's start file calls.
        #[unsafe(no_mangle)]
        extern "C" fn __libc_start_main() -> ! {
            $crate::run($main)
        }

        /// What the start file passes to the function above, which does not care.
        #[unsafe(export_name = "main")]
        extern "C" fn c_main() {}
    };
}

/// Prints a line, at the end of the run: by then nothing else is in flight.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::say(::core::format_args!($($words)*)) };
}

/// Something that one processor uses at a time: but for rung 10, which has a lock for it, a guest has one,
/// and nothing preempts it.
#[derive(Debug, Default)]
pub struct Local<T>(pub T);

// SAFETY: as said there is one flow of control at a time, and rung 10 puts only what is `Send` into one.
unsafe impl<T> Send for Local<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Local<T> {}

struct Ground {
    control: MappedControl,
    submissions: SubmissionProducer<MappedControl, MappedSlots<8>>,
    completions: CompletionConsumer<MappedControl, MappedSlots<2>>,
    said: String,
}

/// Those of the processors, of which each has a ring of its own.
static TRACES: [Local<RefCell<Trace>>; 2] = [const { Local(RefCell::new(Trace::OFF)) }; 2];

static GROUND: Local<RefCell<Option<Ground>>> = Local(RefCell::new(None));

fn ground() -> RefMut<'static, Ground> {
    RefMut::map(GROUND.0.borrow_mut(), |ground| {
        ground.as_mut().expect("the program has entered")
    })
}

/// Enters, calls the rung, says what it had to say, and leaves.
#[doc(hidden)]
pub fn run(rung: fn()) -> ! {
    let at = |address: u64| {
        NonNull::new(with_exposed_provenance_mut::<u64>(address as usize)).expect("not zero")
    };
    // SAFETY: a guest's entry calls this once; the host has mapped all of it, with rings of these
    // sizes, for ever.
    let (boot, ground) = unsafe {
        let boot = Boot::get();
        let control = MappedControl::new(at(layout::CONTROL).cast());
        let submissions = MappedSlots::new(at(layout::SUBMISSIONS), boot.submissions);
        let completions = MappedSlots::new(at(layout::COMPLETIONS), boot.completions);
        let ground = Ground {
            control,
            submissions: SubmissionProducer::new(control, submissions, SUBMISSION),
            completions: CompletionConsumer::new(control, completions, COMPLETION),
            said: String::new(),
        };
        (boot, ground)
    };
    HEAP.set((boot.heap.start as usize, boot.heap.end() as usize));
    *GROUND.0.borrow_mut() = Some(ground);
    begin_trace();
    rung();
    print();
    trace(What::Doorbell { port: port::EXIT });
    // SAFETY: this is a guest.
    unsafe { port::ring(port::EXIT) };
    unreachable!("nothing returns from EXIT")
}

/// Writes down for the trace what happens now. Costs a load and a branch if nobody watches.
pub fn trace(what: What) {
    own_trace().write(what);
}

/// Lets this processor write to the trace, if somebody watches. To be called once on each.
pub fn begin_trace() {
    // SAFETY: this is a guest, and the first and only value on this processor.
    *own_trace() = unsafe { Trace::of_guest(Boot::get()) };
}

/// That of this processor.
fn own_trace() -> RefMut<'static, Trace> {
    TRACES[processor() as usize].0.borrow_mut()
}

/// Gives a task a name, for the trace.
pub fn spawned(task: u32, by: u32, name: &str) {
    own_trace().spawned(task, by, name);
}

/// For the trace: a poll of a task begins.
pub fn poll_begins(task: u32) {
    trace(What::PollBegin { task });
}

/// For the trace: it ends, and if the task is not ready, then this is what it waits for.
pub fn poll_ends(task: u32, ready: bool, waits_for: Option<Reason>) {
    let (on, more) = (waits_for.filter(|_| !ready), 0);
    trace(What::PollEnd {
        task,
        ready,
        on,
        more,
    });
    if ready {
        let aborted = false;
        trace(What::Ended { task, aborted });
    }
}

/// For the trace: a waker was cloned, to be left with whoever calls it.
pub fn cloned(task: u32) {
    trace(What::Cloned { task, by: task });
}

/// For the trace: a waker was called.
pub fn woken(task: u32, by: Reason, queued: bool) {
    let consumed = true;
    trace(What::Woken {
        task,
        by,
        queued,
        consumed,
    });
}

/// What an operation is known by: a slot of the rung's own, and the how manieth it is in there.
#[must_use]
pub const fn token(slot: u32, generation: u32) -> Token {
    Token { slot, generation }
}

/// Puts an operation into the submission ring. The host is not told: it looks there whenever the guest
/// leaves.
pub fn submit(operation: impl Operation, token: Token, task: u32) {
    let submission = operation.submission(token);
    trace(What::Submitted {
        token,
        opcode: submission.opcode,
        bytes: 0,
        by: task,
    });
    let mut ground = ground();
    let has_room = ground.submissions.push(submission);
    assert!(has_room == Ok(true), "the submission ring is full");
    ground.submissions.publish();
}

/// The next completion, if there is one.
pub fn completion() -> Option<Completion> {
    let mut ground = ground();
    let next = ground.completions.pop().expect("a host does not lie");
    ground.completions.release();
    next
}

/// Rings a doorbell: the host looks at the submission ring, and lets the guest go on.
pub fn ask() {
    trace(What::Doorbell { port: port::SUBMIT });
    // SAFETY: this is a guest.
    unsafe { port::ring(port::SUBMIT) };
}

/// Leaves until a completion has come. The argument that none is missed stands in `wakebox_abi::wake`.
pub fn leave() {
    trace(What::Sleeps { how: Idle::Out });
    let (control, taken) = position();
    if wake::guest_may_sleep(&control, Sleep::Out, taken) {
        trace(What::Doorbell { port: port::WAIT });
        // SAFETY: this is a guest, and it has announced its sleep.
        unsafe { port::ring(port::WAIT) };
        wake::guest_is_awake(&control);
    }
    trace(What::Awake { by: Roused::Out });
}

/// Halts the processor until an interrupt tells of a completion.
pub fn halt() {
    trace(What::Sleeps { how: Idle::Halt });
    let (control, taken) = position();
    if wake::guest_may_sleep(&control, Sleep::Halt, taken) {
        // SAFETY: this is a guest, and it has announced its sleep.
        unsafe { port::halt(taken) };
        wake::guest_is_awake(&control);
    }
    trace(What::Awake {
        by: Roused::Interrupt,
    });
}

/// Interrupts taken since the start.
pub fn interrupts() -> u32 {
    let (control, _) = position();
    control.load(Word::Interrupts, Ordering::Relaxed)
}

fn position() -> (MappedControl, u32) {
    let ground = ground();
    (ground.control, ground.completions.taken())
}

/// The number of the processor that runs this.
pub fn processor() -> u32 {
    control_at(layout::CONTROL).load(Word::Processor, Ordering::Relaxed)
}

/// Has another processor begin there, with a stack of its own and nothing on it.
pub fn start(processor: u32, entry: extern "C" fn() -> !) {
    let there = control_at(layout::control_of(processor));
    let entry = entry as usize as u64;
    there.store(Word::StartEntry, entry as u32, Ordering::Relaxed);
    there.store(
        Word::StartEntryHigh,
        (entry >> 32) as u32,
        Ordering::Relaxed,
    );
    ring_for(processor, port::START);
}

/// Tells another processor that something was left for it. That costs an exit only if it sleeps.
pub fn call(processor: u32) {
    if wake::post(&control_at(layout::control_of(processor))) {
        ring_for(processor, port::NUDGE);
    }
}

/// How often this processor was called.
pub fn called() -> u32 {
    wake::posts(&control_at(layout::CONTROL))
}

/// Leaves until another processor calls, unless one has since it was called so often. Nothing of this
/// processor's is in flight.
pub fn leave_unless_called(calls: u32) {
    let control = control_at(layout::CONTROL);
    let seen = control.load(Word::CompletionTail, Ordering::Relaxed);
    trace(What::Sleeps { how: Idle::Out });
    if wake::guest_may_sleep_after(&control, Sleep::Out, seen, calls) {
        trace(What::Doorbell { port: port::WAIT });
        // SAFETY: this is a guest, and it has announced its sleep.
        unsafe { port::ring(port::WAIT) };
        wake::guest_is_awake(&control);
    }
    trace(What::Awake { by: Roused::Out });
}

fn ring_for(processor: u32, port: u16) {
    control_at(layout::CONTROL).store(Word::Target, processor, Ordering::Relaxed);
    trace(What::Doorbell { port });
    // SAFETY: this is a guest, and it waits for nothing.
    unsafe { port::ring(port) };
}

/// The own control page, or that of any processor if there are several.
fn control_at(page: u64) -> MappedControl {
    let page = NonNull::new(with_exposed_provenance_mut(page as usize)).expect("not zero");
    // SAFETY: the host has mapped the page, for ever.
    unsafe { MappedControl::new(page) }
}

/// Where an upcall finds what it has interrupted.
pub const INTERRUPTED: i32 = layout::CONTROL as i32 + Word::UpcallReturn.offset() as i32;

/// Takes what there is, and from then on lets interrupts go on at `entry`, with upcalls masked: again if
/// another has come meanwhile. The argument stands in `wakebox_abi::upcall`.
pub fn take_and_lift(entry: usize, mut take: impl FnMut()) {
    let (control, _) = position();
    upcall::take_and_lift(&control, entry as u32, |_| take());
}

/// Lets interrupts return to what they interrupt.
pub fn mask() {
    let (control, _) = position();
    upcall::mask(&control);
}

/// Nanoseconds since the sandbox was made.
pub fn now_ns() -> u64 {
    // SAFETY: this is a guest.
    let moment = unsafe { Clock::get() }.read();
    moment.monotonic_ns + moment.elapsed_ns(wakebox_abi::trace::ticks())
}

/// Keeps the processor busy for so long.
pub fn compute(ns: u64) {
    let until = now_ns() + ns;
    while now_ns() < until {
        core::hint::spin_loop();
    }
}

/// Copies bytes into the I/O arena, where the host can read them.
pub fn put(offset: u32, bytes: &[u8]) -> Buf {
    // SAFETY: nothing else makes references to that part of the arena, and it is mapped.
    unsafe { arena(offset, bytes.len()) }.copy_from_slice(bytes);
    Buf {
        offset,
        len: bytes.len() as u32,
    }
}

/// The bytes that the host has put there.
pub fn get(buf: Buf) -> &'static [u8] {
    // SAFETY: as above; the operation that wrote there is over.
    unsafe { arena(buf.offset, buf.len as usize) }
}

/// Submits an operation and waits for it alone: for what has to be there before a rung begins.
///
/// # Panics
///
/// If it fails, or if another one completes first.
pub fn finish(operation: impl Operation) -> u32 {
    let token = token(0, u32::MAX);
    submit(operation, token, 0);
    loop {
        leave();
        if let Some(done) = completion() {
            assert_eq!(done.token, token, "something else is in flight");
            assert_eq!(done.status, Status::Ok);
            return done.value;
        }
    }
}

/// A listener on a port of the host's choice, and its address as text at offset 0 of the arena.
pub fn listen(backlog: u32) -> (Handle, Buf) {
    let address = put(0, b"127.0.0.1:0");
    let socket = Handle(finish(TcpListen { address, backlog }));
    let (end, into) = (End::Local, put(0, &[0; SocketAddress::SIZE]));
    finish(SocketName { socket, end, into });
    let bytes = get(into).try_into().ok();
    let address = bytes
        .and_then(SocketAddress::from_bytes)
        .expect("an address");
    (socket, put(0, format!("{}", address.0).as_bytes()))
}

/// Two connections, each the other's peer.
pub fn pair() -> (Handle, Handle) {
    let (listener, address) = listen(1);
    let one = finish(TcpConnect { address });
    (
        Handle(one),
        Handle(finish(TcpAccept {
            listener,
            peer: Buf::default(),
        })),
    )
}

/// # Safety
///
/// No other reference to this part is in use, and the host does not write there meanwhile.
unsafe fn arena(offset: u32, len: usize) -> &'static mut [u8] {
    // SAFETY: this is a guest; the caller's promise for the bytes, and the assertion for the range.
    unsafe {
        let range = Boot::get().arena;
        assert!(u64::from(offset) + len as u64 <= range.len);
        let start = with_exposed_provenance_mut::<u8>(range.start as usize + offset as usize);
        core::slice::from_raw_parts_mut(start, len)
    }
}

#[doc(hidden)]
pub fn say(words: core::fmt::Arguments<'_>) {
    let mut ground = ground();
    // A string takes everything.
    let _ = ground.said.write_fmt(words);
    ground.said.push('\n');
}

/// The one operation of the ground: what was said goes to standard output.
fn print() {
    let said = core::mem::take(&mut ground().said);
    let from = put(0, said.as_bytes());
    let stream = Stream::Out;
    finish(WriteConsole { stream, from });
}

/// An allocator that never frees: a rung is short-lived.
struct Bump(Cell<(usize, usize)>);

#[global_allocator]
static HEAP: Local<Bump> = Local(Bump(Cell::new((0, 0))));

impl Local<Bump> {
    fn set(&self, range: (usize, usize)) {
        self.0.0.set(range);
    }
}

// SAFETY: blocks do not overlap, because the start only grows; they lie in the heap.
unsafe impl GlobalAlloc for Local<Bump> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (start, end) = self.0.0.get();
        let block = start.next_multiple_of(layout.align());
        match block.checked_add(layout.size()) {
            Some(next) if next <= end => {
                self.set((next, end));
                with_exposed_provenance_mut(block)
            }
            _ => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // SAFETY: the page is mapped for ever, and nothing else uses it any more.
    let page =
        unsafe { &mut *with_exposed_provenance_mut::<[u8; report::SIZE]>(layout::REPORT as usize) };
    let mut writer = report::Writer::new(page);
    if let Some(location) = info.location() {
        writer.location(location.file(), location.line(), location.column());
    }
    let _ = write!(writer, "{}", info.message());
    // SAFETY: this is a guest.
    unsafe { port::ring(port::ABORT) };
    loop {
        core::hint::spin_loop();
    }
}
