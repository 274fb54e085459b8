//! Which pages of a template its guests write first.
//!
//! A guest of a template copies a page when it writes it, and each copy is a fault that the kernel
//! takes apart. Guests of one template begin in the same place and so write the same pages: those that
//! most of the first few have written are copied for the next ones before these are entered, as many as
//! lie side by side in one call, which takes a third of the time.
//!
//! It is a guess. A page of it that a guest does not write is memory that it has for nothing, and the
//! guess is bounded; a guest that writes other pages than it says gets those as without it. So what the
//! first guests do, hostile or not, costs the next ones no more than that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wakebox_abi::layout::PAGE_SIZE;

use crate::pages::Range;

/// Guests that are asked.
const EXAMPLES: u32 = 3;

/// How often each is looked at: until it has done its first work.
const LOOKS: u32 = 4;

/// Most pages that are guessed. A guest that has written more says no more of the first ones.
const PAGES: usize = 128;

/// What is known of one template. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hot(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Guests that were asked to be examples.
    examples: AtomicU32,
    looks: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    /// What each example had written when it was last looked at.
    written: Vec<Vec<Range>>,
    /// The guess.
    ranges: Arc<[Range]>,
}

/// One of the guests that are asked. The pages that it has are those that it has written: none were
/// copied for it.
#[derive(Debug)]
pub(crate) struct Example {
    hot: Hot,
    /// Its place among those that were looked at, once it was.
    at: Mutex<Option<usize>>,
    looks: AtomicU32,
}

impl Hot {
    /// An example, if there are not enough yet.
    pub(crate) fn example(&self) -> Option<Example> {
        let examples = &self.0.examples;
        let more = |count| (count < EXAMPLES).then_some(count + 1);
        examples
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Example {
            hot: self.clone(),
            at: Mutex::default(),
            looks: AtomicU32::new(0),
        })
    }

    /// The pages that are likely to be written, as ranges in their order, in bytes.
    pub(crate) fn ranges(&self) -> Arc<[Range]> {
        let looks = &self.0.looks;
        looks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ranges
            .clone()
    }
}

impl Example {
    /// Looks at what it has written by now, which `own` finds out.
    pub(crate) fn look(&self, own: impl FnOnce() -> Option<Vec<Range>>) {
        if self.looks.fetch_add(1, Ordering::Relaxed) >= LOOKS {
            // It may go on for as long as it likes.
            self.looks.store(LOOKS, Ordering::Relaxed);
            return;
        }
        let Some(own) = own().filter(|own| !own.is_empty() && pages(own) <= PAGES as u64) else {
            return;
        };
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = &self.hot.0.looks;
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        match *at {
            Some(at) => looks.written[at] = own,
            None => {
                *at = Some(looks.written.len());
                looks.written.push(own);
            }
        }
        looks.ranges = common(&looks.written).into();
    }
}

fn pages(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.len / PAGE_SIZE).sum()
}

/// The pages that most have written; none if there is only one.
fn common(written: &[Vec<Range>]) -> Vec<Range> {
    let mut counts = BTreeMap::<u64, usize>::new();
    for range in written.iter().flatten() {
        for page in (range.offset..range.offset + range.len).step_by(PAGE_SIZE as usize) {
            *counts.entry(page).or_default() += 1;
        }
    }
    let most = written.len() / 2 + 1;
    let common = counts.iter().filter(|(_, count)| **count >= most.max(2));
    let mut ranges = Vec::new();
    for (page, _) in common.take(PAGES) {
        crate::pages::add(&mut ranges, *page, PAGE_SIZE);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(page: u64, pages: u64) -> Range {
        Range {
            offset: page * PAGE_SIZE,
            len: pages * PAGE_SIZE,
        }
    }

    #[test]
    fn what_most_have_written_is_guessed_as_soon_as_two_agree() {
        let hot = Hot::default();
        let [one, two, three] = [(); 3].map(|()| hot.example().unwrap());
        assert!(hot.example().is_none());
        one.look(|| Some(vec![range(1, 3), range(9, 1)]));
        assert!(hot.ranges().is_empty());
        two.look(|| Some(vec![range(2, 3)]));
        assert_eq!(*hot.ranges(), [range(2, 2)]);
        three.look(|| Some(vec![range(4, 1), range(9, 1)]));
        assert_eq!(*hot.ranges(), [range(2, 3), range(9, 1)]);
        // The one that is looked at again counts once.
        one.look(|| Some(vec![range(1, 8)]));
        assert_eq!(*hot.ranges(), [range(2, 3)]);
    }

    #[test]
    fn who_has_written_more_than_is_guessed_changes_nothing_and_is_not_looked_at_for_ever() {
        let hot = Hot::default();
        let [one, two] = [(); 2].map(|()| hot.example().unwrap());
        one.look(|| Some(vec![range(0, PAGES as u64)]));
        two.look(|| Some(vec![range(7, 1)]));
        for _ in 1..LOOKS {
            two.look(|| Some(vec![range(0, PAGES as u64 + 1)]));
        }
        assert_eq!(*hot.ranges(), [range(7, 1)]);
        two.look(|| panic!("it was looked at often enough"));
        two.look(|| panic!("it was looked at often enough"));
    }
}
