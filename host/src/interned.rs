//! Guest files, each held once for all sandboxes that came from it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A file's length, so that only those of equal length are compared, and its bytes.
type Known = (usize, Weak<[u8]>);

/// These bytes, shared with all who hold equal ones.
pub(crate) fn interned(bytes: Vec<u8>) -> Arc<[u8]> {
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(_, held)| held.strong_count() > 0);
    let equal = known
        .iter()
        .filter(|(len, _)| *len == bytes.len())
        .filter_map(|(_, held)| held.upgrade())
        .find(|held| **held == *bytes);
    equal.unwrap_or_else(|| {
        let bytes: Arc<[u8]> = bytes.into();
        known.push((bytes.len(), Arc::downgrade(&bytes)));
        bytes
    })
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
    fn what_nobody_holds_is_forgotten() {
        let weak = Arc::downgrade(&interned(b"a guest that is gone".to_vec()));
        assert_eq!(weak.strong_count(), 0);
        assert_eq!(
            *interned(b"a guest that is gone".to_vec()),
            *b"a guest that is gone"
        );
    }
}
