//! Guest memory as the host sees it: hostile bytes behind checked copies.
//!
//! The guest (and other threads that serve it) may change any byte at any time, so the
//! host never forms a `&[u8]` over guest memory. There are four ways to reach it: a
//! volatile copy in or out, the atomics of [`MappedControl`] and [`MappedSlots`], and a
//! raw pointer handed to a system call, which the kernel treats as it treats any user
//! memory.

mod shared;
mod view;

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::Advice;
use vm_memory::{MmapRegion, VolatileMemory};
use wakebox_abi::boot::{Clock, Instance};
use wakebox_abi::memory::{MappedControl, MappedSlots};

pub use self::shared::Shared;
pub use self::view::View;
use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::frozen::{Frozen, data};
use crate::hot::Example;
use crate::pages::{self, Range};
use crate::plan::Plan;

/// The RAM of one guest: one mapping.
#[derive(Debug)]
pub struct GuestMemory {
    mapping: MmapRegion<()>,
    backing: Backing,
    plan: Plan,
    /// What it tells others of the template that it was made of, if it is asked.
    example: Option<Example>,
}

/// Bytes that are copied at once.
const PIECE: u64 = 256 << 10;

/// Opens what tells which pages of a guest were written, for a process that can open no file later.
/// Where it cannot be opened, all pages are looked at.
pub fn prepare() {
    let _ = pages::pagemap();
}

impl GuestMemory {
    /// Maps the RAM that `plan` asks for, zeroed.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn new(plan: Plan) -> Result<Arc<Self>> {
        Self::on(&Backing::Anonymous, plan)
    }

    /// Maps the RAM that `plan` asks for, made of what is there.
    ///
    /// # Errors
    ///
    /// [`Error::Map`]; its source is of kind `InvalidInput` if a file is too short, or not sealed as
    /// [`Backing`] wants it.
    pub fn on(backing: &Backing, plan: Plan) -> Result<Arc<Self>> {
        let bytes = plan.ram;
        let mapping = backing
            .map(bytes)
            .map_err(|source| Error::Map { bytes, source })?;
        let mut memory = Self {
            mapping,
            backing: backing.clone(),
            plan,
            example: None,
        };
        memory.made();
        Ok(Arc::new(memory))
    }

    /// The ranges that may hold something that is no zero.
    fn touched(&self) -> Vec<Range> {
        let (start, len) = self.host_range();
        // Where the kernel does not tell, it may be any.
        let all = || vec![Range { offset: 0, len }];
        let own = pages::own(start, len);
        match &self.backing {
            Backing::Anonymous => own.unwrap_or_else(|_| all()),
            Backing::Template(template) => match (data(template.file(), len), own) {
                (Ok(mut ranges), Ok(own)) => {
                    ranges.extend(own);
                    ranges
                }
                _ => all(),
            },
        }
    }

    /// What lies in it now. The guest must not run, and nobody else write, while this is made.
    ///
    /// # Errors
    ///
    /// As [`Frozen::write`].
    pub fn freeze(&self) -> Result<Frozen> {
        let mut frozen = Frozen::new(self.plan.clone())?;
        let mut piece = vec![0; PIECE as usize];
        for range in self.touched() {
            let end = range.offset + range.len;
            let mut at = range.offset;
            while at < end {
                let piece = &mut piece[..PIECE.min(end - at) as usize];
                self.read(at, piece);
                frozen.write(at, piece)?;
                at += piece.len() as u64;
            }
        }
        frozen.seal()?;
        Ok(frozen)
    }

    /// Makes it again what it was made of. The guest must not run, and nobody else write, meanwhile.
    /// Returns how many bytes differed.
    ///
    /// Pages stay where they are: to write one again is cheaper than to be given it again.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if it was not made of a template, or if the kernel does not tell what was written.
    /// It then is what nobody knows.
    pub fn reset(&self) -> Result<u64> {
        let (start, len) = self.host_range();
        let failed = |source| Error::Map { bytes: len, source };
        let Backing::Template(template) = &self.backing else {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        };
        let mut bytes = 0;
        for range in pages::own(start, len).map_err(failed)? {
            let mut done = 0;
            while done < range.len {
                let at = range.offset + done;
                let into = self.pointer(at, range.len - done);
                // SAFETY: the range lies in the mapping, which is guest memory: the kernel writes it
                // as it writes any memory of a user's.
                let read = unsafe {
                    libc::pread(
                        template.file().as_raw_fd(),
                        into.as_ptr().cast(),
                        (range.len - done) as usize,
                        at as libc::off_t,
                    )
                };
                match u64::try_from(read) {
                    Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                    Ok(read) => done += read,
                    Err(_) => {
                        let error = io::Error::last_os_error();
                        if error.kind() != io::ErrorKind::Interrupted {
                            return Err(failed(error));
                        }
                    }
                }
            }
            bytes += range.len;
        }
        Ok(bytes)
    }

    /// Whether what is planned could lie where it lies.
    pub(crate) fn fits(&self, plan: &Plan) -> bool {
        plan.ram == self.mapping.size() as u64 && plan.base == self.plan.base
    }

    /// Makes it of something else, where it lies; nothing of what was in it is left.
    ///
    /// # Errors
    ///
    /// [`Error::Map`]: also if the plan asks for another size. It is not to be used then.
    pub(crate) fn remake(&mut self, backing: &Backing, plan: Plan) -> Result<()> {
        let (start, len) = self.host_range();
        if !self.fits(&plan) {
            return Err(Error::Map {
                bytes: plan.ram,
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        if self.backing.is_same(backing)
            && let Ok(differed) = self.reset()
        {
            self.plan = plan;
            match differed {
                0 => self.made(),
                // It has what its last guest has written, and is no example of what one writes.
                _ => self.example = None,
            }
            return Ok(());
        }
        // SAFETY: the range is the whole mapping of `self.mapping`, of which nobody else knows: this is
        // the only reference to it.
        unsafe { backing.map_over(start, len) }
            .map_err(|source| Error::Map { bytes: len, source })?;
        self.backing = backing.clone();
        self.plan = plan;
        self.made();
        Ok(())
    }

    /// It is what it was made of, and nothing of that was touched.
    fn made(&mut self) {
        self.example = None;
        match &self.backing {
            Backing::Anonymous => self.advise_huge_pages(),
            Backing::Template(template) => {
                self.example = template.hot.example();
                if self.example.is_none() {
                    for range in template.hot.ranges().iter() {
                        // Those that it will write are copied now.
                        self.advise(range.offset, range.len, Advice::LinuxPopulateWrite);
                    }
                }
            }
        }
    }

    /// Tells others of its template what its guest has written by now, if it is one that is asked. Worth
    /// a call whenever the guest has done some work, and when it has ended.
    pub fn learn(&self) {
        if let Some(example) = &self.example {
            let (start, len) = self.host_range();
            example.look(|| pages::own(start, len).ok());
        }
    }

    /// Asks for huge pages behind the heap, past its first 2 MiB: a small guest never
    /// pays for one, a large one takes a twentieth of the faults.
    fn advise_huge_pages(&self) {
        const LARGE: u64 = wakebox_abi::layout::LARGE_PAGE_SIZE;
        let (start, len) = (self.plan.heap.offset + LARGE, self.plan.heap.len);
        if len > LARGE {
            self.advise(start, len - LARGE, Advice::LinuxHugepage);
        }
        // A trace ring is written all over.
        if self.plan.trace.len > 0 {
            let trace = self.plan.trace;
            self.advise(trace.offset, trace.len, Advice::LinuxHugepage);
        }
    }

    /// Advice that the kernel does not take is none.
    fn advise(&self, start: u64, len: u64, advice: Advice) {
        // SAFETY: the range lies inside the mapping that `self.mapping` owns, which is guest memory: its
        // bytes may change at any time.
        let _ = unsafe {
            rustix::mm::madvise(
                self.mapping.as_ptr().add(start as usize).cast(),
                len as usize,
                advice,
            )
        };
    }

    /// Where everything lies.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What it is made of.
    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Gives back what was written, if that is more than so many bytes, or cannot be made undone: it
    /// then is what it was made of. Whoever still reads or writes it finds that, or writes for nobody.
    pub(crate) fn keep_at_most(&self, bytes: u64) {
        let (start, len) = self.host_range();
        self.learn();
        if bytes > 0
            && matches!(self.backing, Backing::Template(_))
            && pages::own(start, len)
                .is_ok_and(|own| own.iter().map(|range| range.len).sum::<u64>() <= bytes)
        {
            return;
        }
        // If it is refused, it is the next owner's to map over.
        self.advise(0, len, Advice::LinuxDontNeed);
    }

    /// The mapping's first address and its length, for the memory slot.
    pub fn host_range(&self) -> (u64, u64) {
        (self.mapping.as_ptr() as u64, self.mapping.size() as u64)
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range is not inside the RAM: offsets come from [`Plan`], never from a guest.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.mapping
            .get_slice(offset as usize, bytes.len())
            .expect("the host writes inside the RAM that it planned")
            .copy_from(bytes);
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.mapping
            .get_slice(offset as usize, bytes.len())
            .expect("the host reads inside the RAM that it planned")
            .copy_to(bytes);
    }

    /// Writes what the processor needs before its first instruction: descriptor tables, stubs and
    /// page tables.
    ///
    /// # Panics
    ///
    /// If the tables take more pages than were planned, which would be a mistake in [`Plan`].
    pub fn write_tables(&self) {
        for (offset, bytes) in self.plan.written() {
            self.write(offset, &bytes);
        }
    }

    /// What a stopped guest sees at its own addresses.
    pub fn view(self: &Arc<Self>) -> View {
        View::new(self.clone(), self.plan.mappings())
    }

    /// The address of a range, for a system call that reads or writes it. It is valid as long as this
    /// lives.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    pub fn pointer(&self, offset: u64, len: u64) -> NonNull<u8> {
        let slice = self
            .mapping
            .get_slice(offset as usize, len as usize)
            .expect("the host reaches inside the RAM that it planned");
        NonNull::new(slice.ptr_guard_mut().as_ptr()).expect("a mapping is not at address zero")
    }

    /// The control page.
    pub fn control(self: &Arc<Self>) -> Shared<MappedControl> {
        let base = self.pointer(self.plan.control.offset, self.plan.control.len);
        // SAFETY: the range is a page of the mapping, page-aligned because `Plan` hands out
        // whole pages; `Shared` keeps the mapping alive.
        let value = unsafe { MappedControl::new(base) };
        Shared {
            value,
            _memory: self.clone(),
        }
    }

    /// The slots of the submission ring.
    pub fn submissions<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.plan.submissions.offset, self.plan.submission_entries)
    }

    /// The slots of the completion ring.
    pub fn completions<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.plan.completions.offset, self.plan.completion_entries)
    }

    /// The slots of the trace ring.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn trace<const WORDS: usize>(self: &Arc<Self>) -> Shared<MappedSlots<WORDS>> {
        self.slots(self.plan.trace.offset, self.plan.trace_records)
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
    pub fn write_clock(&self, moment: &wakebox_abi::boot::Moment) {
        let base = self.pointer(self.plan.clock.offset, size_of::<Clock>() as u64);
        // SAFETY: the page lies in the mapping and is aligned; `Clock` is made of atomics, and
        // the guest's mapping of it is read-only.
        let clock = unsafe { base.cast::<Clock>().as_ref() };
        clock.write(moment);
    }

    /// The instance page. Only while the guest sleeps may it be written.
    pub fn instance(&self) -> &Instance {
        let base = self.pointer(self.plan.instance.offset, size_of::<Instance>() as u64);
        // SAFETY: the page lies in the mapping, which lives as long as the reference, and is
        // aligned; `Instance` is made of atomics, and the guest's mapping of it is read-only.
        unsafe { base.cast().as_ref() }
    }
}
