//! A word that processors share, and that costs less before there is a second.
//!
//! A step that reads and writes one word as a whole takes a processor some twenty cycles for the sake of others. A
//! guest that may have several is alone until it starts one: until then nothing comes between a load and a store.

use core::sync::atomic::{AtomicU32, Ordering};

/// Whether others were started. Set by who starts the first, before that runs; never taken back.
#[cfg(all(feature = "processors", not(test)))]
static OTHERS: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Whether nobody else runs, nor interrupts.
#[cfg(all(feature = "processors", not(test)))]
#[inline(always)]
fn is_alone() -> bool {
    !OTHERS.load(Ordering::Relaxed)
}

/// A processor is about to be started. What was done alone it sees, since it begins afterwards.
#[cfg(all(feature = "processors", not(test)))]
pub(crate) fn others_begin() {
    OTHERS.store(true, Ordering::Relaxed);
}

/// Upcalls interrupt, and tests have threads.
#[cfg(not(all(feature = "processors", not(test))))]
#[inline(always)]
const fn is_alone() -> bool {
    false
}

/// See [`others_begin`]; nobody was alone.
#[cfg(test)]
pub(crate) const fn others_begin() {}

/// The word, with the functions of an [`AtomicU32`] that are used of it.
#[derive(Debug)]
pub(crate) struct SharedWord(AtomicU32);

impl SharedWord {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    /// One step where others may come between, else two.
    #[inline(always)]
    fn step(&self, alone: impl FnOnce(u32) -> u32, whole: impl FnOnce(&AtomicU32) -> u32) -> u32 {
        if !is_alone() {
            return whole(&self.0);
        }
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(alone(before), Ordering::Relaxed);
        before
    }

    #[inline(always)]
    pub(crate) fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.step(|word| word | bits, |word| word.fetch_or(bits, order))
    }

    #[inline(always)]
    pub(crate) fn fetch_add(&self, count: u32, order: Ordering) -> u32 {
        self.step(
            |word| word.wrapping_add(count),
            |word| word.fetch_add(count, order),
        )
    }
}

/// What tasks that any processor may run need besides.
#[cfg(any(feature = "processors", test))]
impl SharedWord {
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> &mut u32 {
        self.0.get_mut()
    }

    #[inline(always)]
    pub(crate) fn fetch_sub(&self, count: u32, order: Ordering) -> u32 {
        self.fetch_add(count.wrapping_neg(), order)
    }

    #[inline(always)]
    pub(crate) fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, success, failure)
    }
}
