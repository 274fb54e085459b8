//! Who can take the rings' turns on a caller's thread.

use std::time::Duration;

/// What a helper does between its turns.
pub(crate) trait Errand {
    /// Sets something going that crosses the boundary.
    fn begin(&mut self);
    /// Whether it has come back.
    fn is_done(&self) -> bool;
}

/// Takes turns on the calling thread: the way to the guest and back then takes no other.
pub(crate) trait Help: std::fmt::Debug + Send + Sync {
    /// Begins the errand and takes turns until it is done, or for `limit`.
    fn help(&self, limit: Duration, errand: &mut dyn Errand);
}
