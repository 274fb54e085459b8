//! What a guest has by number, of values that are the host's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values of a sandbox that its guest holds by handles: the resources of a component's imports. There are so many at
/// most as [`Builder::host_resource`](crate::Builder::host_resource) says; functions of the host find them as
/// [`HostContext::state`](crate::HostContext::state).
#[derive(Debug)]
pub struct Resources<T> {
    table: Mutex<Table<T>>,
    most: usize,
}

#[derive(Debug)]
struct Table<T> {
    held: HashMap<u32, Arc<T>>,
    /// The last handle that was given.
    last: u32,
}

impl<T> Resources<T> {
    pub(crate) fn new(most: usize) -> Self {
        let table = Table {
            held: HashMap::new(),
            last: 0,
        };
        Self {
            table: Mutex::new(table),
            most,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<T>> {
        // Each change is one step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for a value; none if the guest holds as many as it may.
    pub fn insert(&self, value: T) -> Option<u32> {
        let mut table = self.table();
        if table.held.len() >= self.most {
            return None;
        }
        // One that was dropped is not given again soon: whoever kept it finds nothing.
        loop {
            table.last = table.last.wrapping_add(1);
            let handle = table.last;
            if let Entry::Vacant(free) = table.held.entry(handle) {
                free.insert(Arc::new(value));
                return Some(handle);
            }
        }
    }

    /// The value of a handle. A guest may ask with a number that it was never given.
    pub fn get(&self, handle: u32) -> Option<Arc<T>> {
        self.table().held.get(&handle).cloned()
    }

    /// Takes a value back: what a function does that is given a resource to keep, and a guest's drop.
    pub fn remove(&self, handle: u32) -> Option<Arc<T>> {
        self.table().held.remove(&handle)
    }

    /// How many the guest holds.
    pub fn len(&self) -> usize {
        self.table().held.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_holds_no_more_than_it_may_and_finds_nothing_by_what_it_dropped() {
        let resources = Resources::new(2);
        let one = resources.insert("one").unwrap();
        let two = resources.insert("two").unwrap();
        assert_eq!(resources.insert("three"), None);
        assert_eq!(resources.remove(one).as_deref(), Some(&"one"));
        assert_eq!((resources.remove(one), resources.get(one)), (None, None));
        let three = resources.insert("three").unwrap();
        assert!(three != one && three != two);
        assert_eq!(resources.get(two).as_deref(), Some(&"two"));
        assert_eq!(resources.len(), 2);
    }

    #[test]
    fn handles_that_are_held_are_not_given_when_numbers_begin_anew() {
        let resources = Resources::new(10);
        let first = resources.insert(1).unwrap();
        resources.table().last = u32::MAX;
        let zero = resources.insert(0).unwrap();
        assert_eq!((zero, resources.insert(2)), (0, Some(first + 1)));
    }
}
