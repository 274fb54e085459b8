//! Guest files, each held once for all sandboxes that came from it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A file's length, so that only those of equal length are compared, and its bytes.
type Known = (usize, Weak<Vec<u8>>);

/// Most files of the same length with which another is compared, the newest. There are more if
/// somebody makes them to differ in the last byte: then they are held apart.
const MOST_COMPARED: usize = 8;

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// These bytes, shared with all who hold equal ones.
pub(crate) fn interned(bytes: Vec<u8>) -> Arc<Vec<u8>> {
    let of_equal_length: Vec<Arc<Vec<u8>>> = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, held)| held.strong_count() > 0);
        let equal = known.iter().rev().filter(|(len, _)| *len == bytes.len());
        let held = equal.filter_map(|(_, held)| held.upgrade());
        held.take(MOST_COMPARED).collect()
    };
    // Nobody else waits for this.
    if let Some(equal) = of_equal_length.into_iter().find(|held| **held == *bytes) {
        return equal;
    }
    let bytes = Arc::new(bytes);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.push((bytes.len(), Arc::downgrade(&bytes)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_are_held_once_and_others_apart() {
        let one = interned(b"a guest, one".to_vec());
        let same = interned(b"a guest, one".to_vec());
        let other = interned(b"a guest, two".to_vec());
        assert!(Arc::ptr_eq(&one, &same));
        assert!(!Arc::ptr_eq(&one, &other));
        assert_eq!(*other, *b"a guest, two");
    }

    #[test]
    fn one_is_compared_with_so_many_of_its_length_and_no_more() {
        let make = |last: usize| interned(vec![last as u8; 37]);
        let held: Vec<_> = (0..=MOST_COMPARED).map(make).collect();
        for (last, file) in held.iter().enumerate().skip(1) {
            assert!(Arc::ptr_eq(file, &make(last)));
        }
        // The oldest is no longer looked at; the new one is as good.
        let again = make(0);
        assert!(!Arc::ptr_eq(&held[0], &again) && *held[0] == *again);
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let weak = Arc::downgrade(&interned(b"a guest that is gone".to_vec()));
        assert_eq!(weak.strong_count(), 0);
        assert_eq!(
            *interned(b"a guest that is gone".to_vec()),
            *b"a guest that is gone"
        );
    }
}
