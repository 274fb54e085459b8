//! Two of the lists that tasks are threaded on: the run queue and the inbox; that of all is [`crate::told`]'s.
//! They are intrusive, so that no wake allocates for them.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::task::TaskRef;

/// A task's links in the lists.
#[derive(Debug)]
pub(super) struct Links {
    /// Behind it in the run queue.
    queued: Cell<Option<TaskRef>>,
    /// Beneath it in the inbox.
    posted: AtomicPtr<()>,
}

impl Links {
    pub(super) const fn new() -> Self {
        Self {
            queued: Cell::new(None),
            posted: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// What is ready to be polled, oldest first. A task is in it at most once: QUEUED says so.
#[derive(Debug)]
pub(super) struct RunQueue {
    first: Cell<Option<TaskRef>>,
    last: Cell<Option<TaskRef>>,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        Self {
            first: Cell::new(None),
            last: Cell::new(None),
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    #[inline(always)]
    pub(super) fn last(&self) -> Option<TaskRef> {
        self.last.get()
    }

    #[inline(always)]
    pub(super) fn push(&self, task: TaskRef) {
        match self.last.replace(Some(task)) {
            Some(last) => last.links().queued.set(Some(task)),
            None => self.first.set(Some(task)),
        }
    }

    #[inline(always)]
    pub(super) fn pop(&self) -> Option<TaskRef> {
        let task = self.first.get()?;
        let next = task.links().queued.take();
        self.first.set(next);
        if next.is_none() {
            self.last.set(None);
        }
        Some(task)
    }
}

/// Tasks woken from elsewhere: a stack that anyone pushes to and home takes whole.
#[derive(Debug)]
pub(super) struct Inbox {
    top: AtomicPtr<()>,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self {
            top: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed).is_null()
    }

    /// Adds a task, of which the caller gives a reference along. The caller is the one
    /// who has set the task's `posted` flag, so it is in no inbox and nobody else pushes it.
    pub(super) fn push(&self, task: TaskRef) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            task.links().posted.store(top, Ordering::Relaxed);
            // Release, with the Acquire in `empty`: the link is written.
            match self.top.compare_exchange_weak(
                top,
                task.as_ptr().cast_mut(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Takes everything out, in the order in which it was pushed, with the references.
    /// Each task may be posted again from the moment that it is returned.
    pub(super) fn empty(&self) -> impl Iterator<Item = TaskRef> + use<> {
        let mut oldest = ptr::null_mut();
        if !self.is_empty() {
            // Acquire, with the Release in `push`: the links are written.
            let mut top = self.top.swap(ptr::null_mut(), Ordering::Acquire);
            while !top.is_null() {
                // SAFETY: what is in the inbox is there with a reference.
                let task = unsafe { TaskRef::from_ptr(top) };
                let beneath = task.links().posted.load(Ordering::Relaxed);
                task.links().posted.store(oldest, Ordering::Relaxed);
                oldest = top;
                top = beneath;
            }
        }
        core::iter::from_fn(move || {
            if oldest.is_null() {
                return None;
            }
            // SAFETY: as above; the reference goes to the caller.
            let task = unsafe { TaskRef::from_ptr(oldest) };
            oldest = task.links().posted.load(Ordering::Relaxed);
            // The link is read: from here on it may be written by the next to post.
            task.unpost();
            Some(task)
        })
    }
}
