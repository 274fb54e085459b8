//! The waker of a task: two words, of which one is the task.

use core::task::{RawWaker, RawWakerVTable, Waker};

use super::task::TaskRef;
use crate::trace::{self, What};

/// What wakers do. Those that are TOLD of tell the trace of themselves; as it is settled before the
/// first poll whether somebody watches, all wakers of a guest are of one kind, and the others need
/// not ask.
const fn vtable<const TOLD: bool>() -> &'static RawWakerVTable {
    const {
        &RawWakerVTable::new(
            clone::<TOLD>,
            wake::<TOLD>,
            wake_by_ref::<TOLD>,
            release::<TOLD>,
        )
    }
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
unsafe fn wake<const TOLD: bool>(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    let task = unsafe { TaskRef::from_ptr(data) };
    queue(task, true, TOLD);
    task.release();
}

/// # Safety
///
/// `data` is that of a waker.
unsafe fn wake_by_ref<const TOLD: bool>(data: *const ()) {
    // SAFETY: a waker's task is there as long as the waker.
    queue(unsafe { TaskRef::from_ptr(data) }, false, TOLD);
}

#[inline(always)]
fn queue(task: TaskRef, consumed: bool, told: bool) {
    if task.executor().home.is_here() {
        task.wake(consumed, told);
    } else {
        task.post();
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
