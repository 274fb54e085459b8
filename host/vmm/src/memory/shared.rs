//! What lies in guest memory and keeps it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Slots, Word};

use super::GuestMemory;
use crate::plan::Region;

/// Something that lies in guest memory, together with that. Where the memory lies is asked at each
/// access: it may lie elsewhere when its guest has been given another machine.
#[derive(Debug)]
pub struct Shared<T> {
    memory: Arc<GuestMemory>,
    region: Region,
    /// How many, if it is several.
    len: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            ..*self
        }
    }
}

impl Shared<MappedControl> {
    pub(super) fn control(memory: &Arc<GuestMemory>, region: Region) -> Self {
        debug_assert_eq!(region.len, wakebox_abi::layout::PAGE_SIZE, "it is a page");
        Self {
            region,
            memory: memory.clone(),
            len: 1,
            of: PhantomData,
        }
    }

    #[inline]
    fn mapped(&self) -> MappedControl {
        let base = self.memory.pointer(self.region.offset, self.region.len);
        // SAFETY: the region is a page of the memory, page-aligned because `Plan` hands out whole pages.
        // It stays mapped during the call that this is made for: who moves the memory is who accesses it
        // here (`GuestMemory::leave`).
        unsafe { MappedControl::new(base) }
    }
}

impl<const WORDS: usize> Shared<MappedSlots<WORDS>> {
    pub(super) fn slots(memory: &Arc<GuestMemory>, region: Region, len: u32) -> Self {
        assert!(
            u64::from(len) * WORDS as u64 * 8 <= region.len,
            "a ring lies in its region"
        );
        Self {
            memory: memory.clone(),
            region,
            len,
            of: PhantomData,
        }
    }

    #[inline]
    fn mapped(&self) -> MappedSlots<WORDS> {
        let base = self.memory.pointer(self.region.offset, self.region.len);
        // SAFETY: the region is as long as all slots, which was looked at when this was made; page
        // alignment covers the alignment to 8. For how long it is mapped, see the control page.
        unsafe { MappedSlots::new(base.cast(), self.len) }
    }
}

impl Control for Shared<MappedControl> {
    #[inline]
    fn load(&self, word: Word, order: Ordering) -> u32 {
        self.mapped().load(word, order)
    }

    #[inline]
    fn store(&self, word: Word, value: u32, order: Ordering) {
        self.mapped().store(word, value, order);
    }

    #[inline]
    fn add(&self, word: Word, more: u32, order: Ordering) -> u32 {
        self.mapped().add(word, more, order)
    }

    #[inline]
    fn full_fence(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

impl<const WORDS: usize> Slots<WORDS> for Shared<MappedSlots<WORDS>> {
    #[inline]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    fn read(&self, index: u32) -> [u64; WORDS] {
        self.mapped().read(index)
    }

    #[inline]
    fn write(&self, index: u32, words: [u64; WORDS]) {
        self.mapped().write(index, words);
    }
}
