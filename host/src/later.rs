//! What takes long to let go of. The last descriptor of a large file that has no name any more frees
//! its blocks, one that was written to may wait for a server or a disk, and memory goes back page by
//! page: none of it in a turn of the driver.
//!
//! [`Later`] holds one value of such a kind, and [`let_go`] is for whatever else has become much.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::runtime::Handle;

use crate::allowance;
use crate::outside::guarded;

/// What may take long to drop.
pub(crate) trait Heavy: Send + 'static {
    /// Whether this one may. Must not block.
    fn is_heavy(&self) -> bool;
}

/// A value that is not dropped in a turn of the driver if that may take long, but on a thread for
/// blocking calls.
#[derive(Debug)]
pub(crate) struct Later<T: Heavy>(Option<T>);

impl<T: Heavy> Later<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Heavy> Deref for Later<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Heavy + AsFd> AsFd for Later<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<T: Heavy> Drop for Later<T> {
    fn drop(&mut self) {
        if let Some(value) = self
            .0
            .take_if(|value| allowance::counts() && value.is_heavy())
        {
            let_go(value);
        }
    }
}

/// Drops a value on a thread for blocking calls of the runtime that the calling thread is in; here if
/// it is in none.
pub(crate) fn let_go<T: Send + 'static>(value: T) {
    match Handle::try_current() {
        // Tokio panics where it cannot start a thread, and drops it here.
        Ok(runtime) => drop(guarded(|| runtime.spawn_blocking(move || drop(value)))),
        Err(_) => drop(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allowance::{Allowance, Quota};
    use std::sync::mpsc::{self, Sender};
    use std::thread::{self, ThreadId};

    /// Says which thread drops it.
    struct Told(Sender<ThreadId>, bool);

    impl Heavy for Told {
        fn is_heavy(&self) -> bool {
            self.1
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    /// Whether a value is dropped on this thread.
    fn is_dropped_here(is_heavy: bool) -> bool {
        let (tell, told) = mpsc::channel();
        drop(Later::new(Told(tell, is_heavy)));
        told.recv().unwrap() == thread::current().id()
    }

    #[test]
    fn what_is_heavy_is_dropped_elsewhere_in_a_turn_and_at_once_outside() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let in_turn = |is_heavy| {
            let _turn = Allowance::new(Quota::TURN);
            is_dropped_here(is_heavy)
        };
        assert!(in_turn(true), "there is nowhere else");
        let _runtime = runtime.enter();
        assert!(!in_turn(true));
        assert!(in_turn(false));
        assert!(is_dropped_here(true));
    }
}
