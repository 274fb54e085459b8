//! The guest's end of the trace ring.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::{Record, TEXT_MAX, TEXT_PART, Text, What, ticks};
use crate::boot::Boot;
use crate::layout;
use crate::memory::{Control, MappedControl, MappedSlots, Slots, Word};
use crate::ring::{self, TraceProducer};

/// The guest's end of the ring.
#[derive(Debug)]
pub struct Writer<C, S> {
    control: C,
    ring: TraceProducer<C, S>,
    /// Records without room since the last one that had some.
    lost: u64,
}

impl<C: Control + Clone, S: Slots<{ Record::WORDS }>> Writer<C, S> {
    /// The writing end of an empty ring.
    pub fn new(control: C, slots: S) -> Self {
        Self {
            control: control.clone(),
            ring: TraceProducer::new(control, slots, ring::TRACE),
            lost: 0,
        }
    }

    /// Writes a record, which the host may read at once; or counts it as lost.
    #[inline]
    pub fn write(&mut self, ticks: u64, what: What) {
        if self.lost > 0 {
            self.confess(ticks);
        }
        if self.lost > 0 || !self.push(ticks, what) {
            self.lose();
        }
    }

    /// Writes a text that belongs to the record that follows.
    pub fn text(&mut self, ticks: u64, text: Text, words: &str) {
        let len = words.floor_char_boundary(TEXT_MAX);
        for part in words
            .as_bytes()
            .get(..len)
            .unwrap_or_default()
            .chunks(TEXT_PART)
        {
            let mut bytes = [0; TEXT_PART];
            for (to, byte) in bytes.iter_mut().zip(part) {
                *to = *byte;
            }
            let len = part.len() as u8;
            self.write(ticks, What::Text { text, bytes, len });
        }
    }

    /// Whether the ring is three quarters full: a good time to ring [`crate::port::SUBMIT`], between two
    /// turns of an executor, because the host takes the records out whenever it has left the
    /// guest.
    #[inline]
    pub fn is_crowded(&mut self) -> bool {
        let slots = self.ring.capacity();
        matches!(self.ring.look(), Ok(unread) if unread > slots - slots / 4)
    }

    /// Whether the record had room. A head that cannot be counts as a full ring: nobody dies
    /// of being watched.
    #[inline]
    fn push(&mut self, ticks: u64, what: What) -> bool {
        let has_room = matches!(self.ring.push(Record::new(ticks, what)), Ok(true));
        self.ring.publish();
        has_room
    }

    /// Says how many records were lost, if there is room.
    #[cold]
    fn confess(&mut self, ticks: u64) {
        if self.push(ticks, What::Lost { count: self.lost }) {
            self.lost = 0;
        }
    }

    #[cold]
    fn lose(&mut self) {
        self.lost += 1;
        let lost = self.control.load(Word::TraceLost, Ordering::Relaxed);
        self.control
            .store(Word::TraceLost, lost.wrapping_add(1), Ordering::Relaxed);
    }
}

/// The trace of the guest that this code runs in; writes nothing if nobody watches.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub struct Trace(Option<Writer<MappedControl, MappedSlots<{ Record::WORDS }>>>);

#[cfg(target_arch = "x86_64")]
impl Trace {
    /// A trace that nobody watches.
    pub const OFF: Self = Self(None);

    /// The guest's end of the ring of its boot page.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest whose boot page is `boot`, and there is no other value of
    /// this kind, nor was there.
    #[must_use]
    pub unsafe fn of_guest(boot: &Boot) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::with_slots(boot.trace_records) }
    }

    /// The guest's end of a ring with so many slots; of none, if they are zero.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest whose trace ring has as many slots, and there is no other value
    /// of this kind that is on, nor was there.
    #[must_use]
    pub unsafe fn with_slots(slots: u32) -> Self {
        if slots == 0 {
            return Self::OFF;
        }
        let at = |address: u64| {
            NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(
                address as usize,
            ))
        };
        let (Some(control), Some(ring)) = (at(layout::CONTROL), at(layout::TRACE)) else {
            unreachable!("nothing of the memory map lies at zero")
        };
        // SAFETY: the host has mapped the control page, and a ring of that many slots, a power
        // of two, for ever; all is reached through atomics.
        let (control, slots) = unsafe {
            (
                MappedControl::new(control),
                MappedSlots::new(ring.cast(), slots),
            )
        };
        Self(Some(Writer::new(control, slots)))
    }

    /// Whether somebody watches.
    #[inline]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// As [`Writer::is_crowded`].
    #[inline]
    pub fn is_crowded(&mut self) -> bool {
        self.0.as_mut().is_some_and(Writer::is_crowded)
    }

    /// Tells what happens now.
    #[inline]
    pub fn write(&mut self, what: What) {
        if let Some(writer) = &mut self.0 {
            writer.write(ticks(), what);
        }
    }

    /// Tells what is called so; the record it belongs to follows.
    pub fn text(&mut self, text: Text, words: &str) {
        if let Some(writer) = &mut self.0 {
            writer.text(ticks(), text, words);
        }
    }

    /// Tells that a task with a name was made.
    pub fn spawned(&mut self, task: u32, by: u32, name: &str) {
        self.text(Text::Name, name);
        self.write(What::Spawned { task, by });
    }
}
