//! Several processors in one guest.
//!
//! ```ignore
//! use wakebox_guest::processor;
//!
//! #[wakebox_guest::main(processors = 4)]
//! async fn main() {
//!     let parts = (0..256).map(|part| processor::spawn_anywhere(async move { compute(part) }));
//!     for part in parts.collect::<Vec<_>>() {
//!         println!("{}", part.await.unwrap());
//!     }
//! }
//! ```
//!
//! The guest asks for so many, and the host grants them (`processors` among its limits; one if it says nothing):
//! [`count`] says how many there are. Those that nobody gives anything to are not started and cost nothing.
//!
//! # Which task runs where
//!
//! | spawned by | runs | its future |
//! |---|---|---|
//! | [`crate::spawn`] | where it was spawned | may be anything |
//! | [`spawn_on`] | on that processor | is made there, by a closure that is `Send` |
//! | [`spawn_anywhere`] | wherever there is time, also now here and then there | is `Send` |
//!
//! Each processor has an executor, rings, timers and text of its own. What any may run stands in a queue of the processor that
//! spawned or woke it, and in a common one when that is full; a processor with nothing to do takes half of what another has.
//! A waker may be used on every processor: a task of [`crate::spawn`] or [`spawn_on`] then goes on at home. A processor that
//! sleeps is woken for it by one exit of the waker, one that watches (`poll`, `auto`) without.
//!
//! # What may go from one to another
//!
//! The compiler says it. Operations under way, sleeps, buffers, streams and local join handles belong to the rings of the
//! processor that made them, and are not `Send`; so they live in tasks of [`crate::spawn`] and of [`spawn_on`]. A task that
//! any may run has them in a part that [stays](stay) where it is begun:
//!
//! ```ignore
//! processor::spawn_anywhere(async {
//!     processor::stay(|| sleep(Duration::from_millis(10))).await;
//!     let page = processor::stay(|| async { fetch("example.com").await }).await;
//!     compute(page)                                       // wherever there is time
//! });
//! ```
//!
//! Files,
//! which are numbers of the host, and what is made of atomics (`async-channel`, `embassy-sync` with its
//! critical section, `Arc`) may go anywhere, and so may the [`JoinHandle`] of this module. A connection goes to another
//! processor as a [`Movable`](crate::net::Movable), while nothing of it is under way.
//!
//! Lines of text come whole and in the order of each processor, up to 8 KiB; those of different processors in any order. Standard input
//! belongs to processor 0. Hooks of [`crate::on_restore`] run on the processor that gave them, before its tasks.
//!
//! # The end
//!
//! When `main` returns, the tasks of `spawn` and [`spawn_on`] are dropped on their processors, and then those of
//! [`spawn_anywhere`], on that of `main`. One that is being polled goes on as long as that lasts. What others have printed is written, if they await within 100 ms. A panic, fault or limit on one
//! processor ends the guest.
//!
//! # What it costs
//!
//! With the feature `processors` each allocation takes a lock, and a critical section is one, for which
//! each processor waits for at most one section of each other. Finding the runtime is one load more. The feature
//! `interrupt` is not to be had with it: a guest with both is refused when it is compiled.

mod pool;
mod primitives;
mod queue;
mod sleepers;
mod task;
#[cfg(test)]
mod tests;
mod waker;

use alloc::boxed::Box;
use core::future::Future;
use core::panic::Location;

pub(crate) use self::queue::{GlobalQueue, LocalQueue};
pub(crate) use self::sleepers::Sleepers;
pub(crate) use self::task::{Header, Register, tell_of_tasks};
use crate::joint;
pub use crate::joint::JoinHandle;
use crate::runtime::runtime;
use crate::trace;

/// How many processors this guest has.
///
/// # Panics
///
/// Outside of a guest.
#[must_use]
pub fn count() -> usize {
    runtime().here.common.count as usize
}

/// The number of the processor that calls, from 0. A task of [`spawn_anywhere`] may be on another after an `await`.
///
/// # Panics
///
/// Outside of a guest.
#[must_use]
pub fn current() -> usize {
    runtime().here.number as usize
}

/// Makes a task on a processor, of the future that `make` returns, an `async move` closure as a rule. `make` is called
/// there; what it captures must be `Send`, and what it makes of that need not. The processor is started, if it was not.
///
/// # Panics
///
/// If there is no processor of that number, and outside of a guest.
#[track_caller]
pub fn spawn_on<M, F>(processor: usize, make: M) -> JoinHandle<F::Output>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let runtime = runtime();
    assert!(
        processor < count(),
        "there is no processor {processor}: this guest has {}, numbered from 0",
        count()
    );
    let (begin, handle) = joint::remote(make);
    let made = (trace::current(), Location::caller());
    let birth = Box::new(move |executor: &'static crate::executor::Executor| {
        let names = (None, core::any::type_name::<M>());
        drop(executor.spawn_from_afar(made, names, begin()));
    });
    let common = runtime.here.common;
    common.give(runtime, processor as u32, birth);
    handle
}

/// Runs the future that `make` returns, an `async move` closure as a rule, on the processor that polls this first, and gives
/// its output wherever this is polled then. `make` is called there; what it captures must be `Send`, and what it makes of
/// that need not: it may sleep, and use connections that it makes. It is a task of that processor, which is
/// aborted if this is dropped before.
///
/// # Panics
///
/// Outside of a guest.
pub async fn stay<M, F>(make: M) -> F::Output
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    /// Whoever drops it aborts it.
    struct Stays<T>(JoinHandle<T>);

    impl<T> Drop for Stays<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    let mut stays = Stays(spawn_on(current(), make));
    match (&mut stays.0).await {
        Ok(output) => output,
        // It was dropped at the end of the guest, as this will be.
        Err(_) => core::future::pending().await,
    }
}

/// Makes a task that any processor may run, and that may move from one to another whenever it awaits.
///
/// # Panics
///
/// Outside of a guest.
#[track_caller]
pub fn spawn_anywhere<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    pool::spawn(future)
}
