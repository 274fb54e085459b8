//! A guest that can be watched.

use core::cell::{Cell, UnsafeCell};
use core::fmt::Write;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};

use wakebox_abi::boot::{Boot, Instance};
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::task::short_name;
use wakebox_abi::trace::{TEXT_MAX, Text, Trace};

use super::{Reason, What};
#[cfg(feature = "processors")]
use crate::machine;
use crate::mask;
use crate::runtime::runtime;

/// Whether somebody watches. Written by the entry, and when the guest was restored.
static ON: AtomicBool = AtomicBool::new(false);

/// Those of all processors, of which each has a ring of its own.
static TELLERS: [Teller; TELLER_COUNT] = [const { Teller::new() }; TELLER_COUNT];

#[cfg(feature = "processors")]
const TELLER_COUNT: usize = wakebox_abi::layout::PROCESSORS_MAX as usize;
#[cfg(not(feature = "processors"))]
const TELLER_COUNT: usize = 1;

/// That of this processor. For guests only.
#[inline(always)]
fn teller() -> &'static Teller {
    #[cfg(not(feature = "processors"))]
    return &TELLERS[0];
    #[cfg(feature = "processors")]
    &TELLERS[machine::processor() as usize % TELLER_COUNT]
}

struct Teller {
    trace: UnsafeCell<Trace>,
    /// The task that is being polled; zero between polls.
    current: Cell<u32>,
    /// Why wakers are being called, if it is known.
    why: Cell<Option<Reason>>,
    /// What took the waker of the task that is being polled first,
    on: Cell<Option<Reason>>,
    /// and how many other things did.
    others: Cell<u16>,
    /// Interrupts told of.
    interrupts: Cell<u32>,
}

// SAFETY: reached only when `ON` is set, which only a guest's entry does, and each by one virtual
// processor, and nothing preempts that but upcalls: they are masked while something is written, and leave
// the cells as they found them (`suspend`).
unsafe impl Sync for Teller {}

impl Teller {
    const fn new() -> Self {
        Self {
            trace: UnsafeCell::new(Trace::OFF),
            current: Cell::new(0),
            why: Cell::new(None),
            on: Cell::new(None),
            others: Cell::new(0),
            interrupts: Cell::new(0),
        }
    }

    #[inline]
    fn write(&self, what: What) {
        let _masked = mask::mask();
        // SAFETY: the only reference to the trace, and gone before anything else runs: writing
        // calls nobody.
        unsafe { &mut *self.trace.get() }.write(what);
    }

    fn text(&self, text: Text, words: &str) {
        let _masked = mask::mask();
        // SAFETY: as above.
        unsafe { &mut *self.trace.get() }.text(text, words);
    }
}

/// Begins to tell, if somebody watches.
///
/// # Safety
///
/// The code is the entry of a Wakebox guest whose boot page is `boot`.
pub(crate) unsafe fn start(boot: &Boot) {
    // SAFETY: the caller's promise; the entry runs once.
    let trace = unsafe { Trace::of_guest(boot) };
    let is_on = trace.is_on();
    // SAFETY: nobody has looked at it before `ON` is set.
    unsafe { *teller().trace.get() = trace };
    ON.store(is_on, Ordering::Relaxed);
}

/// Begins to tell, or ceases to, as is wanted of a guest that was restored. Returns whether somebody
/// watches, who knows nothing of what was before.
pub(crate) fn restored(instance: &Instance) -> bool {
    // SAFETY: as in `Teller::write`.
    let trace = unsafe { &mut *teller().trace.get() };
    let slots = instance.trace_records();
    if !trace.is_on() {
        // SAFETY: a host tells the truth, and gives a guest one ring at most. It stays when nobody
        // watches for a while: this is the first that is on.
        *trace = unsafe { Trace::with_slots(slots) };
    }
    ON.store(slots > 0, Ordering::Relaxed);
    slots > 0
}

/// Whether somebody watches: a load, and a branch that is not taken.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Whether the host should take records out before there are many more.
#[inline(always)]
pub(crate) fn is_crowded() -> bool {
    #[cold]
    fn look() -> bool {
        // SAFETY: as in `Teller::write`.
        unsafe { &mut *teller().trace.get() }.is_crowded()
    }
    is_on() && look()
}

/// Tells what happens now. `what` gets the number of the task that is being polled; it owns what it
/// takes along, or that would have to be in memory when nobody watches.
#[inline(always)]
pub(crate) fn write(what: impl FnOnce(u32) -> What) {
    if is_on() {
        #[cold]
        #[inline(never)]
        fn tell(what: impl FnOnce(u32) -> What) {
            teller().write(what(teller().current.get()));
        }
        tell(what);
    }
}

fn named(name: Option<&str>, type_name: &str) {
    let mut words = Words::new();
    // What is too long is cut off.
    let _ = match name {
        Some(name) => words.write_str(name),
        None => short_name(type_name, &mut words),
    };
    teller().text(Text::Name, words.as_str());
}

/// Tells of a task that was made when nobody watched.
#[cold]
pub(crate) fn lives(task: u32, name: Option<&str>, type_name: &str) {
    // A text and what it belongs to come one after the other.
    let _masked = mask::mask();
    named(name, type_name);
    teller().write(What::Lives { task });
}

/// The task that is being polled; zero if none is, or if nobody watches.
#[inline(always)]
pub(crate) fn current() -> u32 {
    match is_on() {
        true => teller().current.get(),
        false => 0,
    }
}

/// Tells of a task that was made by another; zero for the runtime.
#[cold]
pub(crate) fn spawned(
    task: u32,
    by: u32,
    name: Option<&str>,
    type_name: &str,
    location: &Location<'_>,
) {
    let _masked = mask::mask();
    named(name, type_name);
    // What no task has made is the runtime's, and its location says nothing.
    if by != 0 {
        let mut words = Words::new();
        let _ = write!(words, "{location}");
        teller().text(Text::Location, words.as_str());
    }
    teller().write(What::Spawned { task, by });
}

/// Tells of a poll that begins.
#[cold]
pub(crate) fn poll_begin(task: u32) {
    take_interrupts();
    teller().current.set(task);
    teller().on.set(None);
    teller().others.set(0);
    teller().write(What::PollBegin { task });
}

/// Tells of a poll that ends.
#[cold]
pub(crate) fn poll_end(task: u32, ready: bool) {
    teller().write(What::PollEnd {
        task,
        ready,
        on: teller().on.take(),
        more: teller().others.get(),
    });
    teller().current.set(0);
}

/// Tells of a waker that was called.
#[cold]
pub(crate) fn woken(task: u32, queued: bool, consumed: bool) {
    let by = match (teller().why.get(), teller().current.get()) {
        (Some(why), _) => why,
        (None, 0) => Reason::Unknown,
        (None, by) => Reason::Task(by),
    };
    teller().write(What::Woken {
        task,
        by,
        queued,
        consumed,
    });
}

/// Does something that may call wakers, for a reason.
#[inline(always)]
pub(crate) fn because<T>(why: Reason, act: impl FnOnce() -> T) -> T {
    #[cold]
    #[inline(never)]
    fn tell<T>(why: Reason, act: impl FnOnce() -> T) -> T {
        take_interrupts();
        let before = teller().why.replace(Some(why));
        let result = act();
        teller().why.set(before);
        result
    }
    match is_on() {
        false => act(),
        true => tell(why, act),
    }
}

/// Notes what the task that is being polled will wait for.
#[inline(always)]
pub(crate) fn waits_for(what: impl FnOnce() -> Reason) {
    if is_on() {
        #[cold]
        #[inline(never)]
        fn note(what: impl FnOnce() -> Reason) {
            let what = what();
            if teller().on.get().is_none() {
                teller().on.set(Some(what));
            } else {
                teller().others.set(teller().others.get().saturating_add(1));
            }
        }
        note(what);
    }
}

/// Tells of interrupts that were taken since the last time. What they may have brought is told
/// after this: wakes for a reason, and polls.
#[inline(always)]
pub(crate) fn interrupts() {
    if is_on() {
        take_interrupts();
    }
}

#[cold]
fn take_interrupts() {
    let count = runtime().control.load(Word::Interrupts, Ordering::Relaxed);
    if teller().interrupts.replace(count) != count {
        teller().write(What::Interrupted { count });
    }
}

/// What was told of when an upcall came, or urgent tasks had their turn.
#[cfg(feature = "interrupt")]
#[derive(Debug)]
pub(crate) struct Suspended {
    current: u32,
    why: Option<Reason>,
    on: Option<Reason>,
    others: u16,
}

/// Tells that urgent tasks have their turn. What is told of is theirs until that is [over](resume).
#[cfg(feature = "interrupt")]
pub(crate) fn suspend(interrupted: bool) -> Option<Suspended> {
    is_on().then(|| {
        let task = teller().current.take();
        teller().write(What::UpcallBegin { task, interrupted });
        Suspended {
            current: task,
            why: teller().why.take(),
            on: teller().on.take(),
            others: teller().others.take(),
        }
    })
}

/// Tells that it is over.
#[cfg(feature = "interrupt")]
pub(crate) fn resume(suspended: Option<Suspended>) {
    if let Some(suspended) = suspended {
        let task = suspended.current;
        teller().write(What::UpcallEnd { task });
        teller().current.set(task);
        teller().why.set(suspended.why);
        teller().on.set(suspended.on);
        teller().others.set(suspended.others);
    }
}

/// Text of bounded length.
struct Words {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Words {
    const fn new() -> Self {
        Self {
            bytes: [0; TEXT_MAX],
            len: 0,
        }
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let len = text.floor_char_boundary(TEXT_MAX - self.len);
        self.bytes[self.len..][..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len < text.len() {
            return Err(core::fmt::Error);
        }
        Ok(())
    }
}
