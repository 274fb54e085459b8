//! Upcalls, with an interrupt at every access to the control page and with interrupts within the upcalls
//! of those: whatever an interrupt tells of has been taken when the mask is lifted for good.
//!
//! Interrupt and guest are one flow of instructions, so a model of it is that of a signal handler: before
//! each access, and after the last, an interrupt may come or not. The functions are those of
//! `wakebox_abi::upcall`. So that the search is known to find what it looks for, the same is done
//! with the look before the lift, and without the look.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use wakebox_abi::memory::{Control, Word};
use wakebox_abi::upcall;

/// Where upcalls go on; any address will do.
const ENTRY: u32 = 0x20_0040;

/// How the guest lifts the mask.
#[derive(Clone, Copy)]
enum Lift {
    /// As it does.
    Whole,
    /// It reads the count and then lifts.
    LooksBefore,
    /// It lifts.
    LooksNot,
}

/// A guest on one processor, and the host that interrupts it.
struct Machine<'a> {
    words: RefCell<BTreeMap<u32, u32>>,
    /// Before which accesses an interrupt comes, in order.
    script: &'a [usize],
    accesses: Cell<usize>,
    /// How many of the script have come.
    come: Cell<usize>,
    /// What interrupts have told of, and how much of it was taken.
    published: Cell<u32>,
    taken: Cell<u32>,
    noted: Cell<u32>,
    lift: Lift,
    /// Upcalls under way, and most at once.
    depth: Cell<usize>,
}

impl<'a> Machine<'a> {
    fn new(script: &'a [usize], lift: Lift) -> Self {
        Self {
            words: RefCell::default(),
            script,
            accesses: Cell::new(0),
            come: Cell::new(0),
            published: Cell::new(0),
            taken: Cell::new(0),
            noted: Cell::new(0),
            lift,
            depth: Cell::new(0),
        }
    }

    fn word(&self, word: Word) -> u32 {
        self.words
            .borrow()
            .get(&(word as u32))
            .copied()
            .unwrap_or(0)
    }

    fn set(&self, word: Word, value: u32) {
        self.words.borrow_mut().insert(word as u32, value);
    }

    /// One more access; the interrupts that come before it.
    fn step(&self) {
        let now = self.accesses.get();
        self.accesses.set(now + 1);
        while self
            .script
            .get(self.come.get())
            .is_some_and(|at| *at <= now)
        {
            self.come.set(self.come.get() + 1);
            self.interrupt();
        }
    }

    /// I1 and I2.
    fn interrupt(&self) {
        self.published.set(self.published.get() + 1);
        // The host looks while the guest stands still: not through `step`.
        if upcall::host_begins(&Still(self)) {
            assert_eq!(self.word(Word::UpcallTarget), ENTRY);
            assert_eq!(self.word(Word::Upcall), 0, "an upcall begins masked");
            self.depth.set(self.depth.get() + 1);
            self.take_and_lift();
            self.depth.set(self.depth.get() - 1);
        } else {
            self.set(Word::Interrupts, self.word(Word::Interrupts) + 1);
        }
    }

    fn take(&self, noted: u32) {
        self.noted.set(noted);
        self.step();
        self.taken.set(self.published.get());
        self.step();
    }

    fn lift(&self, noted: u32) -> bool {
        match self.lift {
            Lift::Whole => upcall::lift(self, ENTRY, noted),
            Lift::LooksBefore => {
                let calm = upcall::count(self) == noted;
                if calm {
                    self.store(Word::Upcall, ENTRY, Ordering::Relaxed);
                }
                calm
            }
            Lift::LooksNot => {
                self.store(Word::Upcall, ENTRY, Ordering::Relaxed);
                true
            }
        }
    }

    /// What is done in an upcall, and by who finds that something has come.
    fn take_and_lift(&self) {
        match self.lift {
            Lift::Whole => upcall::take_and_lift(self, ENTRY, |noted| self.take(noted)),
            _ => loop {
                let noted = upcall::count(self);
                self.take(noted);
                if self.lift(noted) {
                    return;
                }
            },
        }
    }

    /// A masked section of the guest's, within another or not.
    fn section(&self, body: impl FnOnce()) {
        let was = upcall::mask(self);
        self.step();
        body();
        self.step();
        if was != 0 && !self.lift(self.noted.get()) {
            self.take_and_lift();
        }
    }

    /// Sections, one of them with another within. Returns whether everything was taken.
    fn run(&self) -> bool {
        self.store(Word::Upcall, ENTRY, Ordering::Relaxed);
        self.section(|| ());
        self.section(|| self.section(|| ()));
        // Interrupts beyond the last access come here.
        self.step();
        assert_eq!(self.depth.get(), 0);
        assert_eq!(self.word(Word::Upcall), ENTRY, "the mask is lifted");
        self.taken.get() == self.published.get()
    }
}

impl Control for Machine<'_> {
    fn load(&self, word: Word, _: Ordering) -> u32 {
        self.step();
        self.word(word)
    }

    fn store(&self, word: Word, value: u32, _: Ordering) {
        self.step();
        self.set(word, value);
    }

    fn add(&self, _: Word, _: u32, _: Ordering) -> u32 {
        unreachable!("one processor needs none");
    }

    fn full_fence(&self) {
        unreachable!("one processor needs none");
    }
}

/// The same control page for the host, which nothing interrupts.
struct Still<'a, 'b>(&'a Machine<'b>);

impl Control for Still<'_, '_> {
    fn load(&self, word: Word, _: Ordering) -> u32 {
        self.0.word(word)
    }

    fn store(&self, word: Word, value: u32, _: Ordering) {
        self.0.set(word, value);
    }

    fn add(&self, _: Word, _: u32, _: Ordering) -> u32 {
        unreachable!("the host adds to nothing");
    }

    fn full_fence(&self) {
        unreachable!("the guest stands still");
    }
}

/// Runs with up to three interrupts wherever they may come. Returns in how many runs something was not
/// taken, and how many runs there were.
fn search(lift: Lift) -> (usize, usize) {
    // A run with all of them has at most so many accesses.
    const LAST: usize = 80;
    let (mut lost, mut runs) = (0, 0);
    let mut run = |script: &[usize]| {
        let machine = Machine::new(script, lift);
        // The run is short of the interrupts that would come later.
        lost += usize::from(!machine.run());
        runs += 1;
    };
    run(&[]);
    for first in 0..LAST {
        run(&[first]);
        for second in first..LAST {
            run(&[first, second]);
            for third in second..LAST {
                run(&[first, second, third]);
            }
        }
    }
    (lost, runs)
}

#[test]
fn whatever_comes_is_taken_before_the_mask_is_lifted() {
    let (lost, runs) = search(Lift::Whole);
    assert!(runs > 80_000);
    assert_eq!(lost, 0);
}

#[test]
fn a_look_before_the_lift_loses_what_comes_between() {
    let (lost, _) = search(Lift::LooksBefore);
    assert!(lost > 0);
}

#[test]
fn a_lift_without_a_look_loses_what_came_masked() {
    let (lost, _) = search(Lift::LooksNot);
    assert!(lost > 0);
}
