//! The waker of a task: two words, of which one is the task.

use core::task::{RawWaker, RawWakerVTable, Waker};

use super::task::TaskRef;
use crate::trace::{self, What};

/// What wakers do. Those that are TOLD of tell the trace of their clones and of their end; the others
/// were made when nobody watched, and need not ask. All ask when they wake: somebody may watch a guest
/// that was restored who did not before, or the other way round.
const fn vtable<const TOLD: bool>() -> &'static RawWakerVTable {
    const { &RawWakerVTable::new(clone::<TOLD>, wake, wake_by_ref, release::<TOLD>) }
}

/// A waker of a task, of which the trace is told or not. It owns a reference that the caller
/// provides, or is kept from being dropped.
#[inline(always)]
pub(super) fn of(task: TaskRef, told: bool) -> Waker {
    let vtable = if told {
        vtable::<true>()
    } else {
        vtable::<false>()
    };
    // SAFETY: the functions below uphold the contract of `RawWaker`: they are callable
    // from anywhere, and a clone holds a reference of its own.
    unsafe { Waker::new(task.as_ptr(), vtable) }
}

/// # Safety
///
/// `data` is that of a waker.
unsafe fn clone<const TOLD: bool>(data: *const ()) -> RawWaker {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    if TOLD {
        trace::write(move |by| What::Cloned {
            task: task.number(),
            by,
        });
    }
    task.retain();
    RawWaker::new(data, vtable::<TOLD>())
}

/// # Safety
///
/// `data` is that of a waker, which ends here.
unsafe fn wake(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    queue(task, true);
    task.release();
}

/// # Safety
///
/// `data` is that of a waker.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    queue(unsafe { TaskRef::from_ptr(data) }, false);
}

#[inline(always)]
fn queue(task: TaskRef, consumed: bool) {
    if task.executor().home.is_here() {
        task.wake(consumed, trace::is_on());
    } else {
        task.post(consumed);
    }
}

/// # Safety
///
/// `data` is that of a waker, which ends here.
unsafe fn release<const TOLD: bool>(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    if TOLD {
        trace::write(move |by| What::Dropped {
            task: task.number(),
            by,
        });
    }
    task.release();
}
