//! A task that any processor may run.
//!
//! ```text
//!          spawn
//!            |
//!            v          popped (1)
//!   .---> QUEUED ---------------------> RUNNING ---- Pending (2) ----> (no bit): it waits
//!   |        ^                           |   |                              |
//!   |        '--- Pending, woken (3) ----'   | Ready, or aborted (4)        |
//!   |                                        v                              |
//!   '------------------ woken (5) --------- DONE                            |
//!   '------------------ woken (5) ------------------------------------------'
//! ```
//!
//! The bits of one word say all of it, and each step is one instruction on that word: whoever gets QUEUED set
//! while neither QUEUED, RUNNING nor DONE was, puts the task into a queue, with a reference; whoever has set RUNNING has the
//! future for himself; whoever sets DONE has written the output, which from then on is the handle's, or, where DETACHED was set
//! before, is dropped there and then ([`Joint`]).

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::panic::Location;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use super::{pool, waker};
use crate::joint::{ABORTED, DONE, JoinHandle, Joinable, Joint};
use crate::lock::Locked;
use crate::told::{Tasks, Told};
use crate::trace::{self, Reason, What};

/// It is in a queue, or will be when its poll ends.
const QUEUED: u32 = 1 << 0;
/// Somebody polls it.
const RUNNING: u32 = 1 << 1;
/// The part of a task that does not depend on the future's type.
#[repr(C)]
pub(crate) struct Header {
    /// What the host reads of it: its place in the list under the lock of the register, what it waits for by whoever has set
    /// RUNNING.
    told: Told,
    vtable: &'static VTable,
    /// The processor in whose register it is.
    register: u32,
}

const _: () = assert!(
    core::mem::offset_of!(Header, told) == 0,
    "what is in a list of tasks begins with what it tells"
);

/// The part of the code that depends on the future's type.
struct VTable {
    run: unsafe fn(NonNull<Header>),
    end: unsafe fn(NonNull<Header>),
}

impl Header {
    pub(crate) const fn told(&self) -> &Told {
        &self.told
    }

    pub(crate) fn name(&self) -> &'static str {
        self.told.type_name().unwrap_or_default()
    }
}

/// Tasks that a processor has made and that have not ended, each with a reference.
pub(crate) type Register = Locked<Tasks>;

#[repr(C)]
pub(super) struct Task<F: Future> {
    header: Header,
    joint: Joint<F::Output>,
    /// Of whoever has set RUNNING.
    future: UnsafeCell<ManuallyDrop<F>>,
}

// SAFETY: the future is used by whoever has set RUNNING, one at a time, and may move between processors; the header as it
// says.
unsafe impl<F: Future + Send> Sync for Task<F> where F::Output: Send {}
// SAFETY: as above.
unsafe impl<F: Future + Send> Send for Task<F> where F::Output: Send {}

impl<F> Task<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    const VTABLE: VTable = VTable {
        run: Self::run,
        end: Self::end,
    };

    /// Into a queue. QUEUED is set, and this is the one who has set it.
    fn enqueue(self: Arc<Self>) -> NonNull<Header> {
        // SAFETY: a pointer into an allocation is not null.
        unsafe { NonNull::new_unchecked(Arc::into_raw(self).cast_mut().cast()) }
    }

    /// (5): whether the caller has to put it into a queue.
    fn wakes(&self, bits: u32, consumed: bool) -> bool {
        if trace::is_on() {
            return self.wakes_and_tells(bits, consumed);
        }
        // Release: what the waker's caller wrote is visible to the poll, through the Acquire in (1).
        let before = self.joint.state.fetch_or(QUEUED | bits, Ordering::AcqRel);
        before & (QUEUED | RUNNING | DONE) == 0
    }

    /// The same, and the trace is told before: what a wake does may be seen on another processor at once.
    #[cold]
    fn wakes_and_tells(&self, bits: u32, consumed: bool) -> bool {
        let state = &self.joint.state;
        let mut before = state.load(Ordering::Relaxed);
        let mut told = None;
        loop {
            let queued = before & (QUEUED | DONE) == 0;
            if told != Some(queued) {
                // If the state changes meanwhile, it may be told of twice. The waker is used up once.
                trace::woken(self.number(), queued, consumed && told.is_none());
                told = Some(queued);
            }
            // As above.
            let (order, new) = (Ordering::AcqRel, before | QUEUED | bits);
            match state.compare_exchange(before, new, order, Ordering::Relaxed) {
                Ok(_) => return before & (QUEUED | RUNNING | DONE) == 0,
                Err(now) => before = now,
            }
        }
    }

    pub(super) const fn number(&self) -> u32 {
        self.header.told.number()
    }

    /// A waker of it was called, and is used up.
    pub(super) fn wake(self: Arc<Self>) {
        if self.wakes(0, true) {
            pool::push(self.enqueue());
        }
    }

    /// A waker of it was called.
    pub(super) fn wake_by_ref(self: &Arc<Self>) {
        if self.wakes(0, false) {
            pool::push(self.clone().enqueue());
        }
    }

    /// # Safety
    ///
    /// The header is that of a `Task<F>` that came out of a queue, with its reference.
    unsafe fn run(header: NonNull<Header>) {
        // SAFETY: the caller's promise.
        let task = unsafe { Arc::from_raw(header.cast::<Self>().as_ptr()) };
        // (1): QUEUED is set and RUNNING is not.
        let state = &task.joint.state;
        let before = state.fetch_add(RUNNING - QUEUED, Ordering::AcqRel);
        // SAFETY: RUNNING was set here, and DONE is not set, or nobody would have queued it.
        let future = unsafe { &mut *task.future.get() };
        let output = if before & ABORTED != 0 || pool::is_over() {
            None
        } else {
            let told = trace::is_on();
            // The waker is lent: it has the reference of `task`.
            // SAFETY: as for `task`, and it is never dropped.
            let waker = ManuallyDrop::new(unsafe { waker::of::<F>(header.cast(), told) });
            // SAFETY: a task never moves.
            let pinned = unsafe { Pin::new_unchecked(&mut **future) };
            if told {
                trace::poll_begin(task.number());
            }
            task.header.told.poll_begins();
            let polled = pinned.poll(&mut Context::from_waker(&waker));
            task.header.told.poll_ends();
            if told {
                trace::poll_end(task.number(), polled.is_ready());
            }
            match polled {
                Poll::Ready(output) => Some(output),
                Poll::Pending => {
                    // (2). Release: what the poll did is seen by the next.
                    if state.fetch_sub(RUNNING, Ordering::AcqRel) & QUEUED != 0 {
                        // (3)
                        pool::push_again(task.enqueue());
                    }
                    return;
                }
            }
        };
        let (number, aborted) = (task.number(), output.is_none());
        // SAFETY: RUNNING is set, and DONE follows: nobody uses the future any more.
        unsafe { ManuallyDrop::drop(future) };
        let register = pool::register(task.header.register);
        // SAFETY: it is there, and in no other list.
        if unsafe { register.borrow_mut().remove(header.cast()) } {
            // SAFETY: it was in the register with a reference.
            drop(unsafe { Arc::from_raw(header.cast::<Self>().as_ptr()) });
        }
        trace::write(move |_| What::Ended {
            task: number,
            aborted,
        });
        trace::because(Reason::Task(number), || {
            task.joint.complete(output, RUNNING);
        });
    }
}

impl<F> Task<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// # Safety
    ///
    /// The header is that of a `Task<F>` that was in a register, with its reference.
    unsafe fn end(header: NonNull<Header>) {
        // SAFETY: the caller's promise.
        let task = unsafe { Arc::from_raw(header.cast::<Self>().as_ptr()) };
        let before = task.joint.state.fetch_or(QUEUED, Ordering::AcqRel);
        if before & (QUEUED | RUNNING | DONE) == 0 {
            // SAFETY: QUEUED was set here, so that it is as if it came out of a queue.
            unsafe { Self::run(task.enqueue()) };
        }
    }
}

impl<F> Joinable<F::Output> for Task<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn joint(&self) -> &Joint<F::Output> {
        &self.joint
    }

    fn number(&self) -> Option<u32> {
        Some(Self::number(self))
    }

    fn abort(self: Arc<Self>) {
        if self.wakes(ABORTED, false) {
            pool::push(self.enqueue());
        }
    }
}

impl<F: Future> Drop for Task<F> {
    fn drop(&mut self) {
        if *self.joint.state.get_mut() & DONE == 0 {
            // SAFETY: without DONE the future is there, and nobody else is.
            unsafe { ManuallyDrop::drop(self.future.get_mut()) };
        }
    }
}

/// Makes a task of a future, in the register of this processor: it counts as queued, and the caller puts it into a
/// queue.
pub(super) fn allocate<F>(
    number: u32,
    place: &'static Location<'static>,
    (processor, register): (u32, &Register),
    future: F,
) -> (NonNull<Header>, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let task = Arc::new(Task {
        header: Header {
            told: Told::new(number, None, core::any::type_name::<F>(), Some(place)),
            vtable: const { &Task::<F>::VTABLE },
            register: processor,
        },
        joint: Joint::new(QUEUED),
        future: UnsafeCell::new(ManuallyDrop::new(future)),
    });
    let listed = task.clone().enqueue();
    // SAFETY: it is new, and has a reference until it is removed.
    unsafe { register.borrow_mut().add(listed.cast()) };
    (task.clone().enqueue(), JoinHandle(task))
}

/// Takes the oldest task out of a register, with its reference.
pub(super) fn take_first(register: &Register) -> Option<NonNull<Header>> {
    let tasks = register.borrow_mut();
    let first = tasks.first()?;
    // SAFETY: it is in the list, so that it is there.
    unsafe { tasks.remove(first) };
    Some(first.cast())
}

/// Tells of all tasks of a register whoever watches from now on.
pub(crate) fn tell_of_tasks(register: &Register) {
    for task in register.borrow().iter() {
        // SAFETY: it is in the list, so that it is there, and what is in a register is a task's header.
        let header = unsafe { task.cast::<Header>().as_ref() };
        trace::lives(header.told.number(), None, header.name());
    }
}

/// Polls a task that came out of a queue, with its reference.
pub(super) fn run(task: NonNull<Header>) {
    // SAFETY: it came out of a queue, where it was with a reference, and `run` is that of its type.
    unsafe { (task.as_ref().vtable.run)(task) }
}

/// Drops the future of a task that was taken out of a register, with its reference; unless it is in a queue, out of which
/// whoever takes it does that, or is being polled.
pub(super) fn end(task: NonNull<Header>) {
    // SAFETY: it was in a register with a reference, and `end` is that of its type.
    unsafe { (task.as_ref().vtable.end)(task) }
}
