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
use crate::mask;
use crate::runtime::runtime;

/// Whether somebody watches. Written by the entry, and when the guest was restored.
static ON: AtomicBool = AtomicBool::new(false);

static TELLER: Teller = Teller {
    trace: UnsafeCell::new(Trace::OFF),
    current: Cell::new(0),
    why: Cell::new(None),
    on: Cell::new(None),
    others: Cell::new(0),
    interrupts: Cell::new(0),
};

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

// SAFETY: reached only when `ON` is set, which only a guest's entry does. A guest has one virtual
// processor, and nothing preempts it but upcalls: they are masked while something is written, and leave
// the cells as they found them (`suspend`).
unsafe impl Sync for Teller {}

impl Teller {
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
    unsafe { *TELLER.trace.get() = trace };
    ON.store(is_on, Ordering::Relaxed);
}

/// Begins to tell, or ceases to, as is wanted of a guest that was restored. Returns whether somebody
/// watches, who knows nothing of what was before.
pub(crate) fn restored(instance: &Instance) -> bool {
    // SAFETY: as in `Teller::write`.
    let trace = unsafe { &mut *TELLER.trace.get() };
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
        unsafe { &mut *TELLER.trace.get() }.is_crowded()
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
            TELLER.write(what(TELLER.current.get()));
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
    TELLER.text(Text::Name, words.as_str());
}

/// Tells of a task that was made when nobody watched.
#[cold]
pub(crate) fn lives(task: u32, name: Option<&str>, type_name: &str) {
    // A text and what it belongs to come one after the other.
    let _masked = mask::mask();
    named(name, type_name);
    TELLER.write(What::Lives { task });
}

/// Tells of a task that was made.
#[cold]
pub(crate) fn spawned(task: u32, name: Option<&str>, type_name: &str, location: &Location<'_>) {
    let _masked = mask::mask();
    named(name, type_name);
    let by = TELLER.current.get();
    // What no task has made is the runtime's, and its location says nothing.
    if by != 0 {
        let mut words = Words::new();
        let _ = write!(words, "{location}");
        TELLER.text(Text::Location, words.as_str());
    }
    TELLER.write(What::Spawned { task, by });
}

/// Tells of a poll that begins.
#[cold]
pub(crate) fn poll_begin(task: u32) {
    take_interrupts();
    TELLER.current.set(task);
    TELLER.on.set(None);
    TELLER.others.set(0);
    TELLER.write(What::PollBegin { task });
}

/// Tells of a poll that ends.
#[cold]
pub(crate) fn poll_end(task: u32, ready: bool) {
    TELLER.write(What::PollEnd {
        task,
        ready,
        on: TELLER.on.take(),
        more: TELLER.others.get(),
    });
    TELLER.current.set(0);
}

/// Tells of a waker that was called.
#[cold]
pub(crate) fn woken(task: u32, queued: bool, consumed: bool) {
    let by = match (TELLER.why.get(), TELLER.current.get()) {
        (Some(why), _) => why,
        (None, 0) => Reason::Unknown,
        (None, by) => Reason::Task(by),
    };
    TELLER.write(What::Woken {
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
        let before = TELLER.why.replace(Some(why));
        let result = act();
        TELLER.why.set(before);
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
            if TELLER.on.get().is_none() {
                TELLER.on.set(Some(what));
            } else {
                TELLER.others.set(TELLER.others.get().saturating_add(1));
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
    if TELLER.interrupts.replace(count) != count {
        TELLER.write(What::Interrupted { count });
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
        let task = TELLER.current.take();
        TELLER.write(What::UpcallBegin { task, interrupted });
        Suspended {
            current: task,
            why: TELLER.why.take(),
            on: TELLER.on.take(),
            others: TELLER.others.take(),
        }
    })
}

/// Tells that it is over.
#[cfg(feature = "interrupt")]
pub(crate) fn resume(suspended: Option<Suspended>) {
    if let Some(suspended) = suspended {
        let task = suspended.current;
        TELLER.write(What::UpcallEnd { task });
        TELLER.current.set(task);
        TELLER.why.set(suspended.why);
        TELLER.on.set(suspended.on);
        TELLER.others.set(suspended.others);
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
