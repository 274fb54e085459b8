//! Wait queues: first come, first served, and leaving costs nothing.
//!
//! Members live in a [`Slab`] and carry their [`Links`], so that a future that is
//! dropped leaves the middle of a queue of 100,000 at once and without a trace.

use core::task::Waker;

use slab::Slab;

/// A member's key in its slab.
pub(crate) type Key = usize;

const NONE: u32 = u32::MAX;

/// A member's neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    before: u32,
    behind: u32,
}

impl Links {
    /// Those of a member that is in no queue.
    pub(crate) const LONE: Self = Self {
        before: NONE,
        behind: NONE,
    };
}

/// Something that can stand in a queue.
pub(crate) trait Member {
    /// Where its neighbours are kept.
    fn links(&mut self) -> &mut Links;
}

/// A queue of members of one slab. The caller sees to it that a member is in at most one.
#[derive(Debug)]
pub(crate) struct Queue {
    first: u32,
    last: u32,
}

impl Queue {
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

/// A queue of wakers, for those who wait for a share of something.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    waiters: Slab<Waiter>,
    queue: Queue,
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

impl WaitQueue {
    pub(crate) const fn new() -> Self {
        Self {
            waiters: Slab::new(),
            queue: Queue::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Stands at the end.
    pub(crate) fn join(&mut self, waker: &Waker) -> Key {
        let key = self.waiters.insert(Waiter {
            waker: waker.clone(),
            links: Links::LONE,
        });
        self.queue.join(&mut self.waiters, key);
        key
    }

    /// Whether it is this one's turn.
    pub(crate) fn is_first(&self, key: Key) -> bool {
        self.queue.first() == Some(key)
    }

    /// Goes on waiting, perhaps with another waker. Returns the one to drop.
    pub(crate) fn renew(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let own = &mut self.waiters[key].waker;
        (!own.will_wake(waker)).then(|| core::mem::replace(own, waker.clone()))
    }

    /// Goes. Returns the waker to drop, and that of whoever is first now.
    #[must_use]
    pub(crate) fn leave(&mut self, key: Key) -> (Waker, Option<Waker>) {
        self.queue.leave(&mut self.waiters, key);
        (self.waiters.remove(key).waker, self.first())
    }

    /// The waker of whoever is next.
    pub(crate) fn first(&self) -> Option<Waker> {
        self.queue
            .first()
            .map(|key| self.waiters[key].waker.clone())
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
        let mut queue = Queue::new();
        let keys: Vec<Key> = "abcde"
            .chars()
            .map(|name| {
                let key = slab.insert(Person(name, Links::LONE));
                queue.join(&mut slab, key);
                key
            })
            .collect();
        for gone in [2, 0, 4] {
            queue.leave(&mut slab, keys[gone]);
        }
        queue.join(&mut slab, keys[2]);
        let mut order = Vec::new();
        while let Some(key) = queue.first() {
            order.push(slab[key].0);
            queue.leave(&mut slab, key);
        }
        assert_eq!(order, ['b', 'd', 'c']);
        assert!(queue.is_empty());
    }

    #[test]
    fn waiters_who_give_up_leave_nothing_behind() {
        let mut queue = WaitQueue::new();
        let waker = Waker::noop();
        let first = queue.join(waker);
        for _ in 0..1_000 {
            let second = queue.join(waker);
            assert!(queue.is_first(first) && !queue.is_first(second));
            let _ = queue.leave(second);
        }
        assert!(queue.waiters.capacity() <= 4);
        let _ = queue.leave(first);
        assert!(queue.is_empty());
    }
}
