//! Guest memory as the host sees it: hostile bytes behind checked copies.
//!
//! The guest (and other threads that serve it) may change any byte at any time, so the
//! host never forms a `&[u8]` over guest memory. There are four ways to reach it: a
//! volatile copy in or out, the atomics of [`MappedControl`] and [`MappedSlots`], and a
//! raw pointer handed to a system call, which the kernel treats as it treats any user
//! memory.
//!
//! # Where it lies
//!
//! The memory of a guest that has a machine lies where that machine has it. A guest that sleeps may give
//! its machine to another; its memory then lies nowhere (`detached.rs`), and when it has
//! a machine again, elsewhere. So nobody keeps an address: it is asked at each access, and there is
//! none while the memory lies nowhere, which is a mistake that panics.
//!
//! That an address does not change while it is used follows from who uses it: the task that runs the
//! guest, which is the one that gives the machine away, and whoever takes the driver's turns, which it
//! excludes while it does. All others [say](GuestMemory::stay) that they use it, and while any does, the
//! machine is kept.

mod shared;
mod view;
mod windows;

use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::Advice;
use vm_memory::{MmapRegion, VolatileSlice};
use wakebox_abi::boot::{Clock, Instance};
use wakebox_abi::layout::PAGE_SIZE;
use wakebox_abi::memory::{Control, Counter, MappedControl, MappedSlots, Word};

pub use self::shared::Shared;
pub use self::view::View;
use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::frozen::Frozen;
use crate::hot::Example;
use crate::pages::{self, Range};
use crate::plan::Plan;

/// The RAM of one guest: one mapping, or none for a while.
#[derive(Debug)]
pub struct GuestMemory {
    /// Where it begins; null while it lies nowhere.
    base: AtomicPtr<u8>,
    place: Mutex<Place>,
    /// How many use it who must not find it gone.
    stays: AtomicUsize,
    backing: Backing,
    plan: Plan,
    /// What it tells others of the template that it was made of, if it is asked.
    example: Option<Example>,
    /// What is known of the tables of its windows.
    windows: Mutex<windows::State>,
}

/// Where guest memory lies.
#[derive(Debug)]
enum Place {
    Mapped(MmapRegion<()>),
    /// Nowhere. The control page of each processor as it was is kept for whoever looks at its words.
    Nowhere(Box<[ControlPage]>),
}

/// A copy of a control page, to be looked at.
#[derive(Clone, Debug)]
pub struct ControlPage(Box<AlignedPage>);

#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct AlignedPage([u8; PAGE_SIZE as usize]);

impl ControlPage {
    fn mapped(&self) -> MappedControl {
        // SAFETY: the page is aligned and as long as this lives; it is only read.
        unsafe { MappedControl::new(NonNull::from(&self.0.0).cast()) }
    }

    /// A word.
    #[must_use]
    pub fn word(&self, word: Word) -> u32 {
        self.mapped().load(word, Ordering::Relaxed)
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.mapped().counter(counter).load(Ordering::Relaxed)
    }
}

/// Keeps guest memory where it lies.
#[derive(Debug)]
pub struct Stay<M: Deref<Target = GuestMemory>>(M);

impl<M: Deref<Target = GuestMemory>> Stay<M> {
    /// Keeps it as long as the value lives; `None` if it lies nowhere. For whoever does not run its guest and does
    /// not take turns of its driver.
    pub fn of(memory: M) -> Option<Self> {
        // Partner: `leave`. Race: this side finds it there while the other finds nobody. Both orders are
        // sequentially consistent, so one of them sees the other.
        memory.stays.fetch_add(1, Ordering::SeqCst);
        let stay = Self(memory);
        (!stay.0.base.load(Ordering::SeqCst).is_null()).then_some(stay)
    }
}

impl<M: Deref<Target = GuestMemory>> Drop for Stay<M> {
    fn drop(&mut self) {
        self.0.stays.fetch_sub(1, Ordering::Release);
    }
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
        let mut memory = Self::mapped(mapping, backing.clone(), plan);
        memory.made();
        Ok(Arc::new(memory))
    }

    fn mapped(mapping: MmapRegion<()>, backing: Backing, plan: Plan) -> Self {
        Self {
            base: AtomicPtr::new(mapping.as_ptr()),
            place: Mutex::new(Place::Mapped(mapping)),
            stays: AtomicUsize::new(0),
            backing,
            plan,
            example: None,
            windows: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Stay::of`].
    pub fn stay(&self) -> Option<Stay<&Self>> {
        Stay::of(self)
    }

    /// The first processor's control page as it is now, or was when the memory was somewhere last, from
    /// wherever it is asked.
    pub fn control_page(&self) -> ControlPage {
        self.control_page_of(0)
    }

    /// The same of a processor.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn control_page_of(&self, processor: u32) -> ControlPage {
        // It moves under this lock.
        match &*self.lock() {
            Place::Mapped(_) => {
                let mut page = AlignedPage([0; PAGE_SIZE as usize]);
                self.read(self.plan.own(processor).control.offset, &mut page.0);
                ControlPage(Box::new(page))
            }
            Place::Nowhere(kept) => kept[processor as usize].clone(),
        }
    }

    /// It lies nowhere from now on: gives what is mapped, as memory that is nobody's. `None`, and nothing
    /// changes, while somebody keeps it there. Only who runs the guest, or would, and holds up its driver
    /// may call this.
    pub(crate) fn leave(&self) -> Option<Self> {
        let mut place = self.lock();
        let base = self.base.swap(ptr::null_mut(), Ordering::SeqCst);
        let was_there = !base.is_null();
        if !was_there || self.stays.load(Ordering::SeqCst) > 0 {
            self.base.store(base, Ordering::SeqCst);
            return None;
        }
        let mapped = std::mem::replace(&mut *place, Place::Nowhere(Box::default()));
        let Place::Mapped(mapping) = mapped else {
            unreachable!("it has an address")
        };
        let left = Self::mapped(mapping, self.backing.clone(), self.plan.clone());
        let pages = (0..self.plan.processors()).map(|processor| left.control_page_of(processor));
        *place = Place::Nowhere(pages.collect());
        Some(left)
    }

    /// It lies where this has lain from now on, and is what this is. It has lain nowhere.
    pub(crate) fn enter(&self, there: Self) {
        let Self { base, place, .. } = there;
        *self.lock() = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.base.store(base.into_inner(), Ordering::SeqCst);
    }

    /// The ranges that may hold something that is no zero.
    fn touched(&self) -> Vec<Range> {
        let (start, len) = self.host_range();
        match (self.backing.data(len), pages::own(start, len)) {
            (Ok(mut ranges), Ok(own)) => {
                ranges.extend(own);
                ranges
            }
            // Where the kernel does not tell, it may be any.
            _ => vec![Range { offset: 0, len }],
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
        let own = self.own()?;
        self.write_back(&own)
    }

    /// The same, if the pages that may differ are at most so many bytes. Returns whether it was done.
    pub(crate) fn reset_at_most(&self, bytes: u64) -> bool {
        let own = self.own_at_most(bytes);
        own.is_some_and(|own| self.write_back(&own).is_ok())
    }

    /// Pages that may differ from the template that it was made of, if it was, and they are at most so many
    /// bytes.
    fn own_at_most(&self, bytes: u64) -> Option<Vec<pages::Range>> {
        if !matches!(self.backing, Backing::Template(_)) {
            return None;
        }
        let own = self.own().ok()?;
        (own.iter().map(|range| range.len).sum::<u64>() <= bytes).then_some(own)
    }

    /// Pages that may differ from what it was made of.
    fn own(&self) -> Result<Vec<pages::Range>> {
        let (start, bytes) = self.host_range();
        pages::own(start, bytes).map_err(|source| Error::Map { bytes, source })
    }

    fn write_back(&self, own: &[pages::Range]) -> Result<u64> {
        let failed = |source| Error::Map {
            bytes: self.plan.ram,
            source,
        };
        let Backing::Template(template) = &self.backing else {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        };
        let mut bytes = 0;
        for range in own {
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
        let processors = self.plan.processors();
        plan.ram == self.plan.ram && plan.base == self.plan.base && plan.processors() == processors
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
        let was = self.backing.is_same(backing).then(|| match backing {
            Backing::Anonymous | Backing::Parts(_) => self.discard().then_some(0),
            Backing::Template(_) => self.reset().ok(),
        });
        self.plan = plan;
        if let Some(differed) = was.flatten() {
            match differed {
                0 => self.made(),
                // It has what its last guest has written, and is no example of what one writes.
                _ => self.example = None,
            }
            return Ok(());
        }
        // SAFETY: the range is the whole mapping, of which nobody else knows: this is the only reference to
        // it.
        unsafe { backing.map_over(start, len) }
            .map_err(|source| Error::Map { bytes: len, source })?;
        self.backing = backing.clone();
        self.made();
        Ok(())
    }

    /// It is what it was made of, and nothing of that was touched.
    fn made(&mut self) {
        self.example = None;
        match &self.backing {
            Backing::Anonymous | Backing::Parts(_) => self.advise_page_sizes(),
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

    /// Asks for huge pages in the heap, past its first 2 MiB, and nowhere else: a small guest never
    /// pays for one, also where the kernel gives them to all who do not refuse, and a large one takes a
    /// twentieth of the faults.
    fn advise_page_sizes(&self) {
        const LARGE: u64 = wakebox_abi::layout::LARGE_PAGE_SIZE;
        self.advise(0, self.plan.ram, Advice::LinuxNoHugepage);
        let (start, len) = (self.plan.heap.offset + LARGE, self.plan.heap.len);
        if len > LARGE {
            self.advise(start, len - LARGE, Advice::LinuxHugepage);
        }
        // A trace ring is written all over.
        let rings = (0..self.plan.processors()).map(|processor| self.plan.own(processor).trace);
        for trace in rings.filter(|trace| trace.len > 0) {
            self.advise(trace.offset, trace.len, Advice::LinuxHugepage);
        }
    }

    /// Advice that the kernel does not take is none. Returns whether it took it.
    fn advise(&self, start: u64, len: u64, advice: Advice) -> bool {
        let start = self.pointer(start, len);
        // SAFETY: the range lies inside the mapping that `self` owns, which is guest memory: its bytes may
        // change at any time.
        let advised = unsafe { rustix::mm::madvise(start.as_ptr().cast(), len as usize, advice) };
        advised.is_ok()
    }

    /// Where everything lies.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether it was made of this, with everything where it lies in it.
    pub(crate) fn is_made_of(&self, backing: &Backing, plan: &Plan) -> bool {
        self.backing.is_same(backing) && self.plan == *plan
    }

    /// What it is made of.
    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Gives back what was written, if that is more than so many bytes, or cannot be made undone: it
    /// then is what it was made of. Whoever still reads or writes it finds that, or writes for nobody.
    pub(crate) fn keep_at_most(&self, bytes: u64) {
        if bytes == 0 || self.own_at_most(bytes).is_none() {
            self.discard();
        }
    }

    /// Gives back all that was written. Returns whether it is what it was made of: if not, it is the next
    /// owner's to map over.
    pub(crate) fn discard(&self) -> bool {
        self.advise(0, self.plan.ram, Advice::LinuxDontNeed)
    }

    /// The mapping's first address and its length, for the memory slot.
    ///
    /// # Panics
    ///
    /// If it lies nowhere.
    pub fn host_range(&self) -> (u64, u64) {
        let len = self.plan.ram;
        (self.pointer(0, len).as_ptr() as u64, len)
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range is not inside the RAM: offsets come from [`Plan`], never from a guest. If it lies
    /// nowhere.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.slice(offset, bytes.len()).copy_from(bytes);
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.slice(offset, bytes.len()).copy_to(bytes);
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

    /// What a stopped guest sees at its own addresses, on its first processor.
    pub fn view(self: &Arc<Self>) -> View {
        self.view_of(0)
    }

    /// What a stopped guest sees at its own addresses, on a processor.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn view_of(self: &Arc<Self>, processor: u32) -> View {
        View::new(self.clone(), self.plan.mappings_of(processor))
    }

    /// The bytes of a range, to be copied in or out.
    fn slice(&self, offset: u64, len: usize) -> VolatileSlice<'_> {
        let base = self.pointer(offset, len as u64);
        // SAFETY: the range lies in the mapping, which stays as long as it is used (see the module); the
        // slice copies bytes and never refers to them.
        unsafe { VolatileSlice::new(base.as_ptr(), len) }
    }

    /// The address of a range, for a system call that reads or writes it. It is valid as long as this
    /// lies where it does.
    ///
    /// # Panics
    ///
    /// As [`Self::write`].
    #[inline]
    pub fn pointer(&self, offset: u64, len: u64) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.plan.ram),
            "the host reaches inside the RAM that it planned"
        );
        let base = NonNull::new(self.base.load(Ordering::Relaxed))
            .expect("nobody reaches into the memory of a guest without a machine");
        // SAFETY: the offset lies in the mapping, which is as long as the RAM, or at its end.
        unsafe { base.add(offset as usize) }
    }

    /// The first processor's control page.
    pub fn control(self: &Arc<Self>) -> Shared<MappedControl> {
        self.control_of(0)
    }

    /// A processor's control page.
    ///
    /// # Panics
    ///
    /// If there is no such processor; as with the rings.
    pub fn control_of(self: &Arc<Self>, processor: u32) -> Shared<MappedControl> {
        Shared::control(self, self.plan.own(processor).control)
    }

    /// The slots of a processor's submission ring.
    pub fn submissions_of<const WORDS: usize>(
        self: &Arc<Self>,
        processor: u32,
    ) -> Shared<MappedSlots<WORDS>> {
        let region = self.plan.own(processor).submissions;
        Shared::slots(self, region, self.plan.submission_entries)
    }

    /// The slots of a processor's completion ring.
    pub fn completions_of<const WORDS: usize>(
        self: &Arc<Self>,
        processor: u32,
    ) -> Shared<MappedSlots<WORDS>> {
        let region = self.plan.own(processor).completions;
        Shared::slots(self, region, self.plan.completion_entries)
    }

    /// The slots of a processor's trace ring, if there is one.
    pub fn trace_of<const WORDS: usize>(
        self: &Arc<Self>,
        processor: u32,
    ) -> Option<Shared<MappedSlots<WORDS>>> {
        let (region, records) = (self.plan.own(processor).trace, self.plan.trace_records);
        (records > 0).then(|| Shared::slots(self, region, records))
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
