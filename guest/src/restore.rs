//! Templates: taking one, and finding oneself restored from one.
//!
//! The host replaces the instance page of a sandbox that it restores, and does so only while the guest
//! sleeps. So the runtime compares one word of it after each sleep, before it reads a completion:
//! hooks run first, then tasks are woken.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use slab::Slab;
use wakebox_abi::boot::Instance;
use wakebox_abi::op;
use wakebox_abi::status::Status;

use crate::io::{Error, Result};
use crate::mask::MaskedCell;
use crate::op::Op;
use crate::runtime::runtime;
use crate::trace::{self, Reason};

type Hook = Box<dyn FnMut()>;

/// How often this guest was restored, and who wants to know.
pub(crate) struct Restores {
    /// [`Instance::mark`] as it was seen last.
    mark: Cell<u64>,
    /// Restores seen.
    count: Cell<u64>,
    /// Who waits for the next one.
    waiters: MaskedCell<Slab<Waker>>,
    hooks: MaskedCell<Vec<Hook>>,
}

impl Restores {
    pub(crate) fn new(instance: &Instance) -> Self {
        Self {
            mark: Cell::new(instance.mark()),
            count: Cell::new(0),
            waiters: MaskedCell::new(Slab::new()),
            hooks: MaskedCell::new(Vec::new()),
        }
    }

    /// Runs the hooks and wakes who waits, if the guest was restored since the last look: one load if
    /// it was not.
    #[inline]
    pub(crate) fn look(&self, instance: &Instance) {
        let mark = instance.mark();
        if mark != self.mark.get() {
            self.tell(instance, mark);
        }
    }

    #[cold]
    fn tell(&self, instance: &Instance, mark: u64) {
        self.mark.set(mark);
        if trace::restored(instance) {
            runtime().tell_of_tasks();
        }
        self.count.set(self.count.get() + 1);
        // Those that have waited until now; a hook may begin to wait for the next restore.
        let waiters = self.waiters.take();
        // Hooks and wakers may do anything, so nothing is borrowed meanwhile.
        let mut hooks = self.hooks.take();
        trace::because(Reason::Restored, || {
            hooks.iter_mut().for_each(|hook| hook());
        });
        // Those that a hook has added are for the next restore.
        hooks.append(&mut self.hooks.borrow_mut());
        self.hooks.replace(hooks);
        trace::because(Reason::Restored, || {
            waiters.into_iter().for_each(|(_, waker)| waker.wake());
        });
    }
}

impl fmt::Debug for Restores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restores")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Has a function called whenever this guest was restored from a template, before it reads what the
/// host has done for it and before any task is polled. Hooks are called in the order in which they were
/// given, and stay until the guest ends. They cannot wait; one may spawn a task that does. A panic of
/// one ends the guest.
///
/// # Panics
///
/// Outside of a guest.
pub fn on_restore(hook: impl FnMut() + 'static) {
    runtime().restores.hooks.borrow_mut().push(Box::new(hook));
}

/// Waits until this guest was restored from a template, after all [hooks](on_restore). Restores before
/// the call do not count, those between the call and the first poll do. Cancel-safe.
///
/// The future may be polled again after it was ready, and then waits for the next restore:
///
/// ```ignore
/// let mut restores = restored();
/// loop {
///     (&mut restores).await;
///     connect_again().await;
/// }
/// ```
///
/// # Panics
///
/// Outside of a guest.
pub fn restored() -> Restored {
    Restored {
        seen: runtime().restores.count.get(),
        key: None,
        here: PhantomData,
    }
}

/// The future of [`restored`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Restored {
    /// Restores that it has told of, or that were before it.
    seen: u64,
    /// Its waker among those that wait for a restore after `seen`.
    key: Option<usize>,
    /// Those of one processor.
    here: PhantomData<*const ()>,
}

impl Future for Restored {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let restores = &runtime().restores;
        let count = restores.count.get();
        if self.seen != count {
            // The restore has taken the waker out.
            self.key = None;
            self.seen = count;
            return Poll::Ready(());
        }
        trace::waits_for(Reason::Restored);
        // What a waker does when it is dropped is done after the borrow.
        let _old = {
            let mut waiters = restores.waiters.borrow_mut();
            match self.key {
                Some(key) if waiters[key].will_wake(cx.waker()) => None,
                Some(key) => Some(core::mem::replace(&mut waiters[key], cx.waker().clone())),
                None => {
                    self.key = Some(waiters.insert(cx.waker().clone()));
                    None
                }
            }
        };
        Poll::Pending
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let restores = &runtime().restores;
        if let Some(key) = self.key
            && self.seen == restores.count.get()
        {
            let _waker = restores.waiters.borrow_mut().remove(key);
        }
    }
}

/// On which side of a [`snapshot`] this guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// In the sandbox of which the template was made.
    Continued,
    /// In one that was made of the template, perhaps much later and elsewhere.
    Restored,
}

/// Has the host make a template of this sandbox as soon as all tasks sleep, and says on which side
/// of it this guest is. If the future is dropped before, there may be a template or none.
///
/// # Errors
///
/// `Unsupported` if the host takes no template of this sandbox; other statuses if it could not.
pub async fn snapshot() -> Result<Snapshot> {
    let (outcome, _) = Op::new(op::Snapshot {}).await;
    match outcome {
        Ok(op::CONTINUED) => Ok(Snapshot::Continued),
        Ok(op::RESTORED) => Ok(Snapshot::Restored),
        Ok(_) => Err(Error::new(Status::InvalidData, "snapshot")),
        Err(status) => Err(Error::new(status, "snapshot")),
    }
}
