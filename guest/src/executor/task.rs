//! One task: its memory, its life, and who may touch what.
//!
//! ```text
//!          spawn (1)
//!              |
//!              v            (2) popped
//!   .----> QUEUED ------------------------> POLLED --- Pending (3) ---> WAITING
//!   |        | ^                             |  |                          |
//!   |        | '------- wake (4) ------------|--'                          |
//!   |        |                               |                             |
//!   '--------|------------- wake (4) --------|-----------------------------'
//!            |                               |
//!            | abort seen (6)                | Ready (5)
//!            v                               v
//!        COMPLETED without output        COMPLETED with OUTPUT
//!            |                               |
//!            |                               | taken, or dropped with the handle (7)
//!            v                               v
//!          OVER: no future, no output, no handle, not queued
//!            |
//!            | home lets go (8), then the last waker does (9)
//!            v
//!          freed
//! ```
//!
//! Home means the executor and the join handle together. They share one reference and
//! tell each other through [`Flags`], which are plain cells. Each waker that is not
//! merely lent to `poll` holds another reference; so does the inbox. The
//! count is atomic because wakers travel, and counts memory only: the future and the
//! output are dropped in (5), (6) and (7), at home, and a last waker that is dropped
//! elsewhere frees bytes in which nothing lives any more.

use alloc::alloc::{dealloc, handle_alloc_error};
use alloc::borrow::Cow;
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::future::Future;
use core::mem::ManuallyDrop;
use core::panic::Location;
use core::pin::Pin;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use core::task::{Context, Poll, Waker};

use super::queue::Links;
use super::{Executor, count, waker};
use crate::mask;
use crate::told::Told;
use crate::trace::{self, Reason};

/// What home knows about a task, as bits.
pub(super) struct Flags;

impl Flags {
    /// It is in the run queue.
    pub(super) const QUEUED: u8 = 1 << 0;
    /// Its future is dropped.
    pub(super) const COMPLETED: u8 = 1 << 1;
    /// Somebody asked for its end.
    pub(super) const ABORTED: u8 = 1 << 2;
    /// Its join handle exists.
    pub(super) const JOINED: u8 = 1 << 3;
    /// Its output waits to be taken.
    pub(super) const OUTPUT: u8 = 1 << 4;
}

const _: () = assert!(
    core::mem::offset_of!(Header, told) == 0,
    "what is in a list of tasks begins with what it tells"
);

/// The part of a task that does not depend on the future's type.
#[repr(C)]
pub(super) struct Header {
    /// The name, until (8).
    told: Told,
    // Never changes, read from everywhere.
    executor: &'static Executor,
    vtable: &'static VTable,
    // Changes from everywhere.
    references: AtomicUsize,
    /// Whether the task is in the inbox, or on its way there.
    posted: AtomicBool,
    // Touched at home only.
    flags: Cell<u8>,
    joiner: Cell<Option<Waker>>,
    /// The name given at spawn; dropped in (8).
    name: ManuallyDrop<UnsafeCell<Option<Cow<'static, str>>>>,
    /// Links of the intrusive lists; the inbox's belongs to whoever set `posted`.
    pub(super) links: Links,
}

/// A task as it lies in memory; the header comes first.
#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: Stage<F>,
}

/// The future until COMPLETED, then the output while OUTPUT.
union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<F::Output>,
}

/// The part of the code that depends on the future's type.
struct VTable {
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    drop_future: unsafe fn(NonNull<Header>),
    drop_output: unsafe fn(NonNull<Header>),
    output: unsafe fn(NonNull<Header>) -> NonNull<()>,
    layout: Layout,
}

impl<F: Future + 'static> Task<F> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        drop_future: Self::drop_future,
        drop_output: Self::drop_output,
        output: Self::output,
        layout: Layout::new::<Self>(),
    };

    /// Polls the future; if it is ready, drops it and puts the output in its place.
    ///
    /// # Safety
    ///
    /// The header is that of a `Task<F>` which is not COMPLETED, and this is home.
    unsafe fn poll(header: NonNull<Header>, cx: &mut Context<'_>) -> bool {
        let stage = Self::stage(header);
        // SAFETY: not COMPLETED, so the future is there; only home comes here, and a
        // task is not polled within its own poll. The task never moves.
        let future = unsafe { Pin::new_unchecked(&mut *(*stage).future) };
        match future.poll(cx) {
            Poll::Pending => false,
            Poll::Ready(output) => {
                // SAFETY: as above; the output is written only after the future is dropped.
                unsafe {
                    ManuallyDrop::drop(&mut (*stage).future);
                    (&raw mut (*stage).output).write(ManuallyDrop::new(output));
                }
                true
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Self::poll`]; the task becomes COMPLETED without OUTPUT.
    unsafe fn drop_future(header: NonNull<Header>) {
        // SAFETY: not COMPLETED, so the future is there.
        unsafe { ManuallyDrop::drop(&mut (*Self::stage(header)).future) }
    }

    /// # Safety
    ///
    /// The header is that of a `Task<F>` with OUTPUT, which it loses, and this is home.
    unsafe fn drop_output(header: NonNull<Header>) {
        // SAFETY: the output is there.
        unsafe { ManuallyDrop::drop(&mut (*Self::stage(header)).output) }
    }

    /// Where the output is, as `F::Output`.
    ///
    /// # Safety
    ///
    /// The header is that of a `Task<F>`.
    unsafe fn output(header: NonNull<Header>) -> NonNull<()> {
        // SAFETY: a pointer into a live allocation is not null.
        unsafe { NonNull::new_unchecked(Self::stage(header).cast()) }
    }

    fn stage(header: NonNull<Header>) -> *mut Stage<F> {
        // SAFETY: the callers' promise: the header is the first field of a live `Task<F>`.
        unsafe { &raw mut (*header.cast::<Self>().as_ptr()).stage }
    }
}

/// (1): puts a future into a task of its own. It has a join handle, and counts as queued.
#[inline]
pub(super) fn allocate<F: Future + 'static>(
    executor: &'static Executor,
    number: u32,
    (name, type_name): (Option<Cow<'static, str>>, &'static str),
    place: Option<&'static Location<'static>>,
    future: F,
) -> TaskRef {
    let layout = Layout::new::<Task<F>>();
    // SAFETY: a task has a header, so its size is not zero.
    let memory = unsafe { alloc::alloc::alloc(layout) };
    let Some(task) = NonNull::new(memory.cast::<Task<F>>()) else {
        handle_alloc_error(layout);
    };
    let header = Header {
        told: Told::new(number, name.as_deref(), type_name, place),
        executor,
        vtable: const { &Task::<F>::VTABLE },
        references: AtomicUsize::new(1),
        posted: AtomicBool::new(false),
        flags: Cell::new(Flags::QUEUED | Flags::JOINED),
        joiner: Cell::new(None),
        name: ManuallyDrop::new(UnsafeCell::new(name)),
        links: Links::new(),
    };
    // SAFETY: the memory is new, large and aligned enough. Field by field, so that a
    // large future is not built on the stack first.
    unsafe {
        (&raw mut (*task.as_ptr()).header).write(header);
        (&raw mut (*task.as_ptr()).stage.future).write(ManuallyDrop::new(future));
    }
    TaskRef(task.cast())
}

/// A pointer to a task. Whoever has one knows why the task is still there: home because
/// it is not over, others because they hold a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct TaskRef(NonNull<Header>);

impl TaskRef {
    /// The reference behind a waker's data pointer.
    ///
    /// # Safety
    ///
    /// The pointer is from [`Self::as_ptr`], of a task that is still there.
    #[inline(always)]
    pub(super) unsafe fn from_ptr(data: *const ()) -> Self {
        // SAFETY: it was made from a `NonNull`.
        Self(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) })
    }

    #[inline(always)]
    pub(super) fn as_ptr(self) -> *const () {
        self.0.as_ptr().cast_const().cast()
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        // SAFETY: the invariant of the type: the task is still there. What is mutable in
        // a header is in cells.
        unsafe { self.0.as_ref() }
    }

    /// The task as it is in a list of all.
    #[inline(always)]
    pub(super) fn listed(self) -> NonNull<Told> {
        self.0.cast()
    }

    /// The task that is in a list of all.
    ///
    /// # Safety
    ///
    /// It is from [`Self::listed`], of a task that is still there.
    #[inline(always)]
    pub(super) unsafe fn from_listed(told: NonNull<Told>) -> Self {
        Self(told.cast())
    }

    /// What the host reads of it.
    #[inline(always)]
    pub(super) fn told(&self) -> &Told {
        &self.header().told
    }

    /// The links of the task in the intrusive lists.
    #[inline(always)]
    pub(super) fn links(&self) -> &Links {
        &self.header().links
    }

    #[inline(always)]
    pub(super) fn executor(self) -> &'static Executor {
        self.header().executor
    }

    /// Its number.
    #[inline(always)]
    pub(super) fn number(self) -> u32 {
        self.header().told.number()
    }

    /// The name that it was given.
    pub(super) fn given_name(&self) -> Option<&str> {
        // SAFETY: the name changes in (8) only, at home, which is where this is called.
        unsafe { &*self.header().name.get() }.as_deref()
    }

    /// The name that it was given, else its type's.
    pub(super) fn name(&self) -> &str {
        match self.given_name() {
            Some(name) => name,
            None => self.told().type_name().unwrap_or_default(),
        }
    }

    // At home ---------------------------------------------------------------------

    #[inline(always)]
    pub(super) fn has(self, flags: u8) -> bool {
        self.header().flags.get() & flags != 0
    }

    #[inline(always)]
    pub(super) fn raise(self, flags: u8) {
        let cell = &self.header().flags;
        cell.set(cell.get() | flags);
    }

    #[inline(always)]
    fn lower(self, flags: u8) {
        let cell = &self.header().flags;
        cell.set(cell.get() & !flags);
    }

    /// (2), its first half.
    #[inline(always)]
    pub(super) fn leave_queue(self) {
        self.lower(Flags::QUEUED);
    }

    /// (4): puts the task at the end of the run queue, unless it is there already or
    /// there is nothing left to poll. If it is told of, `consumed` says whether that uses up a
    /// waker.
    #[inline(always)]
    pub(super) fn wake(self, consumed: bool, told: bool) {
        let queued = !self.has(Flags::QUEUED | Flags::COMPLETED);
        if told {
            trace::woken(self.number(), queued, consumed);
        }
        if queued {
            self.raise(Flags::QUEUED);
            let executor = self.executor();
            count(&executor.counts.wakes);
            executor.ready.push(self);
        }
    }

    /// Polls the future with a waker that is told of or not, and says whether it is ready: (3) or
    /// (5).
    ///
    /// The task is not COMPLETED; if it is ready, [`Self::complete`] follows.
    #[inline(always)]
    pub(super) fn poll(self, told: bool) -> bool {
        // The waker is lent, so it counts for nothing.
        let waker = ManuallyDrop::new(waker::of(self, told));
        let mut cx = Context::from_waker(&waker);
        self.told().poll_begins();
        // SAFETY: this is home, the vtable is that of the task's type, and the caller
        // has seen that the task is not COMPLETED.
        let ready = unsafe { (self.header().vtable.poll)(self.0, &mut cx) };
        self.told().poll_ends();
        if ready {
            self.raise(Flags::OUTPUT);
        }
        ready
    }

    /// (6): drops the future. The task is not COMPLETED; [`Self::complete`] follows.
    pub(super) fn drop_future(self) {
        // SAFETY: as in `poll`.
        unsafe { (self.header().vtable.drop_future)(self.0) }
    }

    /// The end of (5) and (6): tells the join handle if there is one, else gives the
    /// output up. The task may be gone afterwards.
    #[inline]
    pub(super) fn complete(self) {
        self.raise(Flags::COMPLETED);
        if self.has(Flags::JOINED) {
            // The handle keeps the task, until the wake, which may run any code.
            if let Some(waker) = self.header().joiner.take() {
                waker.wake();
            }
        } else {
            self.give_up_output();
            self.release_if_over();
        }
    }

    /// Drops the output if there is one.
    #[inline]
    fn give_up_output(self) {
        if self.has(Flags::OUTPUT) {
            self.lower(Flags::OUTPUT);
            // SAFETY: the output was there, the flag is lowered, and this is home.
            unsafe { (self.header().vtable.drop_output)(self.0) }
        }
    }

    /// (7): takes the output out, or `None` if there is none: aborted, or taken before.
    ///
    /// # Safety
    ///
    /// `T` is the output type of the task's future.
    pub(super) unsafe fn take_output<T>(self) -> Option<T> {
        if !self.has(Flags::OUTPUT) {
            return None;
        }
        self.lower(Flags::OUTPUT);
        // SAFETY: the output was there, the flag is lowered, `T` is its type.
        Some(unsafe { (self.header().vtable.output)(self.0).cast::<T>().read() })
    }

    /// Remembers whom to wake in (5) and (6).
    pub(super) fn set_joiner(self, waker: &Waker) {
        trace::waits_for(Reason::Task(self.number()));
        let joiner = &self.header().joiner;
        let old = joiner.take();
        let new = match old {
            Some(old) if old.will_wake(waker) => old,
            _ => waker.clone(),
        };
        joiner.set(Some(new));
    }

    /// (7): the join handle is dropped. The task may be gone afterwards.
    pub(super) fn detach(self) {
        drop(self.header().joiner.take());
        self.lower(Flags::JOINED);
        self.give_up_output();
        self.release_if_over();
    }

    /// (8): lets go of home's reference if neither the executor nor a handle has a use
    /// for the task. It may be gone afterwards.
    #[inline]
    pub(super) fn release_if_over(self) {
        let flags = self.header().flags.get();
        if flags & (Flags::COMPLETED | Flags::QUEUED | Flags::JOINED) == Flags::COMPLETED {
            // SAFETY: only this function drops the name, and home comes here once: with
            // its reference it loses the right to.
            unsafe { ptr::drop_in_place(self.header().name.get()) };
            // Acquire, with the Release in `release`: the last waker's use of the task is
            // over. A count of one is home's own, and only a waker could raise it again.
            if self.header().references.load(Ordering::Acquire) == 1 {
                self.free();
            } else {
                self.release();
            }
        }
    }

    // From everywhere ---------------------------------------------------------------

    /// Adds a reference. They cannot overflow: a waker takes 16 bytes.
    #[inline(always)]
    pub(super) fn retain(self) {
        self.header().references.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of a reference; the last frees the memory (9).
    #[inline(always)]
    pub(super) fn release(self) {
        // Release, with the Acquire below and in `release_if_over`: what this holder did
        // with the task comes before its end.
        if self.header().references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.free();
        }
    }

    fn free(self) {
        let layout = self.header().vtable.layout;
        // SAFETY: the last reference is gone, so nobody will look here again; the memory
        // came from the same allocator with this layout; nothing in it needs dropping.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }

    /// (4) from elsewhere: leaves the task in the inbox, unless it is there already.
    #[cold]
    pub(super) fn post(self, consumed: bool) {
        // Release: what the waker's caller wrote is visible to the poll that follows,
        // through the Acquire in `unpost`. A read-modify-write also when it finds the flag
        // set, so that `unpost` reads from it or from a later one.
        let posted = self.header().posted.swap(true, Ordering::AcqRel);
        if mask::KNOWS_REASON_OF_POST && trace::is_on() {
            trace::woken(self.number(), !posted, consumed);
        }
        if !posted {
            self.retain();
            self.executor().inbox.push(self);
            mask::woken(self.executor().home.level);
            self.executor().home.place.post();
        }
    }

    /// The task is out of the inbox and may be put there again.
    pub(super) fn unpost(self) {
        self.header().posted.swap(false, Ordering::AcqRel);
    }
}

const _: () = assert!(
    !core::mem::needs_drop::<Links>(),
    "the last waker frees a task without dropping anything"
);
