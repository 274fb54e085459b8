//! Guest memory as the host sees it: hostile bytes behind checked copies.
//!
//! The guest (and other threads that serve it) may change any byte at any time, so the
//! host never forms a `&[u8]` over guest memory. There are four ways to reach it: a
//! volatile copy in or out, the atomics of [`MappedControl`] and [`MappedSlots`], and a
//! raw pointer handed to a system call, which the kernel treats as it treats any user
//! memory.
//!
//! What is copied from or to the arena is spent of the turn's [`allowance`]. How long a range is, its
//! guest decides: what may be longer than a [`PIECE`] is copied by a future, piece by piece.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};
use wakebox_abi::boot::Clock;
use wakebox_abi::memory::{MappedControl, MappedSlots};
use wakebox_abi::op::Buf;
use wakebox_abi::status::Status;

use super::space::{Mapping, Space};
use crate::account::{Account, Kept};
use crate::allowance::{self, PIECE};
use crate::loader::Image;

/// The RAM of one guest: one anonymous mapping, committed page by page as it is touched.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    region: MmapRegion<()>,
    space: Space,
}

impl GuestMemory {
    /// Maps the RAM that `space` asks for, zeroed.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub(crate) fn new(space: Space) -> io::Result<Arc<Self>> {
        let region = MmapRegion::new(space.ram as usize).map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => error,
            other => io::Error::other(other),
        })?;
        let memory = Self { region, space };
        memory.advise_huge_pages();
        Ok(Arc::new(memory))
    }

    /// Asks for huge pages behind the heap, past its first 2 MiB: a small guest never
    /// pays for one, a large one takes a twentieth of the faults.
    fn advise_huge_pages(&self) {
        const LARGE: u64 = wakebox_abi::layout::LARGE_PAGE_SIZE;
        let (start, len) = (self.space.heap.offset + LARGE, self.space.heap.len);
        if len > LARGE {
            self.advise(start, len - LARGE);
        }
        // A trace ring is written all over.
        if self.space.trace.len > 0 {
            self.advise(self.space.trace.offset, self.space.trace.len);
        }
    }

    fn advise(&self, start: u64, len: u64) {
        // SAFETY: the range lies inside the mapping that `self.region` owns; the advice
        // does not change what its bytes are.
        let _ = unsafe {
            rustix::mm::madvise(
                self.region.as_ptr().add(start as usize).cast(),
                len as usize,
                rustix::mm::Advice::LinuxHugepage,
            )
        };
    }

    /// Where everything lies.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The mapping's first address and its length, for the memory slot.
    pub(crate) fn host_range(&self) -> (u64, u64) {
        (self.region.as_ptr() as u64, self.region.size() as u64)
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range is not inside the RAM: offsets come from [`Space`], never from a guest.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.region
            .get_slice(offset as usize, bytes.len())
            .expect("the host writes inside the RAM that it planned")
            .copy_from(bytes);
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.region
            .get_slice(offset as usize, bytes.len())
            .expect("the host reads inside the RAM that it planned")
            .copy_to(bytes);
    }

    /// What a stopped guest sees at its own addresses.
    pub(crate) fn view(self: &Arc<Self>, image: &Image) -> View {
        View::new(self.clone(), self.space.mappings(image))
    }

    fn pointer(&self, offset: u64, len: u64) -> NonNull<u8> {
        let slice = self
            .region
            .get_slice(offset as usize, len as usize)
            .expect("the host reaches inside the RAM that it planned");
        NonNull::new(slice.ptr_guard_mut().as_ptr()).expect("a mapping is not at address zero")
    }

    /// The control page.
    pub(crate) fn control(self: &Arc<Self>) -> Shared<MappedControl> {
        let base = self.pointer(self.space.control.offset, self.space.control.len);
        // SAFETY: the range is a page of the mapping, page-aligned because `Space` hands out
        // whole pages; `Shared` keeps the mapping alive.
        let value = unsafe { MappedControl::new(base) };
        Shared {
            value,
            _memory: self.clone(),
        }
    }

    /// The places of the submission ring.
    pub(crate) fn submissions<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.space.submissions.offset, self.space.submission_entries)
    }

    /// The places of the completion ring.
    pub(crate) fn completions<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.space.completions.offset, self.space.completion_entries)
    }

    /// The places of the trace ring.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn trace<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.space.trace.offset, self.space.trace_records)
    }

    fn slots<const WORDS: usize>(
        self: &Arc<Self>,
        offset: u64,
        entries: u32,
    ) -> Shared<MappedSlots<WORDS>> {
        let base = self
            .pointer(offset, u64::from(entries) * WORDS as u64 * 8)
            .cast();
        // SAFETY: `pointer` has checked that all places lie in the mapping; page alignment
        // covers the alignment to 8; `Shared` keeps the mapping alive.
        let value = unsafe { MappedSlots::new(base, entries) };
        Shared {
            value,
            _memory: self.clone(),
        }
    }

    /// Updates the clock page.
    pub(crate) fn write_clock(&self, moment: &wakebox_abi::boot::Moment) {
        let base = self.pointer(self.space.clock.offset, size_of::<Clock>() as u64);
        // SAFETY: the page lies in the mapping and is aligned; `Clock` is made of atomics, and
        // the guest's mapping of it is read-only.
        let clock = unsafe { base.cast::<Clock>().as_ref() };
        clock.write(moment);
    }

    /// The I/O arena.
    pub(crate) fn arena(self: &Arc<Self>) -> Arena {
        Arena {
            memory: self.clone(),
        }
    }
}

/// Guest memory by guest-virtual addresses, as the guest itself may read it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    memory: Arc<GuestMemory>,
    /// In the order of their addresses.
    mappings: Vec<Mapping>,
}

impl View {
    pub(crate) fn new(memory: Arc<GuestMemory>, mut mappings: Vec<Mapping>) -> Self {
        mappings.sort_by_key(|mapping| mapping.start);
        Self { memory, mappings }
    }

    /// All ranges that the guest can reach, in the order of their addresses.
    pub(crate) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Copies out what lies at an address, up to the end of the range that it is in. Returns how
    /// many bytes that were.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let behind = self
            .mappings
            .partition_point(|mapping| mapping.start <= address);
        let Some(mapping) = behind.checked_sub(1).map(|last| &self.mappings[last]) else {
            return 0;
        };
        let into = address - mapping.start;
        let (offset, left) = (
            mapping.part.offset + into,
            mapping.part.len.saturating_sub(into),
        );
        if left == 0 {
            return 0;
        }
        let len = bytes.len().min(left as usize);
        self.memory.read(offset, &mut bytes[..len]);
        len
    }
}

impl crate::debug::unwind::Memory for View {
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }
}

/// Something that lies in guest memory, together with what keeps that memory mapped.
#[derive(Clone, Debug)]
pub(crate) struct Shared<T> {
    value: T,
    _memory: Arc<GuestMemory>,
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl wakebox_abi::memory::Control for Shared<MappedControl> {
    #[inline]
    fn load(&self, word: wakebox_abi::memory::Word, order: std::sync::atomic::Ordering) -> u32 {
        self.value.load(word, order)
    }

    #[inline]
    fn store(
        &self,
        word: wakebox_abi::memory::Word,
        value: u32,
        order: std::sync::atomic::Ordering,
    ) {
        self.value.store(word, value, order);
    }

    #[inline]
    fn full_fence(&self) {
        self.value.full_fence();
    }
}

impl<const WORDS: usize> wakebox_abi::memory::Slots<WORDS> for Shared<MappedSlots<WORDS>> {
    #[inline]
    fn len(&self) -> u32 {
        wakebox_abi::memory::Slots::len(&self.value)
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

/// The range of guest memory in which the bytes of operations travel.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    memory: Arc<GuestMemory>,
}

impl Arena {
    /// The range that a buffer names, if it lies in the arena.
    pub(crate) fn slice(&self, buf: Buf) -> Option<ArenaSlice> {
        buf.lies_in(self.memory.space.arena.len)
            .then(|| ArenaSlice {
                memory: self.memory.clone(),
                buf,
            })
    }
}

/// So many bytes were copied in one go.
fn spend(bytes: usize) {
    debug_assert!(
        bytes <= PIECE || !allowance::counts(),
        "{bytes} bytes are copied without a look: a guest says how many"
    );
    allowance::spend(bytes);
}

/// A checked range of the arena.
#[derive(Clone, Debug)]
pub(crate) struct ArenaSlice {
    memory: Arc<GuestMemory>,
    buf: Buf,
}

impl ArenaSlice {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.buf.len as usize
    }

    /// Its first `most` bytes, or all of them.
    pub(crate) fn at_most(mut self, most: usize) -> Self {
        self.buf = self.buf.at_most(most);
        self
    }

    /// What follows its first `count` bytes, which may be nothing.
    pub(crate) fn behind(&self, count: usize) -> Self {
        Self {
            memory: self.memory.clone(),
            buf: self.buf.behind(count),
        }
    }

    fn offset(&self) -> u64 {
        self.memory.space.arena.offset + u64::from(self.buf.offset)
    }

    /// Its pieces, in order: each short enough to be copied at once.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Self> + use<> {
        let whole = self.clone();
        let starts = (0..self.len()).step_by(PIECE);
        starts.map(move |start| whole.behind(start).at_most(PIECE))
    }

    /// Adds its bytes to some for which there is room.
    fn append_to(&self, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        bytes.resize(before + self.len(), 0);
        self.memory.read(self.offset(), &mut bytes[before..]);
        spend(self.len());
    }

    /// The bytes, copied out once. Who keeps them has charged them, or they are a piece in passing.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the host has none.
    pub(crate) fn copied(&self) -> Result<Vec<u8>, Status> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(self.len())
            .map_err(|_| Status::OutOfMemory)?;
        self.append_to(&mut bytes);
        Ok(bytes)
    }

    /// A small array's bytes, copied out once, if there are so many.
    pub(crate) fn array<const LEN: usize>(&self) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        (self.len() >= LEN).then(|| self.memory.read(self.offset(), &mut bytes))?;
        Some(bytes)
    }

    /// The bytes, copied out once and charged for as long as they are kept. For few: others are
    /// [copied in pieces](Self::copy_out).
    ///
    /// # Errors
    ///
    /// As [`Account::room`].
    pub(crate) fn keep(&self, account: &Account) -> Result<Kept, Status> {
        let mut kept = account.room(self.len())?;
        self.append_to(kept.as_mut());
        Ok(kept)
    }

    /// The bytes, copied out once, in as many turns as it takes, and charged for as long as they are
    /// kept. The guest may change what has not been copied yet, as ever.
    ///
    /// # Errors
    ///
    /// As [`Account::room`].
    pub(crate) async fn copy_out(&self, account: &Account) -> Result<Kept, Status> {
        let mut kept = account.room(self.len())?;
        for piece in self.pieces() {
            allowance::give_way().await;
            piece.append_to(kept.as_mut());
        }
        Ok(kept)
    }

    /// Copies bytes to the start of the range, in as many turns as it takes; those that do not fit
    /// are left out. Returns how many were copied.
    pub(crate) async fn copy_in(&self, bytes: &[u8]) -> usize {
        for (piece, bytes) in self.pieces().zip(bytes.chunks(PIECE)) {
            allowance::give_way().await;
            piece.fill(bytes);
        }
        bytes.len().min(self.len())
    }

    /// Copies bytes to the start of the range; those that do not fit are left out.
    /// Returns how many were copied. For few: others are [copied in pieces](Self::copy_in).
    pub(crate) fn fill(&self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.len());
        self.memory.write(self.offset(), &bytes[..count]);
        spend(count);
        count
    }

    /// Has a system call read or write the range, or its first `most` bytes: `call` gets the first
    /// address and the length, and gives how many bytes it has moved. In a turn that is a piece at
    /// most, which is more than the largest datagram.
    ///
    /// # Errors
    ///
    /// What `call` says.
    pub(crate) fn in_kernel(
        &self,
        most: usize,
        call: impl FnOnce(*mut u8, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let most = if allowance::counts() {
            most.min(PIECE)
        } else {
            most
        };
        let base = self.memory.pointer(self.offset(), self.buf.len.into());
        let moved = call(base.as_ptr(), self.len().min(most))?;
        allowance::spend(moved);
        Ok(moved)
    }
}
