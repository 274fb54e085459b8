//! The trace: tells the host what the guest does, if somebody watches ([`wakebox_abi::trace`]).
//!
//! Every place where something happens calls a function of this module. When nobody watches, that
//! is a load and a branch that the processor predicts; without the feature `trace` it is nothing.
//!
//! What is told of a wake and of a wait has a reason, which the place itself does not know: a
//! waker knows the task that it wakes, and not who calls it. So whoever is about to call wakers
//! says why ([`because`]), and what keeps the waker of the task that is being polled says what it is
//! ([`waits_for`]); both are kept until they are told.

#[cfg(all(feature = "trace", not(test)))]
mod on;
#[cfg(all(feature = "trace", not(test)))]
use self::on as teller;

#[cfg(any(not(feature = "trace"), test))]
mod off;
#[cfg(any(not(feature = "trace"), test))]
use self::off as teller;

pub(crate) use self::teller::{
    because, current, interrupts, is_crowded, is_on, lives, poll_begin, poll_end, restored,
    spawned, start, woken, write,
};
#[cfg(all(feature = "interrupt", not(test)))]
pub(crate) use self::teller::{resume, suspend};
use crate::runtime::try_runtime;
use wakebox_abi::task::State;

pub(crate) use wakebox_abi::trace::{Idle, Reason, Roused, What};

/// Notes what the task that is being polled will wait for: with the task, where the host finds it when
/// it looks what a guest waits for, and in the trace.
#[inline(always)]
pub(crate) fn waits_for(what: Reason) {
    let (state, detail) = match what {
        Reason::Task(task) => (State::Task, task.into()),
        Reason::Operation(token) | Reason::HostCall(token) => (State::Operation, token.to_word()),
        Reason::Slot => (State::Slot, 0),
        Reason::Restored => (State::Restored, 0),
        _ => (State::Other, 0),
    };
    note(state, detail);
    teller::waits_for(move || what);
}

/// The same of a timer that fires at a moment of the guest's clock. The trace has its number, which is
/// asked for if somebody watches.
#[inline(always)]
pub(crate) fn waits_for_timer(at_ns: u64, number: impl FnOnce() -> u64) {
    note(State::Timer, at_ns);
    teller::waits_for(move || Reason::Timer(number()));
}

/// The same of a lock, of which the trace has no number; `holder` is the address of who holds it.
pub(crate) fn waits_for_lock(holder: usize) {
    note(State::Lock, holder as u64);
    teller::waits_for(|| Reason::Unknown);
}

#[inline(always)]
fn note(state: State, detail: u64) {
    if let Some(runtime) = try_runtime() {
        runtime.waits_for(state, detail);
    }
}
