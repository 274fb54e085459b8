//! A guest without urgent tasks, or a unit test on a host: nothing preempts.

use crate::executor::Executor;

/// Whether a wake that goes through an inbox is told of when it does, by whoever wakes and knows why: another
/// processor.
pub(crate) const KNOWS_REASON_OF_POST: bool = cfg!(feature = "processors");

/// Upcalls are masked, until it is dropped.
#[derive(Debug)]
pub(crate) struct Masked;

#[cfg(all(feature = "critical-section", not(feature = "processors")))]
impl Masked {
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "as the other one")]
    pub(crate) const fn keep(&self) -> bool {
        false
    }
}

#[cfg(all(feature = "critical-section", not(feature = "processors")))]
#[inline(always)]
pub(crate) const fn lift() {}

impl Drop for Masked {
    #[inline(always)]
    fn drop(&mut self) {}
}

#[inline(always)]
pub(crate) const fn mask() -> Masked {
    Masked
}

#[inline(always)]
pub(crate) const fn begin() {}

#[inline(always)]
pub(crate) const fn end() {}

/// Where home is, the stack pointer tells alone.
#[inline(always)]
pub(crate) const fn is_home(_level: u8) -> Option<bool> {
    None
}

#[inline(always)]
pub(crate) const fn woken(_level: u8) {}

#[inline(always)]
pub(crate) const fn number(spawned: u64) -> u32 {
    spawned as u32
}

#[inline(always)]
pub(crate) const fn urgent_executors() -> &'static [Executor] {
    &[]
}

#[inline(always)]
pub(crate) const fn upcalls() -> u64 {
    0
}
