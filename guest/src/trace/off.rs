//! A guest that cannot be watched: the feature is off, or this is a unit test on a host, where
//! there is no ring and guests run on many threads.

use core::panic::Location;

use wakebox_abi::boot::{Boot, Instance};

use super::{Reason, What};

/// # Safety
///
/// None: it is that of the function which it replaces.
pub(crate) unsafe fn start(_boot: &Boot) {}

#[inline(always)]
pub(crate) const fn restored(_instance: &Instance) -> bool {
    false
}

#[inline(always)]
pub(crate) const fn is_on() -> bool {
    false
}

#[inline(always)]
pub(crate) const fn is_crowded() -> bool {
    false
}

#[inline(always)]
pub(crate) fn write(_what: impl FnOnce(u32) -> What) {}

#[inline(always)]
pub(crate) const fn current() -> u32 {
    0
}

#[inline(always)]
pub(crate) fn spawned(
    _task: u32,
    _by: u32,
    _name: Option<&str>,
    _type_name: &str,
    _location: &Location<'_>,
) {
}

#[inline(always)]
pub(crate) fn lives(_task: u32, _name: Option<&str>, _type_name: &str) {}

#[inline(always)]
pub(crate) fn poll_begin(_task: u32) {}

#[inline(always)]
pub(crate) fn poll_end(_task: u32, _ready: bool) {}

#[inline(always)]
pub(crate) fn woken(_task: u32, _queued: bool, _consumed: bool) {}

#[inline(always)]
pub(crate) fn because<T>(_why: Reason, act: impl FnOnce() -> T) -> T {
    act()
}

#[inline(always)]
pub(crate) fn waits_for(_what: impl FnOnce() -> Reason) {}

#[inline(always)]
pub(crate) fn interrupts() {}

#[cfg(all(feature = "interrupt", not(test)))]
#[inline(always)]
pub(crate) fn suspend(_interrupted: bool) {}

#[cfg(all(feature = "interrupt", not(test)))]
#[inline(always)]
pub(crate) fn resume(_suspended: ()) {}
