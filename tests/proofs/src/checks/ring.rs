//! One end of one ring, whatever the other end says.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use wakebox_abi::entry::{Completion, Token};
use wakebox_abi::memory::{Control, Slots, Word};
use wakebox_abi::ring::{COMPLETION, CompletionConsumer, CompletionProducer};
use wakebox_abi::status::Status;

use super::run;
use crate::any::Any;

/// What each of the two words of the ring says at the next look.
#[derive(Clone, Default)]
struct Page(Rc<Cell<u32>>);

impl Control for Page {
    fn load(&self, _: Word, _: Ordering) -> u32 {
        self.0.get()
    }

    fn store(&self, _: Word, _: u32, _: Ordering) {}

    fn add(&self, _: Word, _: u32, _: Ordering) -> u32 {
        self.0.get()
    }

    fn full_fence(&self) {}
}

/// Slots that are not there: only an index out of range would be noticed.
#[derive(Clone)]
struct NoSlots(u32);

impl Slots<2> for NoSlots {
    fn len(&self) -> u32 {
        self.0
    }

    fn read(&self, index: u32) -> [u64; 2] {
        assert!(index < self.0, "slot {index} of {}", self.0);
        [0; 2]
    }

    fn write(&self, index: u32, _: [u64; 2]) {
        assert!(index < self.0, "slot {index} of {}", self.0);
    }
}

/// A size and where the indices begin: also just before they wrap around.
fn geometry<A: Any>(any: &mut A) -> (u32, u32) {
    let size = 1 << any.below(3);
    (size, any.u32(&[0, u32::MAX]))
}

/// Any index, and those of which some are too far or too far back.
fn index<A: Any>(any: &mut A, about: u32, size: u32) -> u32 {
    let steps = [0, 1, size - 1, size, size + 1, u32::MAX, 1 << 31];
    any.u32(&steps.map(|step| about.wrapping_add(step)))
}

/// Steps of one run.
const STEPS: u32 = 4;

/// A consumer never has more entries out than the ring can hold, and what it believes of the tail
/// neither goes back nor runs ahead.
pub fn a_consumer_believes_no_impossible_tail<A: Any>(any: &mut A) {
    let (size, start) = geometry(any);
    let page = Page::default();
    page.0.set(start);
    let mut consumer =
        CompletionConsumer::starting_at(page.clone(), NoSlots(size), COMPLETION, start);
    let mut released = start;
    for _ in 0..STEPS {
        match any.below(3) {
            0 => {
                consumer.release();
                released = consumer.taken();
            }
            1 => {
                page.0.set(index(any, consumer.taken(), size));
                if consumer.look().is_err() {
                    return;
                }
            }
            _ => {
                page.0.set(index(any, consumer.taken(), size));
                if consumer.pop().is_err() {
                    return;
                }
            }
        }
        assert!(consumer.taken().wrapping_sub(released) <= size);
    }
}

/// A producer never has more entries in the ring than it can hold, by the head that it believes.
pub fn a_producer_believes_no_impossible_head<A: Any>(any: &mut A) {
    let (size, start) = geometry(any);
    let page = Page::default();
    page.0.set(start);
    let mut producer =
        CompletionProducer::starting_at(page.clone(), NoSlots(size), COMPLETION, start);
    let entry = Completion {
        token: Token::from_word(0),
        status: Status::Ok,
        value: 0,
    };
    for _ in 0..STEPS {
        match any.below(3) {
            0 => {
                producer.publish();
            }
            1 => {
                page.0
                    .set(index(any, producer.published().wrapping_sub(size), size));
                match producer.look() {
                    Ok(unread) => assert!(unread + producer.unpublished() <= size),
                    Err(_) => return,
                }
            }
            _ => {
                page.0
                    .set(index(any, producer.published().wrapping_sub(size), size));
                if producer.push(entry).is_err() {
                    return;
                }
            }
        }
        assert!(producer.unpublished() <= size);
    }
}

run! {
    #[kani::unwind(5)]
    a_consumer_believes_no_impossible_tail,
    #[kani::unwind(5)]
    a_producer_believes_no_impossible_head,
}
