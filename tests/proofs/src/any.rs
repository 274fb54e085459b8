//! Where a check's values come from.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;

/// A source of any value.
///
/// `telling` are the values of which it is known that they make a difference: limits, what lies
/// just beyond them, zero. A source that cannot try all values tries at least these.
pub trait Any {
    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: u32) -> u32;

    /// Any word.
    fn u64(&mut self, telling: &[u64]) -> u64;

    /// Any half word.
    fn u32(&mut self, telling: &[u32]) -> u32;

    /// Any byte.
    fn u8(&mut self, telling: &[u8]) -> u8;

    /// Any half word, where most values, those of `seldom` among them, are the end of the matter:
    /// a source that has only so many runs gives one of `often` in most cases, and gets further.
    fn u32_mostly(&mut self, often: &[u32], seldom: &[u32]) -> u32 {
        self.u32(&[often, seldom].concat())
    }

    /// One of these.
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T
    where
        Self: Sized,
    {
        of[self.below(of.len() as u32) as usize]
    }

    /// True or false.
    fn bool(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Whether there is more to come: a check that could go on for ever ends when there is not.
    fn goes_on(&self) -> bool {
        true
    }
}

/// A source that tries every combination, one a run: a path through the tree of choices.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// What was chosen, and of how many, up to where this run is or will come.
    path: Vec<(u32, u32)>,
    /// How many choices of the path this run has made.
    made: usize,
    /// Choices at the beginning of the path that stay as they are.
    fixed: usize,
}

impl Choices {
    /// All runs that begin with these choices.
    fn behind(path: &[(u32, u32)]) -> Self {
        Self {
            path: path.to_vec(),
            made: 0,
            fixed: path.len(),
        }
    }

    /// Goes to the next path. `false` if all have been tried.
    fn advance(&mut self) -> bool {
        self.path.truncate(self.made);
        self.made = 0;
        while self.path.len() > self.fixed {
            if let Some((choice, of)) = self.path.last_mut() {
                *choice += 1;
                if *choice < *of {
                    return true;
                }
            }
            self.path.pop();
        }
        false
    }
}

impl Any for Choices {
    fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "there is nothing to choose from");
        if self.made == self.path.len() {
            self.path.push((0, bound));
        }
        let (choice, of) = self.path[self.made];
        assert_eq!(of, bound, "a check does the same in every run");
        self.made += 1;
        choice
    }

    fn u64(&mut self, telling: &[u64]) -> u64 {
        self.one_of(telling)
    }

    fn u32(&mut self, telling: &[u32]) -> u32 {
        self.one_of(telling)
    }

    fn u8(&mut self, telling: &[u8]) -> u8 {
        self.one_of(telling)
    }
}

/// Runs a check once for every combination of values. Returns how many runs that were.
pub fn every(mut check: impl FnMut(&mut Choices)) -> u64 {
    let mut choices = Choices::default();
    let mut runs = 0;
    loop {
        check(&mut choices);
        runs += 1;
        if !choices.advance() {
            return runs;
        }
    }
}

/// How much [`reach`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// States that differ.
    pub states: u64,
    /// Steps taken, from all states.
    pub steps: u64,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps", self.states, self.steps)
    }
}

/// Takes every step from every state that can be reached, however long the way there is.
///
/// `run` makes the thing anew, takes so many steps with it, and tells what state it is in then:
/// all that its future depends on, and nothing else. `None` says that it has ended. The search ends
/// when no step leads to a new state: what holds then holds for runs of any length.
pub fn reach<S: Eq + Hash>(mut run: impl FnMut(&mut Choices, usize) -> Option<S>) -> Reached {
    let mut known = HashSet::new();
    let mut waiting = VecDeque::new();
    known.extend(run(&mut Choices::default(), 0));
    waiting.push_back((Vec::new(), 0));
    let mut steps = 0;
    while let Some((path, length)) = waiting.pop_front() {
        let mut choices = Choices::behind(&path);
        loop {
            let state = run(&mut choices, length + 1);
            steps += 1;
            if state.is_some_and(|state| known.insert(state)) {
                waiting.push_back((choices.path[..choices.made].to_vec(), length + 1));
            }
            if !choices.advance() {
                break;
            }
        }
    }
    Reached {
        states: known.len() as u64,
        steps,
    }
}

/// One in how many values of [`Any::u32_mostly`] need not be one of those that it has often.
const SELDOM: u32 = 32;

/// A telling value, one beside it, or any.
fn mix<T: Copy>(kind: u64, telling: &[T], near: impl Fn(T, i8) -> T, any: T) -> T {
    let place = usize::try_from(kind >> 16).unwrap_or(0) % telling.len().max(1);
    match telling.get(place) {
        Some(value) if kind & 7 < 4 => *value,
        Some(value) if kind & 7 < 6 => near(*value, ((kind >> 8) as i8) >> 4),
        _ => any,
    }
}

/// A source of pseudo-random values (SplitMix64): the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word, each as likely as any other.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

impl Any for Random {
    fn below(&mut self, bound: u32) -> u32 {
        (self.word() % u64::from(bound)) as u32
    }

    fn u64(&mut self, telling: &[u64]) -> u64 {
        let (kind, any) = (self.word(), self.word());
        mix(
            kind,
            telling,
            |value, by| value.wrapping_add_signed(by.into()),
            any,
        )
    }

    fn u32(&mut self, telling: &[u32]) -> u32 {
        let (kind, any) = (self.word(), self.word() as u32);
        mix(
            kind,
            telling,
            |value, by| value.wrapping_add_signed(by.into()),
            any,
        )
    }

    fn u32_mostly(&mut self, often: &[u32], seldom: &[u32]) -> u32 {
        match self.below(SELDOM) {
            0 => self.u32(seldom),
            _ => self.one_of(often),
        }
    }

    fn u8(&mut self, telling: &[u8]) -> u8 {
        let (kind, any) = (self.word(), self.word() as u8);
        mix(kind, telling, u8::wrapping_add_signed, any)
    }
}

/// A source that reads its values from bytes, and gives zeroes when they are used up.
///
/// Few bytes decide much: one says which telling value, and only a value of another kind takes its
/// whole length.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// The source that these bytes are.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that nobody has used.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut taken = [0; LEN];
        let (used, rest) = self.0.split_at(LEN.min(self.0.len()));
        taken[..used.len()].copy_from_slice(used);
        self.0 = rest;
        taken
    }

    /// The telling value that the next byte names, or `None` if it asks for any.
    fn telling<T: Copy>(&mut self, telling: &[T]) -> Option<T> {
        let [byte] = self.take();
        telling
            .get(usize::from(byte) % (telling.len() + 1))
            .copied()
    }
}

impl Any for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        match bound {
            1 => 0,
            2..=256 => u32::from(self.take::<1>()[0]) % bound,
            _ => u32::from_le_bytes(self.take()) % bound,
        }
    }

    fn u64(&mut self, telling: &[u64]) -> u64 {
        let told = self.telling(telling);
        told.unwrap_or_else(|| u64::from_le_bytes(self.take()))
    }

    fn u32(&mut self, telling: &[u32]) -> u32 {
        let told = self.telling(telling);
        told.unwrap_or_else(|| u32::from_le_bytes(self.take()))
    }

    fn u32_mostly(&mut self, often: &[u32], seldom: &[u32]) -> u32 {
        let byte = u32::from(self.take::<1>()[0]);
        // Used-up bytes, which are zeroes, give the first.
        match byte % SELDOM == SELDOM - 1 {
            true => self.u32(seldom),
            false => often[(byte % SELDOM) as usize % often.len()],
        }
    }

    fn u8(&mut self, _: &[u8]) -> u8 {
        self.take::<1>()[0]
    }

    fn goes_on(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A source of values that Kani's solver picks: all of them.
#[cfg(kani)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Symbolic;

#[cfg(kani)]
impl Any for Symbolic {
    fn below(&mut self, bound: u32) -> u32 {
        let value = kani::any();
        kani::assume(value < bound);
        value
    }

    fn u64(&mut self, _: &[u64]) -> u64 {
        kani::any()
    }

    fn u32(&mut self, _: &[u32]) -> u32 {
        kani::any()
    }

    fn u8(&mut self, _: &[u8]) -> u8 {
        kani::any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_tried_once() {
        let mut seen = Vec::new();
        let runs = every(|any| {
            let first = any.below(2);
            // The second choice exists on one branch only.
            let second = (first == 1).then(|| any.one_of(&[7_u32, 8, 9]));
            seen.push((first, second));
        });
        assert_eq!(seen, [(0, None), (1, Some(7)), (1, Some(8)), (1, Some(9))]);
        assert_eq!(runs, 4);
    }

    #[test]
    fn a_search_ends_when_no_step_leads_to_a_new_state() {
        // Steps of one or two around a circle of seven; five is a trap.
        let reached = reach(|any, steps| {
            let mut at = 0_u32;
            for _ in 0..steps {
                at = (at + 1 + any.below(2)) % 7;
                if at == 5 {
                    return None;
                }
            }
            Some(at)
        });
        assert_eq!(
            reached,
            Reached {
                states: 6,
                steps: 12
            }
        );
    }

    #[test]
    fn a_seed_says_everything() {
        let draw = |seed| {
            let mut any = Random::new(seed);
            (any.below(100), any.u32(&[1, 2]), any.u64(&[]), any.bool())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn used_up_bytes_are_zeroes() {
        let mut any = Bytes::new(&[2, 0xFF, 0xEE]);
        assert_eq!(any.u32(&[1, 2]), 0x0000_EEFF);
        assert!(!any.goes_on());
        assert_eq!((any.below(9), any.u8(&[]), any.u64(&[])), (0, 0, 0));
    }
}
