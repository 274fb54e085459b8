use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use core::sync::atomic::Ordering;

use crate::memory::{Control, Slots, Word};
use crate::ring::{self, TraceConsumer};

/// A control page and a trace ring of one thread.
#[derive(Clone)]
struct Memory {
    words: Rc<RefCell<[u32; Word::ALL.len()]>>,
    slots: Rc<RefCell<Vec<[u64; Record::WORDS]>>>,
}

impl Memory {
    fn new(records: usize) -> Self {
        Self {
            words: Rc::new(RefCell::new([0; Word::ALL.len()])),
            slots: Rc::new(RefCell::new(vec![[0; Record::WORDS]; records])),
        }
    }

    fn index(word: Word) -> usize {
        Word::ALL.iter().position(|other| *other == word).unwrap()
    }
}

impl Control for Memory {
    fn load(&self, word: Word, _: Ordering) -> u32 {
        *self.words.borrow().get(Self::index(word)).unwrap()
    }

    fn store(&self, word: Word, value: u32, _: Ordering) {
        *self.words.borrow_mut().get_mut(Self::index(word)).unwrap() = value;
    }

    fn add(&self, word: Word, more: u32, order: Ordering) -> u32 {
        let was = self.load(word, order);
        self.store(word, was.wrapping_add(more), order);
        was
    }

    fn full_fence(&self) {}
}

impl Slots<{ Record::WORDS }> for Memory {
    fn len(&self) -> u32 {
        self.slots.borrow().len() as u32
    }

    fn read(&self, index: u32) -> [u64; Record::WORDS] {
        *self.slots.borrow().get(index as usize).unwrap()
    }

    fn write(&self, index: u32, words: [u64; Record::WORDS]) {
        *self.slots.borrow_mut().get_mut(index as usize).unwrap() = words;
    }
}

fn take(ring: &mut TraceConsumer<Memory, Memory>, most: usize) -> Vec<What> {
    let taken = core::iter::from_fn(|| ring.pop().unwrap())
        .take(most)
        .map(|record: Record| record.what().unwrap())
        .collect();
    ring.release();
    taken
}

fn poll(task: u32) -> What {
    What::PollBegin { task }
}

#[test]
fn a_full_ring_loses_what_comes_next_and_says_how_much_where_it_was() {
    let memory = Memory::new(4);
    let mut writer = Writer::new(memory.clone(), memory.clone());
    let mut ring = TraceConsumer::new(memory.clone(), memory.clone(), ring::TRACE);
    for task in 0..7 {
        writer.write(0, poll(task));
    }
    assert_eq!(take(&mut ring, 2), [poll(0), poll(1)]);
    writer.write(0, poll(7));
    writer.write(0, poll(8));
    // The confession and one record fill the two slots that were free.
    assert_eq!(
        take(&mut ring, 9),
        [poll(2), poll(3), What::Lost { count: 3 }, poll(7)]
    );
    assert_eq!(memory.load(Word::TraceLost, Ordering::Relaxed), 4);
    writer.write(0, poll(9));
    assert_eq!(take(&mut ring, 9), [What::Lost { count: 1 }, poll(9)]);
}

#[test]
fn a_head_that_cannot_be_is_a_full_ring() {
    let memory = Memory::new(4);
    let mut writer = Writer::new(memory.clone(), memory.clone());
    memory.store(Word::TraceHead, 77, Ordering::Relaxed);
    for task in 0..9 {
        writer.write(0, poll(task));
    }
    assert_eq!(memory.load(Word::TraceLost, Ordering::Relaxed), 5);
}

#[test]
fn a_text_travels_in_parts_and_is_cut_at_a_character() {
    let memory = Memory::new(64);
    let mut writer = Writer::new(memory.clone(), memory.clone());
    let mut ring = TraceConsumer::new(memory.clone(), memory, ring::TRACE);
    for (text, expected) in [
        ("main", "main"),
        ("", ""),
        (&"é".repeat(100), &*"é".repeat(80)),
    ] {
        writer.text(0, Text::Name, text);
        let mut bytes = Vec::new();
        for what in take(&mut ring, 64) {
            let What::Text {
                text: Text::Name,
                bytes: part,
                len,
            } = what
            else {
                panic!("{what:?} is no name")
            };
            bytes.extend(part.iter().take(len.into()));
        }
        assert_eq!(core::str::from_utf8(&bytes).unwrap(), expected);
    }
}

fn reason() -> impl Strategy<Value = Reason> {
    let token = any::<u64>().prop_map(Token::from_word);
    prop_oneof![
        Just(Reason::Unknown),
        any::<u32>().prop_map(Reason::Task),
        token.clone().prop_map(Reason::Operation),
        token.prop_map(Reason::HostCall),
        any::<u64>().prop_map(Reason::Timer),
        Just(Reason::Slot),
        Just(Reason::Interrupt),
        Just(Reason::Elsewhere),
        Just(Reason::Restored),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let token = any::<u64>().prop_map(Token::from_word);
    let idle = prop_oneof![Just(Idle::Watch), Just(Idle::Out), Just(Idle::Halt)];
    let roused = prop_oneof![
        Just(Roused::Memory),
        Just(Roused::Out),
        Just(Roused::Interrupt),
        Just(Roused::Timer),
        Just(Roused::Nothing)
    ];
    let tasks = any::<(u32, u32)>();
    prop_oneof![
        (any::<[u8; TEXT_PART]>(), 1..=TEXT_PART as u8).prop_map(|(bytes, len)| What::Text {
            text: Text::Location,
            bytes,
            len
        }),
        tasks.prop_map(|(task, by)| What::Spawned { task, by }),
        any::<u32>().prop_map(|task| What::PollBegin { task }),
        any::<u32>().prop_map(|task| What::Lives { task }),
        (any::<(u32, bool, u16)>(), proptest::option::of(reason())).prop_map(
            |((task, ready, more), on)| What::PollEnd {
                task,
                ready,
                on,
                more
            }
        ),
        tasks.prop_map(|(task, by)| What::Cloned { task, by }),
        (any::<(u32, bool, bool)>(), reason()).prop_map(|((task, queued, consumed), by)| {
            What::Woken {
                task,
                by,
                queued,
                consumed,
            }
        }),
        tasks.prop_map(|(task, by)| What::Dropped { task, by }),
        any::<(u32, bool)>().prop_map(|(task, aborted)| What::Ended { task, aborted }),
        any::<(u64, u64, u32)>().prop_map(|(timer, at_ns, by)| What::TimerSet { timer, at_ns, by }),
        (token.clone(), any::<(u16, u32, u32)>()).prop_map(|(token, (opcode, bytes, by))| {
            What::Submitted {
                token,
                opcode,
                bytes,
                by,
            }
        }),
        (token, any::<u32>()).prop_map(|(token, by)| What::CancelAsked { token, by }),
        any::<u16>().prop_map(|port| What::Doorbell { port }),
        idle.prop_map(|how| What::Sleeps { how }),
        roused.prop_map(|by| What::Awake { by }),
        any::<u32>().prop_map(|count| What::Interrupted { count }),
        any::<(u32, bool)>()
            .prop_map(|(task, interrupted)| What::UpcallBegin { task, interrupted }),
        any::<u32>().prop_map(|task| What::UpcallEnd { task }),
        any::<u64>().prop_map(|count| What::Lost { count }),
    ]
}

proptest! {
    #[test]
    fn every_record_survives_the_round_trip(ticks: u64, what in what()) {
        let record = Record::from_words(Record::new(ticks, what).to_words());
        prop_assert_eq!(record.ticks(), ticks);
        prop_assert_eq!(record.what(), Ok(what));
    }

    #[test]
    fn any_words_are_a_record_or_none(words: [u64; Record::WORDS]) {
        if let Ok(what) = Record(words).what() {
            // What was understood says the same again.
            prop_assert_eq!(Record::new(words[0], what).what(), Ok(what));
        }
    }
}
