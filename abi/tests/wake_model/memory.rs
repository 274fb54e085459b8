//! Shared memory and wake-ups, made of loom's primitives.
//!
//! Loom runs its threads on one real thread, so an `Rc` shares them; loom's own `Arc`
//! would only add states to the search.

use std::rc::Rc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use wakebox_abi::memory::{Control, Slots, Word};

/// For code that is not Rust in reality, such as a stub's `mov`.
pub(crate) const RELAXED: Ordering = Ordering::Relaxed;

/// Which orders a side really asks for: what is false is not in the model at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    /// Release and Acquire on the rings' indices; else all is Relaxed.
    pub(crate) release_acquire: bool,
    /// The fence between "I sleep" or "I published" and the look at the other side.
    pub(crate) full_fence: bool,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            release_acquire: true,
            full_fence: true,
        }
    }
}

/// One side's view of the control page.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    words: Rc<[AtomicU32; Word::ALL.len()]>,
    orders: Orders,
}

/// Two views of one control page whose ring indices all start at `index`.
pub(crate) fn shared(index: u32, one: Orders, other: Orders) -> (Side, Side) {
    let words = Rc::new(Word::ALL.map(|word| {
        AtomicU32::new(match word {
            Word::SubmissionTail
            | Word::SubmissionHead
            | Word::CompletionTail
            | Word::CompletionHead => index,
            _ => 0,
        })
    }));
    let side = |orders| Side {
        words: words.clone(),
        orders,
    };
    (side(one), side(other))
}

impl Side {
    fn word(&self, word: Word) -> &AtomicU32 {
        let index = Word::ALL.iter().position(|other| *other == word);
        &self.words[index.expect("every word is in the list")]
    }

    fn order(&self, order: Ordering) -> Ordering {
        if self.orders.release_acquire {
            order
        } else {
            Ordering::Relaxed
        }
    }
}

impl Control for Side {
    fn load(&self, word: Word, order: Ordering) -> u32 {
        self.word(word).load(self.order(order))
    }

    fn store(&self, word: Word, value: u32, order: Ordering) {
        self.word(word).store(value, self.order(order));
    }

    fn add(&self, word: Word, more: u32, order: Ordering) -> u32 {
        self.word(word).fetch_add(more, self.order(order))
    }

    fn full_fence(&self) {
        if self.orders.full_fence {
            fence(Ordering::SeqCst);
        }
    }
}

/// A ring's slots. They are plain memory to loom, stricter than the relaxed words of
/// the real thing: a read that is not ordered after its write is reported as a race.
#[derive(Clone, Debug)]
pub(crate) struct RingSlots<const WORDS: usize>(Rc<Vec<UnsafeCell<[u64; WORDS]>>>);

impl<const WORDS: usize> RingSlots<WORDS> {
    pub(crate) fn new(len: u32) -> Self {
        let slot = |_| UnsafeCell::new([0; WORDS]);
        Self(Rc::new((0..len).map(slot).collect()))
    }
}

impl<const WORDS: usize> Slots<WORDS> for RingSlots<WORDS> {
    fn len(&self) -> u32 {
        self.0.len() as u32
    }

    fn read(&self, index: u32) -> [u64; WORDS] {
        // SAFETY: the pointer is valid for the call; loom fails the model if a write
        // is concurrent.
        self.0[index as usize].with(|slot| unsafe { *slot })
    }

    fn write(&self, index: u32, words: [u64; WORDS]) {
        // SAFETY: the pointer is valid for the call; loom fails the model if any other
        // access is concurrent.
        self.0[index as usize].with_mut(|slot| unsafe { *slot = words });
    }
}

/// What brings a sleeper back: the return of an exit, an interrupt line, an eventfd.
/// Rung before the sleep, it stays pending.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Rc<(Mutex<bool>, Condvar)>);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Rc::new((Mutex::new(false), Condvar::new())))
    }

    pub(crate) fn ring(&self) {
        let (rung, rings) = &*self.0;
        *rung.lock().unwrap() = true;
        rings.notify_one();
    }

    /// Takes a pending ring, if there is one.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.0.0.lock().unwrap())
    }

    pub(crate) fn wait(&self) {
        let (rung, rings) = &*self.0;
        let mut rung = rung.lock().unwrap();
        while !*rung {
            rung = rings.wait(rung).unwrap();
        }
        *rung = false;
    }
}
