//! A guest that may have urgent tasks.
//!
//! Code runs at a *level*: 0 is that of ordinary tasks, each priority has its own above. Between the
//! polls of urgent tasks there is the runtime itself, on behalf of whatever was interrupted, which is
//! at home in the executors above that level, and nowhere else.

use core::marker::PhantomData;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use wakebox_abi::layout;
use wakebox_abi::memory::MappedControl;
use wakebox_abi::upcall;

use crate::executor::Executor;
use crate::interrupt;

/// What runs now: a level, or [`RUNTIME`].
static LEVEL: AtomicU8 = AtomicU8::new(0);
/// What the runtime runs on top of.
static OUTER: AtomicU8 = AtomicU8::new(0);
/// The count of interrupts, as it was noted last: what they told of has been taken, and no urgent task
/// has been woken since. The upcall's own code reads it.
pub(crate) static NOTED: AtomicU32 = AtomicU32::new(0);
/// Tasks of all executors, for the trace.
static TASKS: AtomicU32 = AtomicU32::new(0);

const RUNTIME: u8 = u8::MAX;

/// The control page. Before the entry has begun, and on a host, nobody comes here.
#[inline(always)]
fn control() -> MappedControl {
    let page = with_exposed_provenance_mut(layout::CONTROL as usize);
    // SAFETY: the address is not zero, and in a guest the control page is there for ever.
    unsafe { MappedControl::new(NonNull::new_unchecked(page)) }
}

/// Where upcalls go on.
#[inline(always)]
pub(crate) fn entry() -> u32 {
    interrupt::entry() as u32
}

/// Whether a wake that goes through an inbox is told of when it does: by this processor, which knows why.
pub(crate) const KNOWS_REASON_OF_POST: bool = true;

/// Upcalls are masked, until it is dropped.
#[derive(Debug)]
pub(crate) struct Masked {
    /// What was in the word: zero if this is within another section.
    was: u32,
    /// Not to be dropped at another level.
    level: PhantomData<*const ()>,
}

/// Masks upcalls.
#[inline(always)]
pub(crate) fn mask() -> Masked {
    Masked {
        was: upcall::mask(&control()),
        level: PhantomData,
    }
}

impl Masked {
    /// Leaves them masked; returns whether it is for the caller to [`lift`] the mask.
    #[cfg(all(feature = "critical-section", not(feature = "processors")))]
    #[inline(always)]
    pub(crate) fn keep(self) -> bool {
        core::mem::ManuallyDrop::new(self).was != 0
    }
}

impl Drop for Masked {
    #[inline(always)]
    fn drop(&mut self) {
        if self.was != 0 {
            lift();
        }
    }
}

/// Lifts the mask. What has come meanwhile is taken, and urgent tasks above this level are polled.
#[inline(always)]
pub(crate) fn lift() {
    if !upcall::lift(&control(), entry(), NOTED.load(Ordering::Relaxed)) {
        take_and_lift();
    }
}

#[cold]
#[inline(never)]
fn take_and_lift() {
    upcall::take_and_lift(&control(), entry(), |count| {
        NOTED.store(count, Ordering::Relaxed);
        interrupt::serve(false);
    });
}

/// Notes the count: all that interrupts have told of by now is about to be taken.
pub(crate) fn note() {
    NOTED.store(upcall::count(&control()), Ordering::Relaxed);
}

/// Begins to let upcalls come.
pub(crate) fn begin() {
    interrupt::prepare();
    lift();
}

/// Lets no more of them come, and drops what urgent tasks there are.
pub(crate) fn end() {
    core::mem::forget(mask());
    interrupt::abort_all();
}

/// Whether this is the home of the executor of a level.
#[inline(always)]
pub(crate) fn is_home(level: u8) -> Option<bool> {
    let here = LEVEL.load(Ordering::Relaxed);
    Some(here == level || here == RUNTIME && level > OUTER.load(Ordering::Relaxed))
}

/// Whether this is the home of some executor: the level, if it is.
#[inline(always)]
pub(crate) fn current() -> Option<u8> {
    let here = LEVEL.load(Ordering::Relaxed);
    (here != RUNTIME).then_some(here)
}

/// Whether what was noted is still all that there is, for those who look before they sleep.
pub(crate) fn is_known() -> bool {
    upcall::count(&control()) == NOTED.load(Ordering::Relaxed)
}

/// Something for the executor of this level lies where it can be taken by its next turn. If that is
/// above this level, it has its turn as soon as upcalls are not masked, which may be now.
#[inline]
pub(crate) fn woken(level: u8) {
    let here = LEVEL.load(Ordering::Relaxed);
    if here != RUNTIME && level > here {
        let _masked = mask();
        // As if an interrupt had come.
        NOTED.store(upcall::count(&control()).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// The number of the next task.
#[inline(always)]
pub(crate) fn number(_spawned: u64) -> u32 {
    TASKS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The executors of urgent tasks.
pub(crate) fn urgent_executors() -> &'static [Executor] {
    interrupt::executors()
}

/// What the runtime was put on top of, for when it is done.
#[derive(Debug)]
pub(crate) struct Outer {
    /// The level of what was interrupted.
    pub(crate) level: u8,
    outer: u8,
}

/// The runtime runs, on behalf of this level. Upcalls are masked.
pub(crate) fn set_runtime() -> Outer {
    let level = LEVEL.load(Ordering::Relaxed);
    let outer = OUTER.load(Ordering::Relaxed);
    LEVEL.store(RUNTIME, Ordering::Relaxed);
    OUTER.store(level, Ordering::Relaxed);
    Outer { level, outer }
}

impl Outer {
    /// What was interrupted goes on.
    pub(crate) fn restore(self) {
        LEVEL.store(self.level, Ordering::Relaxed);
        OUTER.store(self.outer, Ordering::Relaxed);
    }
}

/// Runs the executor of a level. Upcalls are masked before and after; meanwhile they come, if there is a
/// level above.
pub(crate) fn set_home<T>(level: u8, highest: u8, run: impl FnOnce() -> T) -> T {
    LEVEL.store(level, Ordering::Relaxed);
    if level < highest {
        lift();
    }
    let result = run();
    core::mem::forget(mask());
    LEVEL.store(RUNTIME, Ordering::Relaxed);
    result
}

/// Upcalls since the start.
pub(crate) fn upcalls() -> u64 {
    interrupt::UPCALLS.load(Ordering::Relaxed)
}
