//! Urgent tasks: futures that an interrupt runs, over whatever else the guest computes.
//!
//! An ordinary task that computes keeps the processor until it awaits. An urgent one does not wait for that: in
//! mode `irq` the completion of what it awaits, or its timer, interrupts the computation at whatever
//! instruction, the urgent task is polled, and the computation goes on with every register as it was.
//!
//! ```ignore
//! use wakebox_guest::interrupt::{self, Priority};
//!
//! interrupt::spawn(Priority::Urgent, async move || {
//!     let mut listener = TcpListener::bind("127.0.0.1:8080").await.unwrap();
//!     loop {
//!         let (mut client, _) = listener.accept().await.unwrap();
//!         client.write_all(b"still here\n").await.unwrap();
//!     }
//! });
//! compute_for_hours();
//! ```
//!
//! # Priorities
//!
//! A [`Priority::Critical`] task interrupts [`Priority::Urgent`] ones, and both interrupt ordinary tasks. Tasks of
//! one priority do not interrupt each other: they take turns, as ordinary tasks do. The processor is not given
//! back before no urgent task is ready, so one that computes, or wakes itself for ever, keeps it.
//!
//! # What priorities share
//!
//! Preemption is concurrency: what moves into an urgent task must be [`Send`], and statics `Sync`, as between
//! threads. What the closure makes then stays at its priority and need not be. So the types of other crates
//! that are made for interrupts work: with the feature `critical-section` (which is on), a critical
//! section masks interrupts, and channels, signals and mutexes of `embassy-sync` with its
//! `CriticalSectionRawMutex` lead from one priority to another; so do `async-channel` and atomics. A waker of
//! an urgent task that is used by a less urgent one has it polled there and then, or at the end of the
//! critical section in which it is used.
//!
//! Never wait in a loop for another priority (a spin lock, say): what was interrupted does not go
//! on before the interrupting task awaits.
//!
//! # In the other modes
//!
//! There are no interrupts: `out`, `poll` and `auto` see a completion between two polls only. Urgent tasks are
//! then polled before all ordinary ones at each turn, and when they are woken by one. What is lost is the
//! preemption: an urgent task waits for the ordinary poll that is under way, however long that is.
//!
//! # What it costs
//!
//! An upcall saves registers and vector state on the stack of what it interrupts: about 3 KiB with
//! AVX-512, for each priority, and what the urgent tasks themselves need. With the feature `interrupt`, each
//! allocation and each call of the runtime masks upcalls, which is two loads and a store; without it,
//! nothing of this is in the guest. Every completion interrupts a guest in mode `irq`, also that of
//! an ordinary task's operation: that one is then woken, and polled when its turn comes.

mod upcall;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::future::Future;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::executor::{Executor, Home};
use crate::joint;
pub use crate::joint::JoinHandle;
use crate::mask::{self, MaskedCell};
use crate::runtime::{Runtime, runtime};
use crate::trace;

pub(crate) use self::upcall::{entry, prepare};

/// How urgent a task is. Ordinary tasks have none and are the least urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Interrupts ordinary tasks.
    Urgent = 1,
    /// Interrupts urgent tasks as well.
    Critical = 2,
}

/// The level of the most urgent.
const HIGHEST: u8 = Priority::Critical as u8;

/// How often it was an interrupt that had urgent tasks have their turn.
pub(crate) static UPCALLS: AtomicU64 = AtomicU64::new(0);

/// Makes a task, at its executor's home.
type Birth = Box<dyn FnOnce(&'static Executor) + Send>;

/// Tasks that were spawned and have not begun.
struct Unborn(MaskedCell<VecDeque<Birth>>);

// SAFETY: a guest has one processor, and nothing preempts who has borrowed the cell: upcalls are masked. On
// a host, where there are threads, nobody comes here: `spawn` wants a runtime.
unsafe impl Sync for Unborn {}

static EXECUTORS: [Executor; HIGHEST as usize] = [
    Executor::new(Home::level(Priority::Urgent as u8)),
    Executor::new(Home::level(Priority::Critical as u8)),
];

static UNBORN: [Unborn; HIGHEST as usize] = [
    Unborn(MaskedCell::new(VecDeque::new())),
    Unborn(MaskedCell::new(VecDeque::new())),
];

/// Makes a task of the future that `make` returns, an `async move` closure as a rule. `make` is called by
/// the task itself; what it captures must be `Send`, and what it makes of that need not. The task begins
/// before this returns, if it is more urgent than the caller and the caller is in no critical section.
///
/// The handle gives its output to a task of any priority, and aborts it from there; dropped, it lets the task go on
/// until its future is ready or the guest ends. Inside it, [`crate::spawn`] makes tasks of the same priority.
///
/// # Panics
///
/// Outside of a guest.
#[track_caller]
pub fn spawn<M, F>(priority: Priority, make: M) -> JoinHandle<F::Output>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    spawn_as(priority, None, make)
}

/// As [`spawn`], with a name for traces, panic messages and [`crate::task::name`].
///
/// # Panics
///
/// Outside of a guest.
#[track_caller]
pub fn spawn_named<M, F>(
    priority: Priority,
    name: impl Into<Cow<'static, str>>,
    make: M,
) -> JoinHandle<F::Output>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    spawn_as(priority, Some(name.into()), make)
}

#[track_caller]
fn spawn_as<M, F>(
    priority: Priority,
    name: Option<Cow<'static, str>>,
    make: M,
) -> JoinHandle<F::Output>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let _ = runtime();
    let made = (trace::current(), Location::caller());
    // What `make` does is the task's.
    let (begin, handle) = joint::remote(move || async move { make().await });
    let birth: Birth = Box::new(move |executor| {
        let names = (name, core::any::type_name::<M>());
        drop(executor.spawn_from_afar(made, names, begin()));
    });
    let level = priority as u8;
    let unborn = &UNBORN[usize::from(level) - 1];
    unborn.0.borrow_mut().push_back(birth);
    mask::woken(level);
    handle
}

/// The executors of urgent tasks, the least urgent first.
pub(crate) fn executors() -> &'static [Executor] {
    &EXECUTORS
}

/// The executor at whose home this is.
pub(crate) fn current(ordinary: &'static Executor) -> &'static Executor {
    match mask::current() {
        Some(0) => ordinary,
        Some(level) => &EXECUTORS[usize::from(level) - 1],
        // Nobody but a waker runs here, at home in what is above all that was interrupted.
        None => &EXECUTORS[usize::from(HIGHEST) - 1],
    }
}

/// The most urgent level above this that has something to do.
fn ready_above(level: u8) -> Option<u8> {
    let is_ready = |level: &u8| {
        let index = usize::from(*level) - 1;
        EXECUTORS[index].has_ready() || !UNBORN[index].0.borrow().is_empty()
    };
    (level + 1..=HIGHEST).rev().find(is_ready)
}

/// Whether an urgent task is ready, or something has come that may make it so, for those who look before
/// they sleep. Upcalls are masked.
pub(crate) fn is_ready() -> bool {
    !mask::is_known() || ready_above(0).is_some()
}

/// A turn of the executor of a level, with those of its tasks that were not born.
fn turn(level: u8) {
    let index = usize::from(level) - 1;
    loop {
        let birth = UNBORN[index].0.borrow_mut().pop_front();
        let Some(birth) = birth else { break };
        birth(&EXECUTORS[index]);
    }
    EXECUTORS[index].turn();
}

/// What an upcall is for, with upcalls masked before and after: takes what has come, polls urgent tasks
/// above the level of what was interrupted until none is ready, and shows the host what they want.
/// `interrupted` says whether it was, or has come here by itself.
pub(crate) fn serve(interrupted: bool) {
    let runtime = runtime();
    let outer = mask::set_runtime();
    UPCALLS.fetch_add(interrupted.into(), Ordering::Relaxed);
    let mut told = interrupted.then(|| trace::suspend(true));
    loop {
        mask::note();
        runtime.process_completions();
        let Some(level) = ready_above(outer.level) else {
            break;
        };
        if told.is_none() {
            told = Some(trace::suspend(false));
        }
        if level < HIGHEST {
            // Those above may want something, and this one compute.
            show(runtime);
        }
        mask::set_home(level, HIGHEST, || turn(level));
    }
    show(runtime);
    if let Some(told) = told {
        trace::resume(told);
    }
    outer.restore();
}

/// Tells the host what the urgent tasks want: nobody knows how long what was interrupted will compute.
fn show(runtime: &Runtime) {
    runtime.arm_deadline();
    loop {
        let stuck = runtime.submit();
        runtime.ring_if_unseen();
        if !stuck {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Drops what urgent tasks there are, born or not. Upcalls are masked, for good.
pub(crate) fn abort_all() {
    let outer = mask::set_runtime();
    for level in 1..=HIGHEST {
        let index = usize::from(level) - 1;
        drop(UNBORN[index].0.take());
        // Above the highest nothing comes.
        mask::set_home(level, level, || EXECUTORS[index].abort_all());
    }
    outer.restore();
}
