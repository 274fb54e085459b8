//! Timers: a heap of deadlines, first set first fired among equals.
//!
//! The heap is a vector in which each entry is not later than its four children, at
//! `4i + 1` to `4i + 4`. A timer knows its index in it, so that a sleep that is dropped
//! leaves at once: a million timeouts that never fire hold no memory.

use alloc::vec::Vec;
use core::task::Waker;

use slab::Slab;

use crate::wait_queue::Key;

/// Nanoseconds on the guest's monotonic clock.
type Nanos = u64;

const CHILDREN: usize = 4;

/// The index of a timer that has fired.
const FIRED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Nanos,
    /// Its number. Which timer was set first, among those of one deadline.
    sequence: u64,
    timer: u32,
}

impl Entry {
    fn is_before(&self, other: &Self) -> bool {
        (self.at, self.sequence) < (other.at, other.sequence)
    }
}

#[derive(Debug)]
struct Timer {
    /// Index in the heap, or [`FIRED`].
    index: u32,
    waker: Option<Waker>,
}

/// All timers of a guest.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    timers: Slab<Timer>,
    next_sequence: u64,
}

impl Timers {
    pub(crate) const fn new() -> Self {
        Self {
            heap: Vec::new(),
            timers: Slab::new(),
            next_sequence: 1,
        }
    }

    /// The nearest deadline.
    #[inline]
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Sets a timer, which exists until [`Self::remove`].
    pub(crate) fn insert(&mut self, at: Nanos, waker: Waker) -> Key {
        let index = self.heap.len();
        let timer = self.timers.insert(Timer {
            index: index as u32,
            waker: Some(waker),
        });
        self.heap.push(Entry {
            at,
            sequence: self.next_sequence,
            timer: timer as u32,
        });
        self.next_sequence += 1;
        self.rise(index);
        timer
    }

    /// Whether a timer has fired; if not, it will wake `waker`. Returns the waker to drop.
    pub(crate) fn poll(&mut self, timer: Key, waker: &Waker) -> (bool, Option<Waker>) {
        let timer = &mut self.timers[timer];
        if timer.index == FIRED {
            return (true, None);
        }
        match &timer.waker {
            Some(own) if own.will_wake(waker) => (false, None),
            _ => (false, timer.waker.replace(waker.clone())),
        }
    }

    /// Forgets a timer, fired or not. Returns the waker to drop.
    #[must_use]
    pub(crate) fn remove(&mut self, timer: Key) -> Option<Waker> {
        let timer = self.timers.remove(timer);
        if timer.index != FIRED {
            self.take_out(timer.index as usize);
        }
        timer.waker
    }

    /// The number of a timer, which no other has; `None` if it has fired.
    pub(crate) fn number(&self, timer: Key) -> Option<u64> {
        let index = self.timers[timer].index as usize;
        self.heap.get(index).map(|entry| entry.sequence)
    }

    /// Fires the first timer that is due, and returns whom to wake, and the number of the timer.
    pub(crate) fn fire(&mut self, now: Nanos) -> Option<(Waker, u64)> {
        while self.next()? <= now {
            let entry = self.take_out(0);
            let timer = &mut self.timers[entry.timer as Key];
            timer.index = FIRED;
            if let Some(waker) = timer.waker.take() {
                return Some((waker, entry.sequence));
            }
        }
        None
    }

    /// Takes the entry at a index out of the heap.
    fn take_out(&mut self, index: usize) -> Entry {
        let entry = self.heap.swap_remove(index);
        if index < self.heap.len() {
            // The former last entry stands here now, and may belong above or below.
            self.note(index);
            self.rise(index);
            self.sink(index);
        }
        entry
    }

    /// Moves an entry up to where its parent is before it.
    fn rise(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / CHILDREN;
            if !self.heap[index].is_before(&self.heap[parent]) {
                break;
            }
            self.swap(index, parent);
            index = parent;
        }
    }

    /// Moves an entry down to where it is before its children.
    fn sink(&mut self, mut index: usize) {
        loop {
            let first = index * CHILDREN + 1;
            let end = (first + CHILDREN).min(self.heap.len());
            let mut least = index;
            for child in first..end {
                if self.heap[child].is_before(&self.heap[least]) {
                    least = child;
                }
            }
            if least == index {
                break;
            }
            self.swap(index, least);
            index = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    /// Tells the timer of a index where it is.
    fn note(&mut self, index: usize) {
        self.timers[self.heap[index].timer as Key].index = index as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::task::Wake;

    struct Bell(usize, Arc<AtomicUsize>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0, Ordering::Relaxed);
        }
    }

    /// A waker that leaves its number behind, and where it leaves it.
    fn bell(number: usize, last: &Arc<AtomicUsize>) -> Waker {
        Arc::new(Bell(number, last.clone())).into()
    }

    fn fired(timers: &mut Timers, now: Nanos, last: &AtomicUsize) -> Vec<usize> {
        core::iter::from_fn(|| {
            timers.fire(now)?.0.wake();
            Some(last.load(Ordering::Relaxed))
        })
        .collect()
    }

    #[test]
    fn timers_fire_in_order_and_equal_ones_as_they_were_set() {
        let last = Arc::default();
        let mut timers = Timers::new();
        for (number, at) in [30, 10, 20, 10, 30, 10, u64::MAX, 0]
            .into_iter()
            .enumerate()
        {
            timers.insert(at, bell(number, &last));
        }
        assert_eq!(timers.next(), Some(0));
        assert_eq!(fired(&mut timers, 9, &last), [7]);
        assert_eq!(fired(&mut timers, 29, &last), [1, 3, 5, 2]);
        assert_eq!(fired(&mut timers, u64::MAX - 1, &last), [0, 4]);
        assert_eq!(timers.next(), Some(u64::MAX));
    }

    #[test]
    fn dropped_timers_leave_nothing_behind() {
        let mut timers = Timers::new();
        let keep = timers.insert(5, Waker::noop().clone());
        for at in 0..1_000_000 {
            let timer = timers.insert(at, Waker::noop().clone());
            let _ = timers.remove(timer);
        }
        assert!(timers.heap.capacity() <= 8 && timers.timers.capacity() <= 8);
        assert!(timers.fire(5).is_some());
        assert!(timers.poll(keep, Waker::noop()).0);
        let _ = timers.remove(keep);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn any_mixture_of_setting_and_removing_keeps_the_order() {
        let last = Arc::default();
        let mut timers = Timers::new();
        // xorshift64: any sequence will do, as long as it is the same each time.
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut set = Vec::new();
        for number in 0..10_000 {
            let at = next() % 1_000;
            set.push((at, number, timers.insert(at, bell(number, &last))));
            if next() % 3 == 0 {
                let (_, _, timer) = set.swap_remove(next() as usize % set.len());
                let _ = timers.remove(timer);
            }
        }
        set.sort_unstable();
        let expected: Vec<usize> = set.into_iter().map(|(_, number, _)| number).collect();
        assert_eq!(fired(&mut timers, 1_000, &last), expected);
    }
}
