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

#[cfg(any(feature = "trace", test))]
mod name;

pub(crate) use self::teller::{
    because, interrupts, is_crowded, is_on, lives, poll_begin, poll_end, restored, spawned, start,
    waits_for, woken, write,
};
pub(crate) use wakebox_abi::trace::{Idle, Reason, Roused, What};
