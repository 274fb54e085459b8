//! The waker of a task that any processor may run: two words, of which one is the task, with a reference.

use alloc::sync::Arc;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::task::{RawWaker, RawWakerVTable, Waker};

use super::task::Task;
use crate::trace::{self, What};

/// What wakers do. Those that are TOLD of tell the trace of their clones and of their end.
const fn vtable<F, const TOLD: bool>() -> &'static RawWakerVTable
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    const {
        &RawWakerVTable::new(
            clone::<F, TOLD>,
            wake::<F>,
            wake_by_ref::<F>,
            release::<F, TOLD>,
        )
    }
}

/// A waker of a task, of which the trace is told or not.
///
/// # Safety
///
/// The task is there, and the waker has a reference of it that the caller provides, or is kept from being dropped.
pub(super) unsafe fn of<F>(task: core::ptr::NonNull<()>, told: bool) -> Waker
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let vtable = match told {
        true => vtable::<F, true>(),
        false => vtable::<F, false>(),
    };
    // SAFETY: the functions below uphold the contract of `RawWaker`: they may be called anywhere, since a task is
    // `Send` and `Sync`, and a clone has a reference of its own.
    unsafe { Waker::new(task.as_ptr(), vtable) }
}

/// # Safety
///
/// `data` is that of a waker of a task of `F`, as for all that follow.
unsafe fn clone<F, const TOLD: bool>(data: *const ()) -> RawWaker
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    // SAFETY: the reference is the waker's, which keeps it.
    let task = ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Task<F>>()) });
    if TOLD {
        let number = task.number();
        trace::write(move |by| What::Cloned { task: number, by });
    }
    let cloned = Arc::clone(&task);
    RawWaker::new(Arc::into_raw(cloned).cast(), vtable::<F, TOLD>())
}

/// # Safety
///
/// The waker ends here.
unsafe fn wake<F>(data: *const ())
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    // SAFETY: the reference is the waker's.
    unsafe { Arc::from_raw(data.cast::<Task<F>>()) }.wake();
}

/// # Safety
///
/// As above.
unsafe fn wake_by_ref<F>(data: *const ())
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    // SAFETY: the reference is the waker's, which keeps it.
    let task = ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Task<F>>()) });
    task.wake_by_ref();
}

/// # Safety
///
/// The waker ends here.
unsafe fn release<F, const TOLD: bool>(data: *const ())
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    // SAFETY: the reference is the waker's.
    let task = unsafe { Arc::from_raw(data.cast::<Task<F>>()) };
    if TOLD {
        let number = task.number();
        trace::write(move |by| What::Dropped { task: number, by });
    }
}
