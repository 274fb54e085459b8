//! Waiting lines: first come, first served, and leaving costs nothing.
//!
//! Members live in a [`Slab`] and carry their [`Links`], so that a future that is
//! dropped leaves the middle of a line of 100,000 at once and without a trace.

use core::task::Waker;

use slab::Slab;

/// A member's place in its slab.
pub(crate) type Key = usize;

const NONE: u32 = u32::MAX;

/// A member's neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    before: u32,
    behind: u32,
}

impl Links {
    /// Those of a member that is in no line.
    pub(crate) const LONE: Self = Self {
        before: NONE,
        behind: NONE,
    };
}

/// Something that can stand in a line.
pub(crate) trait Member {
    /// Where its neighbours are kept.
    fn links(&mut self) -> &mut Links;
}

/// A line of members of one slab. The caller sees to it that a member is in at most one.
#[derive(Debug)]
pub(crate) struct Line {
    first: u32,
    last: u32,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Whoever is next.
    #[inline]
    pub(crate) fn first(&self) -> Option<Key> {
        (self.first != NONE).then_some(self.first as Key)
    }

    /// Lets a member stand at the end.
    #[inline]
    pub(crate) fn join<M: Member>(&mut self, slab: &mut Slab<M>, key: Key) {
        debug_assert!(key < NONE as usize);
        *slab[key].links() = Links {
            before: self.last,
            behind: NONE,
        };
        match self.last {
            NONE => self.first = key as u32,
            last => slab[last as Key].links().behind = key as u32,
        }
        self.last = key as u32;
    }

    /// Lets a member go, wherever it stands.
    #[inline]
    pub(crate) fn leave<M: Member>(&mut self, slab: &mut Slab<M>, key: Key) {
        let Links { before, behind } = core::mem::replace(slab[key].links(), Links::LONE);
        match before {
            NONE => self.first = behind,
            before => slab[before as Key].links().behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => slab[behind as Key].links().before = before,
        }
    }
}

/// A line of wakers, for those who wait for a share of something.
#[derive(Debug)]
pub(crate) struct WaitingLine {
    waiters: Slab<Waiter>,
    line: Line,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    links: Links,
}

impl Member for Waiter {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl WaitingLine {
    pub(crate) const fn new() -> Self {
        Self {
            waiters: Slab::new(),
            line: Line::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Stands at the end.
    pub(crate) fn join(&mut self, waker: &Waker) -> Key {
        let key = self.waiters.insert(Waiter {
            waker: waker.clone(),
            links: Links::LONE,
        });
        self.line.join(&mut self.waiters, key);
        key
    }

    /// Whether it is this one's turn.
    pub(crate) fn is_first(&self, key: Key) -> bool {
        self.line.first() == Some(key)
    }

    /// Goes on waiting, perhaps with another waker. Returns the one to drop.
    pub(crate) fn renew(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let own = &mut self.waiters[key].waker;
        (!own.will_wake(waker)).then(|| core::mem::replace(own, waker.clone()))
    }

    /// Goes. Returns the waker to drop, and that of whoever is first now.
    #[must_use]
    pub(crate) fn leave(&mut self, key: Key) -> (Waker, Option<Waker>) {
        self.line.leave(&mut self.waiters, key);
        (self.waiters.remove(key).waker, self.first())
    }

    /// The waker of whoever is next.
    pub(crate) fn first(&self) -> Option<Waker> {
        self.line.first().map(|key| self.waiters[key].waker.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Person(char, Links);

    impl Member for Person {
        fn links(&mut self) -> &mut Links {
            &mut self.1
        }
    }

    #[test]
    fn whoever_leaves_the_middle_does_not_disturb_the_order() {
        let mut slab = Slab::new();
        let mut line = Line::new();
        let keys: Vec<Key> = "abcde"
            .chars()
            .map(|name| {
                let key = slab.insert(Person(name, Links::LONE));
                line.join(&mut slab, key);
                key
            })
            .collect();
        for gone in [2, 0, 4] {
            line.leave(&mut slab, keys[gone]);
        }
        line.join(&mut slab, keys[2]);
        let mut order = Vec::new();
        while let Some(key) = line.first() {
            order.push(slab[key].0);
            line.leave(&mut slab, key);
        }
        assert_eq!(order, ['b', 'd', 'c']);
        assert!(line.is_empty());
    }

    #[test]
    fn waiters_who_give_up_leave_nothing_behind() {
        let mut line = WaitingLine::new();
        let waker = Waker::noop();
        let first = line.join(waker);
        for _ in 0..1_000 {
            let second = line.join(waker);
            assert!(line.is_first(first) && !line.is_first(second));
            let _ = line.leave(second);
        }
        assert!(line.waiters.capacity() <= 4);
        let _ = line.leave(first);
        assert!(line.is_empty());
    }
}
