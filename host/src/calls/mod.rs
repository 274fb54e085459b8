//! Calls across the boundary: functions of the embedding program that a guest calls
//! ([`host`]), and functions of a guest that the program calls ([`guest`]).
//!
//! Arguments and results are any serde types, in postcard's format on the way. A function's
//! own errors are part of its result and arrive typed; what goes wrong with the call itself
//! is a status.

pub(crate) mod guest;
pub(crate) mod host;
mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::message::deserialize;

/// Most bytes of one message.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;

/// Most bytes that the host keeps for one guest, in messages that the guest has yet to read and in
/// replies of which the guest has sent a part.
const KEPT_MAX: usize = 4 * MESSAGE_MAX;

/// The bytes that the host keeps for one guest. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Counts `bytes` more until the value is dropped; `None` if they are too many.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let add = |kept: usize| kept.checked_add(bytes).filter(|sum| *sum <= KEPT_MAX);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()?;
        Some(Share {
            budget: self.clone(),
            bytes,
        })
    }
}

/// A part of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A message that is kept until its reader is done with it.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    _share: Share,
}

impl Kept {
    /// Keeps a message, if the budget allows it.
    pub(crate) fn new(bytes: Vec<u8>, budget: &Budget) -> Option<Self> {
        let share = budget.take(bytes.len())?;
        Some(Self {
            bytes,
            _share: share,
        })
    }

    /// The message.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_make_the_host_keep_more_than_the_budget() {
        let budget = Budget::default();
        let kept: Vec<_> = std::iter::from_fn(|| Kept::new(vec![0; MESSAGE_MAX], &budget))
            .take(100)
            .collect();
        assert_eq!(kept.len(), KEPT_MAX / MESSAGE_MAX);
        assert!(Kept::new(vec![0], &budget).is_none());
        drop(kept);
        assert!(Kept::new(vec![0], &budget).is_some());
    }
}
