//! What lies in guest memory and keeps it mapped.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Slots, Word};

use super::GuestMemory;

/// Something that lies in guest memory, together with what keeps that memory mapped.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    pub(super) value: T,
    pub(super) _memory: Arc<GuestMemory>,
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Control for Shared<MappedControl> {
    #[inline]
    fn load(&self, word: Word, order: Ordering) -> u32 {
        self.value.load(word, order)
    }

    #[inline]
    fn store(&self, word: Word, value: u32, order: Ordering) {
        self.value.store(word, value, order);
    }

    #[inline]
    fn full_fence(&self) {
        self.value.full_fence();
    }
}

impl<const WORDS: usize> Slots<WORDS> for Shared<MappedSlots<WORDS>> {
    #[inline]
    fn len(&self) -> u32 {
        Slots::len(&self.value)
    }

    #[inline]
    fn read(&self, index: u32) -> [u64; WORDS] {
        self.value.read(index)
    }

    #[inline]
    fn write(&self, index: u32, words: [u64; WORDS]) {
        self.value.write(index, words);
    }
}
