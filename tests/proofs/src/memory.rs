//! Shared memory whose other side says anything, and which notices what must not happen.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use wakebox_abi::entry::{Completion, Submission};
use wakebox_abi::memory::{Control, Slots, Word};

use crate::any::Any;

/// What the guest of a [`Liar`] puts into an entry: any eight words.
pub type Forge<A> = fn(&mut A) -> [u64; Submission::WORDS];

/// Sizes of a pair of rings, powers of two, and where their indices begin.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Slots of the submission ring.
    pub submissions: u32,
    /// Slots of the completion ring.
    pub completions: u32,
    /// What all four index words hold at first.
    pub start: u32,
}

/// The control page and both rings of one guest, as the host reads them.
///
/// Each read of a word that the guest may write gives whatever the source says. Besides:
///
/// - a slot outside its ring is a panic,
/// - so is a completion that is written over one which the guest has not been believed to have
///   consumed, or out of order,
/// - so is an index of the host's that goes back, or further than what the guest was believed to
///   have shown.
///
/// Clones are the same memory.
#[derive(Debug)]
pub struct Liar<A>(Rc<Inner<A>>);

impl<A> Clone for Liar<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<A> {
    any: RefCell<A>,
    geometry: Geometry,
    forge: Forge<A>,
    /// The guest's indices as they were read last by somebody who acts on them.
    submission_tail: Cell<u32>,
    completion_head: Cell<u32>,
    /// The host's indices as it has told them.
    submission_head: Cell<u32>,
    completion_tail: Cell<u32>,
    /// Index of the completion that is written next.
    written: Cell<u32>,
    reads: Cell<u64>,
}

impl<A: Any> Liar<A> {
    /// Two empty rings.
    pub fn new(any: A, geometry: Geometry, forge: Forge<A>) -> Self {
        let start = || Cell::new(geometry.start);
        Self(Rc::new(Inner {
            any: RefCell::new(any),
            geometry,
            forge,
            submission_tail: start(),
            completion_head: start(),
            submission_head: start(),
            completion_tail: start(),
            written: start(),
            reads: Cell::new(0),
        }))
    }

    /// Asks the source for something else.
    pub fn ask<T>(&self, ask: impl FnOnce(&mut A) -> T) -> T {
        ask(&mut self.0.any.borrow_mut())
    }

    /// The source, when nobody else has the memory any more.
    ///
    /// # Panics
    ///
    /// If somebody has.
    #[must_use]
    pub fn into_source(self) -> A {
        let inner = Rc::into_inner(self.0).expect("nobody else has the memory");
        inner.any.into_inner()
    }

    /// Words and entries read so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.0.reads.get()
    }

    /// Entries that the guest has been believed to have submitted and that were not taken:
    /// `taken` is the host's count.
    #[must_use]
    pub fn waiting(&self, taken: u32) -> u32 {
        self.0.submission_tail.get().wrapping_sub(taken)
    }

    /// Published completions that the guest has not been believed to have consumed.
    #[must_use]
    pub fn unread(&self) -> u32 {
        let inner = &self.0;
        inner
            .completion_tail
            .get()
            .wrapping_sub(inner.completion_head.get())
    }

    /// The slots of the submission ring.
    #[must_use]
    pub fn submissions(&self) -> Submissions<A> {
        Submissions(self.clone())
    }

    /// The slots of the completion ring.
    #[must_use]
    pub fn completions(&self) -> Completions<A> {
        Completions(self.clone())
    }

    fn read(&self) {
        self.0.reads.set(self.0.reads.get() + 1);
    }
}

/// The values of a short range, or the ends and the middle of a long one.
fn telling(from: u32, to: u32) -> Vec<u32> {
    let length = to.wrapping_sub(from);
    let step = |step| from.wrapping_add(step);
    match length {
        0..=8 => (0..=length).map(step).collect(),
        _ => [0, 1, length / 2, length].map(step).into(),
    }
}

/// An index of the guest's that can be believed if it lies in `said..=last`, and that has once
/// been `first`: now and then it goes back, or too far.
fn index<A: Any>(any: &mut A, first: u32, said: u32, last: u32) -> u32 {
    let mut impossible = vec![
        last.wrapping_add(1),
        first.wrapping_sub(1),
        first.wrapping_add(1 << 31),
    ];
    if said != first {
        impossible.extend(telling(first, said.wrapping_sub(1)));
    }
    any.u32_mostly(&telling(said, last), &impossible)
}

impl<A: Any> Control for Liar<A> {
    fn load(&self, word: Word, order: Ordering) -> u32 {
        self.read();
        let inner = &*self.0;
        let geometry = inner.geometry;
        match word {
            Word::SubmissionTail => {
                let head = inner.submission_head.get();
                let said = inner.submission_tail.get();
                let last = head.wrapping_add(geometry.submissions);
                let tail = self.ask(|any| match order {
                    // A hint: it is looked at, and read again before anything is done.
                    Ordering::Relaxed => any.u32(&[head, head.wrapping_add(1)]),
                    _ => index(any, head, said, last),
                });
                if order != Ordering::Relaxed {
                    inner.submission_tail.set(tail);
                }
                tail
            }
            Word::CompletionHead => {
                let tail = inner.completion_tail.get();
                let said = inner.completion_head.get();
                let head = self.ask(|any| index(any, said, said, tail));
                inner.completion_head.set(head);
                head
            }
            Word::CompletionTail | Word::SubmissionHead => {
                panic!("the host reads {word:?} back, which a guest can have changed")
            }
            _ => self.ask(|any| any.u32(&[0, 1, u32::MAX])),
        }
    }

    fn store(&self, word: Word, value: u32, _: Ordering) {
        let inner = &*self.0;
        match word {
            Word::SubmissionHead => {
                let told = inner.submission_head.replace(value);
                assert!(
                    value.wrapping_sub(told) <= inner.submission_tail.get().wrapping_sub(told),
                    "the host has taken what was not there: {value} after {told}"
                );
            }
            Word::CompletionTail => {
                inner.completion_tail.set(value);
                assert_eq!(value, inner.written.get(), "what is published is written");
            }
            Word::DriverPolls => {}
            _ => panic!("the host writes {word:?}, which is the guest's"),
        }
    }

    fn add(&self, word: Word, _: u32, _: Ordering) -> u32 {
        panic!("the host adds to {word:?}, which is the guest's");
    }

    fn full_fence(&self) {}
}

/// See [`Liar::submissions`].
#[derive(Debug)]
pub struct Submissions<A>(Liar<A>);

impl<A: Any> Slots<{ Submission::WORDS }> for Submissions<A> {
    fn len(&self) -> u32 {
        self.0.0.geometry.submissions
    }

    fn read(&self, index: u32) -> [u64; Submission::WORDS] {
        assert!(index < self.len(), "slot {index} of {}", self.len());
        self.0.read();
        let forge = self.0.0.forge;
        self.0.ask(forge)
    }

    fn write(&self, index: u32, _: [u64; Submission::WORDS]) {
        panic!("the host writes slot {index} of the submission ring");
    }
}

/// See [`Liar::completions`].
#[derive(Debug)]
pub struct Completions<A>(Liar<A>);

impl<A: Any> Slots<{ Completion::WORDS }> for Completions<A> {
    fn len(&self) -> u32 {
        self.0.0.geometry.completions
    }

    fn read(&self, index: u32) -> [u64; Completion::WORDS] {
        panic!("the host reads slot {index} of the completion ring");
    }

    fn write(&self, index: u32, _: [u64; Completion::WORDS]) {
        let inner = &*self.0.0;
        let next = inner.written.get();
        assert_eq!(index, next & (self.len() - 1), "completions go in order");
        assert!(
            next.wrapping_sub(inner.completion_head.get()) < self.len(),
            "a completion is written over one that was not consumed"
        );
        inner.written.set(next.wrapping_add(1));
    }
}
