//! The waker of a task: two words, of which one is the task.

use core::task::{RawWaker, RawWakerVTable, Waker};

use super::task::TaskRef;
use crate::trace::{self, What};

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

/// A waker of a task. It owns a reference that the caller provides, or is kept from
/// being dropped.
#[inline(always)]
pub(super) fn of(task: TaskRef) -> Waker {
    // SAFETY: the functions below uphold the contract of `RawWaker`: they are callable
    // from anywhere, and a clone holds a reference of its own.
    unsafe { Waker::new(task.as_ptr(), &VTABLE) }
}

/// # Safety
///
/// `data` is that of a waker.
unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    trace::write(|by| What::Cloned {
        task: task.number(),
        by,
    });
    task.retain();
    RawWaker::new(data, &VTABLE)
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
        task.wake(consumed);
    } else {
        task.post();
    }
}

/// # Safety
///
/// `data` is that of a waker, which ends here.
unsafe fn release(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    trace::write(|by| What::Dropped {
        task: task.number(),
        by,
    });
    task.release();
}
