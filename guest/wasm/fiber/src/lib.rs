//! Fibers, with the interface that Wasmtime 48 wants: code on a stack of its own that can stop and go on.
//!
//! Stacks come from whoever embeds Wasmtime ([`FiberStack::from_custom`]), which knows where memory has
//! unmapped pages below a stack; none is made of the heap, where an overflow would write into somebody
//! else's memory.
//!
//! A fiber and who resumes it take turns. They share a [`Shared`]: the stack pointer of the side that
//! waits, and what one hands the other.

#![no_std]

extern crate alloc;

mod switch;

use alloc::boxed::Box;
use core::cell::Cell;
use core::ops::Range;
use core::ptr::NonNull;

use wasmtime_environ::error::{Error, format_err};

/// What Wasmtime's own crate returns.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// A stack.
pub struct FiberStack(Box<dyn RuntimeFiberStack>);

/// Makes stacks.
///
/// # Safety
///
/// What it makes is as [`RuntimeFiberStack`] says.
pub unsafe trait RuntimeFiberStackCreator: Send + Sync {
    /// A stack of that many bytes at least.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn new_stack(&self, size: usize, zeroed: bool) -> Result<Box<dyn RuntimeFiberStack>, Error>;
}

/// Memory for a stack.
///
/// # Safety
///
/// `range` is mapped, writable, page-aligned and nobody else's while this lives; it ends at `top`, and
/// `guard_range`, which ends where it starts, is unmapped.
pub unsafe trait RuntimeFiberStack: Send + Sync {
    /// The end of the stack.
    fn top(&self) -> *mut u8;
    /// The stack.
    fn range(&self) -> Range<usize>;
    /// What is unmapped below it.
    fn guard_range(&self) -> Range<*mut u8>;
}

impl core::fmt::Debug for FiberStack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("FiberStack").field(&self.0.range()).finish()
    }
}

impl FiberStack {
    /// None: the heap has no guard pages.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn new(_: usize, _: bool) -> Result<Self> {
        Err(format_err!("stacks of fibers come from the embedder"))
    }

    /// A stack of the embedder's.
    ///
    /// # Errors
    ///
    /// None.
    pub fn from_custom(stack: Box<dyn RuntimeFiberStack>) -> Result<Self> {
        Ok(Self(stack))
    }

    /// The end of the stack.
    #[must_use]
    pub fn top(&self) -> Option<*mut u8> {
        Some(self.0.top())
    }

    /// The stack, without what is below it.
    #[must_use]
    pub fn range(&self) -> Option<Range<usize>> {
        Some(self.0.range())
    }

    /// What is unmapped below the stack.
    #[must_use]
    pub fn guard_range(&self) -> Option<Range<*mut u8>> {
        Some(self.0.guard_range())
    }

    /// No stack is.
    #[must_use]
    pub fn is_from_raw_parts(&self) -> bool {
        false
    }
}

/// What is on its way between the two sides.
enum Handed<Resume, Yield, Return> {
    Nothing,
    Resume(Resume),
    Yield(Yield),
    Return(Return),
}

type Body<'a, A, B, C> = Box<dyn FnOnce(A, &mut Suspend<A, B, C>) -> C + 'a>;

/// What both sides of a fiber share.
struct Shared<'a, A, B, C> {
    /// The stack pointer of the side that waits.
    waiting: Cell<*mut u8>,
    handed: Cell<Handed<A, B, C>>,
    body: Cell<Option<Body<'a, A, B, C>>>,
}

/// Code with a stack of its own.
pub struct Fiber<'a, Resume, Yield, Return> {
    /// `None` only in `into_stack`.
    stack: Option<FiberStack>,
    shared: NonNull<Shared<'a, Resume, Yield, Return>>,
    done: Cell<bool>,
}

/// How a fiber stops: it has it while it runs.
pub struct Suspend<Resume, Yield, Return> {
    /// Lives as long as the fiber, which is longer than its body runs. The body's lifetime is erased: it
    /// is taken out before this is made.
    shared: NonNull<Shared<'static, Resume, Yield, Return>>,
}

impl<'a, A, B, C> Fiber<'a, A, B, C> {
    /// A fiber that runs `body` when it is resumed.
    ///
    /// # Errors
    ///
    /// If the stack has no room for a first frame: with the stack.
    pub fn new(
        stack: FiberStack,
        body: impl FnOnce(A, &mut Suspend<A, B, C>) -> C + 'a,
    ) -> Result<Self, (Error, FiberStack)> {
        if stack.0.range().len() < switch::FIRST_FRAME {
            return Err((format_err!("the stack is too small"), stack));
        }
        let shared = Box::new(Shared {
            waiting: Cell::new(core::ptr::null_mut()),
            handed: Cell::new(Handed::Nothing),
            body: Cell::new(Some(Box::new(body) as Body<'a, A, B, C>)),
        });
        let shared = NonNull::from(Box::leak(shared));
        // SAFETY: the stack is ours, writable and large enough, by the contract of `RuntimeFiberStack`;
        // `start` is entered once, by the first resume, with `shared` alive.
        let first = unsafe {
            switch::prepare(stack.0.top(), start::<A, B, C>, shared.as_ptr().cast())
        };
        // SAFETY: `shared` lives until the fiber is dropped, and only cells of it change.
        unsafe { shared.as_ref() }.waiting.set(first);
        Ok(Self {
            stack: Some(stack),
            shared,
            done: Cell::new(false),
        })
    }

    /// Runs it until it stops (`Err`) or ends (`Ok`).
    ///
    /// # Panics
    ///
    /// If it runs, or has ended.
    pub fn resume(&self, value: A) -> Result<C, B> {
        assert!(!self.done.replace(true), "the fiber runs or has ended");
        // SAFETY: `shared` lives until `self` is dropped.
        let shared = unsafe { self.shared.as_ref() };
        shared.handed.set(Handed::Resume(value));
        // SAFETY: `done` was false, so the fiber waits, and `waiting` is where it does: its first frame or
        // the one that its last switch has pushed.
        unsafe { switch::switch(shared.waiting.as_ptr()) };
        match shared.handed.replace(Handed::Nothing) {
            Handed::Yield(value) => {
                self.done.set(false);
                Err(value)
            }
            Handed::Return(value) => Ok(value),
            Handed::Nothing | Handed::Resume(_) => unreachable!("a fiber hands something over"),
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done.get()
    }

    /// Its stack.
    ///
    /// # Panics
    ///
    /// Never: only `into_stack` takes it.
    #[must_use]
    pub fn stack(&self) -> &FiberStack {
        self.stack.as_ref().expect("a fiber has a stack")
    }

    /// The stack of one that has ended.
    ///
    /// # Panics
    ///
    /// If it has not.
    #[must_use]
    pub fn into_stack(mut self) -> FiberStack {
        assert!(self.done(), "the fiber has not ended");
        self.stack.take().expect("a fiber has a stack")
    }
}

impl<A, B, C> Drop for Fiber<'_, A, B, C> {
    fn drop(&mut self) {
        debug_assert!(self.done.get(), "a fiber is dropped before it has ended");
        // SAFETY: made by `Box::leak`, dropped once; the fiber does not run, so nobody else has it.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

impl<A, B, C> Suspend<A, B, C> {
    /// Stops, and goes on with what it is resumed with.
    ///
    /// # Panics
    ///
    /// Never: who resumes hands something over.
    pub fn suspend(&mut self, value: B) -> A {
        self.hand_over(Handed::Yield(value));
        self.taken()
    }

    fn hand_over(&self, value: Handed<A, B, C>) {
        // SAFETY: the fiber outlives its body, which has this.
        let shared = unsafe { self.shared.as_ref() };
        shared.handed.set(value);
        // SAFETY: the fiber runs, so who has resumed it waits where `waiting` says.
        unsafe { switch::switch(shared.waiting.as_ptr()) };
    }

    fn taken(&self) -> A {
        // SAFETY: as in `hand_over`.
        match unsafe { self.shared.as_ref() }.handed.replace(Handed::Nothing) {
            Handed::Resume(value) => value,
            _ => unreachable!("a fiber is resumed with something"),
        }
    }
}

/// Where a fiber starts, on its own stack.
extern "C" fn start<A, B, C>(shared: *mut u8) -> ! {
    {
        // SAFETY: `Fiber::new` gave the address of its `Shared`, which it keeps alive. The lifetime of the
        // body is that of the fiber, which is still there: it is being resumed.
        let shared = unsafe { NonNull::new_unchecked(shared.cast::<Shared<'static, A, B, C>>()) };
        let mut suspend = Suspend { shared };
        let value = suspend.taken();
        // SAFETY: as above.
        let body = unsafe { shared.as_ref() }.body.take();
        let body = body.expect("a fiber starts once");
        let value = body(value, &mut suspend);
        suspend.hand_over(Handed::Return(value));
    }
    unreachable!("a fiber that has ended is not resumed")
}
