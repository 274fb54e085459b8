//! Tasks of `embassy-executor`, beside the guest's own.
//!
//! An executor of that crate runs in one task of this one, which its pender wakes: whatever wakes a
//! task of embassy (a timer or a connection of this crate, a channel, `embassy-time`) has it polled in the next turn.
//!
//! ```ignore
//! #[embassy_executor::task]
//! async fn blink() {
//!     loop {
//!         wakebox_guest::time::sleep(Duration::from_secs(1)).await;
//!     }
//! }
//!
//! #[wakebox_guest::main]
//! async fn main() {
//!     let spawner = wakebox_guest::embassy::start();
//!     spawner.spawn(blink().unwrap());
//!     // ...
//! }
//! ```
//!
//! The crate's features `platform-*` stay off: each defines a pender of its own, and an executor that
//! takes the whole processor.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::ptr::without_provenance_mut;
use core::task::{Poll, Waker};

use critical_section::Mutex;
use embassy_executor::Spawner;
use embassy_executor::raw::Executor;

use crate::task::spawn_named;

/// Whom the pender wakes, for each executor. What its context holds is a number here and no address, so
/// that an executor which somebody else has made harms nobody.
static TASKS: Mutex<RefCell<Vec<Option<Waker>>>> = Mutex::new(RefCell::new(Vec::new()));

/// Starts an executor of `embassy-executor` in a task of its own, named "embassy", and gives what
/// spawns tasks there. It is there until the guest ends, as its tasks are.
///
/// Each call starts another one. With several processors, it is one of the processor that calls.
///
/// # Panics
///
/// Outside of a guest.
#[must_use = "an executor without tasks does nothing"]
pub fn start() -> Spawner {
    let number = critical_section::with(|section| {
        let mut tasks = TASKS.borrow_ref_mut(section);
        tasks.push(None);
        tasks.len() - 1
    });
    let executor: &'static Executor =
        Box::leak(Box::new(Executor::new(without_provenance_mut(number))));
    let polls = poll_fn(move |cx| -> Poll<()> {
        wakes(number, cx.waker());
        // SAFETY: nobody else has it but by its spawner, which does not poll, and a task is not polled
        // while it is polled.
        unsafe { executor.poll() };
        Poll::Pending
    });
    spawn_named("embassy", polls);
    executor.spawner()
}

/// Says whom to wake for an executor.
fn wakes(number: usize, waker: &Waker) {
    let _old = critical_section::with(|section| {
        let task = &mut TASKS.borrow_ref_mut(section)[number];
        match task {
            Some(old) if old.will_wake(waker) => None,
            _ => task.replace(waker.clone()),
        }
    });
}

/// Has the executor of this context polled. It may be called wherever one may wake.
#[doc(hidden)]
pub fn pend(context: *mut ()) {
    let waker = critical_section::with(|section| {
        let tasks = TASKS.borrow_ref(section);
        // None yet: the task is new, and polls when it is.
        tasks.get(context.addr()).cloned().flatten()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}
