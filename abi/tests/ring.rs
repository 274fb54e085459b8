//! The rings against a reference, and against a liar.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use wakebox_abi::entry::{Completion, Token};
use wakebox_abi::memory::{Control, Slots, Word};
use wakebox_abi::ring::{COMPLETION, CompletionConsumer, CompletionProducer};
use wakebox_abi::status::Status;

/// A control page of one thread.
#[derive(Clone)]
struct Page(Rc<[Cell<u32>; Word::ALL.len()]>);

impl Default for Page {
    fn default() -> Self {
        Self(Rc::new([const { Cell::new(0) }; Word::ALL.len()]))
    }
}

impl Page {
    fn word(&self, word: Word) -> &Cell<u32> {
        let index = Word::ALL.iter().position(|other| *other == word);
        &self.0[index.expect("every word is in the list")]
    }

    fn starting_at(index: u32) -> Self {
        let page = Self::default();
        page.word(Word::CompletionTail).set(index);
        page.word(Word::CompletionHead).set(index);
        page
    }
}

impl Control for Page {
    fn load(&self, word: Word, _: Ordering) -> u32 {
        self.word(word).get()
    }

    fn store(&self, word: Word, value: u32, _: Ordering) {
        self.word(word).set(value);
    }

    fn add(&self, word: Word, more: u32, _: Ordering) -> u32 {
        let was = self.word(word).get();
        self.word(word).set(was.wrapping_add(more));
        was
    }

    fn full_fence(&self) {}
}

/// Slots that refuse an index out of range, by the panic of the slice.
#[derive(Clone)]
struct PageSlots(Rc<RefCell<Vec<[u64; 2]>>>);

impl PageSlots {
    fn new(len: u32) -> Self {
        Self(Rc::new(RefCell::new(vec![[0; 2]; len as usize])))
    }
}

impl Slots<2> for PageSlots {
    fn len(&self) -> u32 {
        self.0.borrow().len() as u32
    }

    fn read(&self, index: u32) -> [u64; 2] {
        self.0.borrow()[index as usize]
    }

    fn write(&self, index: u32, words: [u64; 2]) {
        self.0.borrow_mut()[index as usize] = words;
    }
}

fn entry(number: u32) -> Completion {
    Completion {
        token: Token {
            slot: number,
            generation: number.wrapping_mul(3),
        },
        status: Status::Ok,
        value: !number,
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Publish,
    Pop,
    Release,
    ProducerLooks,
    ConsumerLooks,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        2 => Just(Step::Publish),
        4 => Just(Step::Pop),
        2 => Just(Step::Release),
        1 => Just(Step::ProducerLooks),
        1 => Just(Step::ConsumerLooks),
    ]
}

/// Sizes from one entry up, and starts of which many lie just before the wrap-around.
fn geometry() -> impl Strategy<Value = (u32, u32)> {
    let size = (0_u32..5).prop_map(|bits| 1 << bits);
    let start = prop_oneof![
        Just(0),
        (0_u32..64).prop_map(|before| u32::MAX - before),
        any::<u32>()
    ];
    (size, start)
}

/// What the other side's word says next.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// What it said before.
    Silence,
    /// A little more, or less, than before.
    Near(i8),
    /// Whatever it likes.
    Anything(u32),
}

impl Lie {
    /// Changes the word and returns its new value.
    fn about(self, word: &Cell<u32>) -> u32 {
        word.set(match self {
            Self::Silence => word.get(),
            Self::Near(difference) => word.get().wrapping_add_signed(difference.into()),
            Self::Anything(value) => value,
        });
        word.get()
    }
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        3 => Just(Lie::Silence),
        3 => (-3_i8..6).prop_map(Lie::Near),
        1 => any::<u32>().prop_map(Lie::Anything),
    ]
}

/// Entries between the head that a producer believes and its own tail.
fn in_ring(producer: &CompletionProducer<Page, PageSlots>, head: u32) -> u32 {
    let tail = producer.published().wrapping_add(producer.unpublished());
    tail.wrapping_sub(head)
}

proptest! {
    #[test]
    fn a_ring_is_a_queue((size, start) in geometry(), steps in prop::collection::vec(step(), 0..300)) {
        let (page, slots) = (Page::starting_at(start), PageSlots::new(size));
        let mut producer =
            CompletionProducer::starting_at(page.clone(), slots.clone(), COMPLETION, start);
        let mut consumer = CompletionConsumer::starting_at(page, slots, COMPLETION, start);
        // What the ring holds: pushed, shown, and taken without being given back.
        let (mut pushed, mut shown, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push => {
                    let fits = pushed.len() + shown.len() + taken < size as usize;
                    prop_assert_eq!(producer.push(entry(next)), Ok(fits));
                    if fits {
                        pushed.push_back(next);
                        next += 1;
                    }
                }
                Step::Publish => {
                    prop_assert_eq!(producer.publish(), !pushed.is_empty());
                    shown.append(&mut pushed);
                }
                Step::Pop => {
                    let expected = shown.pop_front();
                    prop_assert_eq!(consumer.pop(), Ok(expected.map(entry)));
                    taken += usize::from(expected.is_some());
                }
                Step::Release => {
                    prop_assert_eq!(consumer.release(), taken > 0);
                    taken = 0;
                }
                Step::ProducerLooks => {
                    prop_assert_eq!(producer.look(), Ok((shown.len() + taken) as u32));
                }
                Step::ConsumerLooks => {
                    prop_assert_eq!(consumer.look(), Ok(shown.len() as u32));
                    prop_assert_eq!(consumer.has_news(), !shown.is_empty());
                }
            }
            prop_assert_eq!(producer.unpublished() as usize, pushed.len());
            prop_assert_eq!(
                producer.published().wrapping_sub(consumer.taken()) as usize,
                shown.len()
            );
        }
    }

    #[test]
    fn a_consumer_survives_any_tail(
        (size, start) in geometry(),
        lies in prop::collection::vec((lie(), step()), 0..200),
    ) {
        let page = Page::starting_at(start);
        let mut consumer =
            CompletionConsumer::starting_at(page.clone(), PageSlots::new(size), COMPLETION, start);
        // The head that the producer was told, and the last tail that was believed.
        let (mut released, mut believed) = (start, start);
        for (lie, step) in lies {
            let tail = lie.about(page.word(Word::CompletionTail));
            let credible = tail.wrapping_sub(released) <= size
                && tail.wrapping_sub(released) >= believed.wrapping_sub(released);
            match step {
                Step::Release => {
                    consumer.release();
                    released = consumer.taken();
                }
                Step::ConsumerLooks => {
                    let waiting = tail.wrapping_sub(consumer.taken());
                    prop_assert_eq!(consumer.look().ok(), credible.then_some(waiting));
                    if credible {
                        believed = tail;
                    }
                }
                _ => {
                    let looks = consumer.taken() == believed;
                    let popped = consumer.pop();
                    prop_assert_eq!(popped.is_err(), looks && !credible);
                    if looks && credible {
                        believed = tail;
                    }
                }
            }
            let taken = consumer.taken().wrapping_sub(released);
            prop_assert!(taken <= size, "{} entries out of a ring of {}", taken, size);
        }
    }

    #[test]
    fn a_producer_survives_any_head(
        (size, start) in geometry(),
        lies in prop::collection::vec((lie(), step()), 0..200),
    ) {
        let page = Page::starting_at(start);
        let mut producer =
            CompletionProducer::starting_at(page.clone(), PageSlots::new(size), COMPLETION, start);
        // The last head that was believed.
        let mut believed = start;
        for (number, (lie, step)) in lies.into_iter().enumerate() {
            let head = lie.about(page.word(Word::CompletionHead));
            match step {
                Step::Publish => {
                    producer.publish();
                }
                Step::ProducerLooks => {
                    let unread = producer.published().wrapping_sub(head);
                    let credible =
                        head.wrapping_sub(believed) <= producer.published().wrapping_sub(believed);
                    prop_assert_eq!(producer.look().ok(), credible.then_some(unread));
                    if credible {
                        believed = head;
                    }
                }
                Step::ConsumerLooks => {
                    let full = in_ring(&producer, believed) == size;
                    if producer.free().is_ok_and(|free| {
                        assert!(free <= size);
                        full
                    }) {
                        believed = head;
                    }
                }
                _ => {
                    let full = in_ring(&producer, believed) == size;
                    let pushed = producer.push(entry(number as u32));
                    if !full {
                        prop_assert_eq!(pushed, Ok(true));
                    } else if pushed.is_ok() {
                        believed = head;
                    }
                }
            }
            prop_assert!(in_ring(&producer, believed) <= size);
        }
    }
}
