//! The queues of tasks that any processor may run.
//!
//! Each processor has a [`LocalQueue`] of bounded size: it alone pushes, itself and others pop, and others take
//! half of what is there at once. What does not fit goes to the [`GlobalQueue`].
//!
//! # The argument of the local queue
//!
//! `tail` is written by the owner alone, with Release, so that who reads it with Acquire sees the slots below it.
//! `head` moves by compare-and-exchange only, and whoever has moved it owns the slots that it passed. A thief copies
//! slots first and moves `head` afterwards: the slots that it has read are whole if `head` is still where it was, since the
//! owner writes a slot again only when `head` has passed it. (Indices run freely over 32 bits; a thief would have to sleep
//! through exactly 2³² pops to be deceived.)
//!
//! `guest/tests/pool_model.rs` runs these very functions through every interleaving.

use alloc::collections::VecDeque;
use core::ptr;

use super::primitives::{AtomicPtr, AtomicU32, Mutex, Ordering};

/// Slots of a local queue.
pub(crate) const SLOTS: usize = 256;

/// Tasks of one processor, oldest first. `T` is what the pointers point to.
pub(crate) struct LocalQueue<T, const N: usize = SLOTS> {
    head: AtomicU32,
    tail: AtomicU32,
    slots: [AtomicPtr<T>; N],
}

impl<T, const N: usize> LocalQueue<T, N> {
    pub(crate) fn new() -> Self {
        const { assert!(N.is_power_of_two() && N >= 2) };
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            slots: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    fn slot(&self, index: u32) -> &AtomicPtr<T> {
        &self.slots[index as usize % N]
    }

    /// How many there are, or were a moment ago.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        let head = self.head.load(Ordering::Relaxed);
        self.tail
            .load(Ordering::Relaxed)
            .wrapping_sub(head)
            .min(N as u32)
    }

    /// Appends a task, by the owner. Returns it if there is no room.
    #[inline]
    pub(crate) fn push(&self, task: *mut T) -> Result<(), *mut T> {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire, with the Release of who has moved it: that one has read the slots that are written again.
        if tail.wrapping_sub(self.head.load(Ordering::Acquire)) >= N as u32 {
            return Err(task);
        }
        self.slot(tail).store(task, Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Takes the oldest, by the owner.
    #[inline]
    pub(crate) fn pop(&self) -> Option<*mut T> {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            let task = self.slot(head).load(Ordering::Relaxed);
            let next = head.wrapping_add(1);
            let moved = self
                .head
                .compare_exchange(head, next, Ordering::AcqRel, Ordering::Relaxed);
            match moved {
                Ok(_) => return Some(task),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Moves half of what there is, and at least one, to the queue of a thief, by that one. Returns one of
    /// them, which is in no queue.
    pub(crate) fn steal_half(&self, thief: &Self) -> Option<*mut T> {
        let own_tail = thief.tail.load(Ordering::Relaxed);
        let room = N as u32 - own_tail.wrapping_sub(thief.head.load(Ordering::Acquire));
        loop {
            let head = self.head.load(Ordering::Acquire);
            // Acquire, with the Release in `push`.
            let tail = self.tail.load(Ordering::Acquire);
            let there = tail.wrapping_sub(head);
            if there > N as u32 {
                // `head` is older than `tail`.
                continue;
            }
            let count = (there - there / 2).min(room);
            if count == 0 {
                return None;
            }
            // The last of them is returned, the others lie behind the thief's tail, where nobody looks yet.
            let last = count - 1;
            for index in 0..last {
                let task = self.slot(head.wrapping_add(index)).load(Ordering::Relaxed);
                thief
                    .slot(own_tail.wrapping_add(index))
                    .store(task, Ordering::Relaxed);
            }
            let task = self.slot(head.wrapping_add(last)).load(Ordering::Relaxed);
            let next = head.wrapping_add(count);
            // AcqRel: the slots have been read before the owner writes them again.
            if self
                .head
                .compare_exchange(head, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                thief
                    .tail
                    .store(own_tail.wrapping_add(last), Ordering::Release);
                return Some(task);
            }
        }
    }
}

/// Tasks that no processor has, oldest first.
pub(crate) struct GlobalQueue<T> {
    /// How many there are; changes under the lock.
    len: AtomicU32,
    tasks: Mutex<VecDeque<*mut T>>,
}

// SAFETY: the pointers are behind a lock, and are nothing but numbers here.
unsafe impl<T> Sync for GlobalQueue<T> {}
// SAFETY: as above.
unsafe impl<T> Send for GlobalQueue<T> {}

impl<T> GlobalQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicU32::new(0),
            tasks: Mutex::new(VecDeque::new()),
        }
    }

    /// How many there are, or were a moment ago.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Relaxed)
    }

    /// Appends a task.
    pub(crate) fn push(&self, task: *mut T) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.push_back(task);
        self.len.store(tasks.len() as u32, Ordering::Relaxed);
    }

    /// Takes a share of what there is for one of so many processors: returns the oldest, and moves the others to the
    /// queue of that processor, by that one.
    pub(crate) fn take_share<const N: usize>(
        &self,
        processors: u32,
        own: &LocalQueue<T, N>,
    ) -> Option<*mut T> {
        if self.len() == 0 {
            return None;
        }
        let mut tasks = self.tasks.borrow_mut();
        let first = tasks.pop_front()?;
        let share = (tasks.len() as u32 / processors).min(N as u32 / 2);
        for _ in 0..share {
            let Some(task) = tasks.pop_front() else { break };
            if let Err(task) = own.push(task) {
                tasks.push_front(task);
                break;
            }
        }
        self.len.store(tasks.len() as u32, Ordering::Relaxed);
        Some(first)
    }
}
