//! Windows of a guest, as its memory has them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::mm::Advice;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::window::{Answer, Request};

use super::GuestMemory;
use crate::x86_64::windows::{Entries, Tables};

/// What is known of the tables of a memory.
#[derive(Debug, Default)]
pub(super) struct State {
    used: Option<u64>,
    /// Whether an entry may differ from what the memory was made of.
    is_edited: bool,
}

/// The entries that a guest has.
struct InMemory<'a>(&'a GuestMemory);

impl InMemory<'_> {
    fn entry(&self, at: u64) -> &AtomicU64 {
        let region = self.0.plan().windows;
        assert!(at * 8 < region.len, "an entry lies in a table");
        let pointer = self.0.pointer(region.offset + at * 8, 8);
        // SAFETY: it lies in the mapping and is aligned; an atomic allows whatever is done to it meanwhile: the processor
        // and KVM read it.
        unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) }
    }
}

impl Entries for InMemory<'_> {
    fn get(&self, at: u64) -> u64 {
        self.entry(at).load(Ordering::Relaxed)
    }

    fn set(&mut self, at: u64, entry: u64) {
        // What it leads to was written before.
        self.entry(at).store(entry, Ordering::Release);
    }
}

impl GuestMemory {
    /// Does what a processor of the guest has asked for that has rung [`wakebox_abi::port::MAP`], as far as it may, and
    /// tells it. It takes some microseconds, and if pages are given back one by one, a few milliseconds.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn edit_windows(self: &Arc<Self>, processor: u32) {
        let control = self.control_of(processor);
        let request = Request::read(&control);
        let answer = self.edit(&request).err().unwrap_or(Answer::Done);
        control.store(Word::WindowAnswer, answer as u32, Ordering::Relaxed);
    }

    fn window_tables(&self) -> MutexGuard<'_, State> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what lies in its windows has changed since it was made: it is then to serve no other guest.
    pub(crate) fn is_edited(&self) -> bool {
        self.window_tables().is_edited
    }

    fn edit(&self, request: &Request) -> Result<(), Answer> {
        let mut state = self.window_tables();
        let mut tables = Tables::new(self.plan().window_place(), InMemory(self), state.used);
        state.is_edited = true;
        let done = match request.from {
            0 => tables.hide(request).map(|ranges| {
                for (start, len) in ranges {
                    let offset = self.plan().heap.offset + start;
                    self.advise(offset, len, Advice::LinuxDontNeed);
                }
            }),
            _ => tables.show(request),
        };
        state.used = Some(tables.used);
        done
    }
}
