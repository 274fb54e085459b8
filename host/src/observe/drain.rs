//! The trace ring of one processor, as whoever runs that drains it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use wakebox_abi::memory::{Control, MappedControl, MappedSlots, Word};
use wakebox_abi::ring::{self, TraceConsumer};
use wakebox_abi::trace::Record;
use wakebox_vmm::memory::{GuestMemory, Shared};

use super::recorder::{HostEvent, Recorder};
use crate::trace::ExitReason;

/// The host's end of the ring.
type Ring = TraceConsumer<Shared<MappedControl>, Shared<MappedSlots<{ Record::WORDS }>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Drain {
    processor: u32,
    recorder: Recorder,
    /// Gone as soon as the guest has broken it.
    ring: Option<Ring>,
    /// Time of the last record.
    last: u64,
}

impl Drain {
    /// Of a processor's ring, from where it was emptied to: before it begins, or where another sandbox stood.
    pub(crate) fn new(recorder: &Recorder, memory: &Arc<GuestMemory>, processor: u32) -> Self {
        let (control, records) = (memory.control_of(processor), memory.trace_of(processor));
        let taken = control.load(Word::TraceHead, Ordering::Relaxed);
        // Of a guest that was not watched when it began, the host's side is seen.
        let ring =
            records.map(|records| TraceConsumer::starting_at(control, records, ring::TRACE, taken));
        Self {
            processor,
            recorder: recorder.clone(),
            ring,
            last: recorder.now(),
        }
    }

    /// The guest is about to be entered, with an interrupt or without.
    pub(crate) fn enters(&self, is_interrupted: bool) {
        if is_interrupted {
            self.recorder.log(HostEvent::Injected(self.processor));
        }
        self.recorder.entered(self.processor);
    }

    /// The guest was left: takes what it wrote.
    pub(crate) fn exited(&mut self, reason: ExitReason) {
        let Self {
            processor,
            ring,
            last,
            ..
        } = self;
        self.recorder.left(*processor, reason, |room, now, batch| {
            let Some(open) = ring else {
                return None;
            };
            // Once for all of them; what is wrong with the ring is found below.
            let waiting = open.look().unwrap_or(0) as usize;
            batch.reserve(room.min(waiting));
            for _ in 0..room {
                match open.pop() {
                    Ok(Some(Record([at, head, first, second]))) => {
                        // The guest's claim, as far as it can be.
                        *last = at.clamp(*last, now.max(*last));
                        batch.push(Record([*last, head, first, second]));
                    }
                    Ok(None) => break,
                    Err(corrupt) => {
                        *ring = None;
                        return Some(corrupt.to_string());
                    }
                }
            }
            open.release();
            None
        });
    }

    /// It is parked.
    pub(crate) fn parked(&self) {
        self.recorder.log(HostEvent::Parked(self.processor));
    }

    /// It goes on.
    pub(crate) fn resumed(&self) {
        self.recorder.log(HostEvent::Resumed(self.processor));
    }

    /// Ready unless the sinks are so far behind that the guest should wait.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.recorder.poll_room(self.processor, context)
    }
}
