//! Calls that may block: they run on Tokio's threads for such calls.
//!
//! # What bounds them
//!
//! Those threads belong to the whole process, so each sandbox uses a few at a time ([`BlockingPool`]).
//! The permit goes with the call, not with the operation that asked for it: a guest
//! that cancels and asks again, over and over, has no more calls under way than one that waits.
//!
//! # Calls that reach into the arena
//!
//! Dropping a future does not stop a call that is under way. Most calls own all that they use,
//! so nobody minds. But a read that goes on after its operation was answered would write into a
//! buffer that the guest has given to somebody else by then, and a write would store what
//! somebody else has put there. So an operation whose call has the kernel work in the arena is
//! not dropped while the call runs, cancelled or not ([`Reach`]): it completes when the call has
//! ended, as it would have otherwise, and only then is the buffer the guest's again. When the
//! whole sandbox ends, the call keeps the memory mapped until it has ended too, and no guest runs
//! there any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use wakebox_abi::op::Handle;
use wakebox_abi::status::Status;

use super::{End, Pending, Started};

/// How many blocking calls of one kind one sandbox may have under way.
#[derive(Clone, Debug)]
pub(crate) struct BlockingPool(Arc<Semaphore>);

impl BlockingPool {
    /// So many calls at a time; others wait for their turn.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = self.0.clone().acquire_owned().await;
        permit.expect("nobody closes the semaphore")
    }

    /// Runs a call that owns all that it uses. If the future is dropped, a call that is under way
    /// runs to its end and what it returns is dropped.
    ///
    /// # Errors
    ///
    /// `Other` if the call panics or the runtime ends.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let permit = self.permit().await;
        let call = spawn_blocking(move || {
            let _permit = permit;
            call()
        });
        call.await.map_err(|_| Status::Other)
    }

    /// An operation on an open resource that is a call.
    pub(super) fn start(
        &self,
        handle: Option<Handle>,
        call: impl FnOnce() -> Result<End, Status> + Send + 'static,
    ) -> Started {
        let pool = self.clone();
        let operation = async move { pool.run(call).await.flatten().unwrap_or_else(End::from) };
        Started::boxed(handle, Box::pin(operation))
    }

    /// An operation that is a call which has the kernel read or write the arena.
    pub(super) fn start_transfer(
        &self,
        handle: Handle,
        call: impl FnOnce() -> io::Result<usize> + Send + 'static,
    ) -> Started {
        let pool = self.clone();
        let reach = Reach::default();
        let begun = reach.clone();
        reach.holds(handle, async move { pool.transfer(&begun, call).await })
    }

    /// The same as a part of an operation that [reaches](Reach) into the arena from then on.
    pub(super) async fn transfer(
        &self,
        reach: &Reach,
        call: impl FnOnce() -> io::Result<usize> + Send + 'static,
    ) -> End {
        let permit = self.permit().await;
        reach.begin();
        let call = spawn_blocking(move || {
            let _permit = permit;
            call()
        });
        match call.await {
            Ok(Ok(count)) => End::bytes(count),
            Ok(Err(error)) => error.into(),
            Err(_) => Status::Other.into(),
        }
    }
}

/// Whether a call is under way that reaches into the arena. Written and read by whoever has the
/// driver, so it needs no order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach(Arc<AtomicBool>);

impl Reach {
    /// The kernel works there from now on.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An operation on an open resource which says so.
    pub(super) fn holds(
        self,
        handle: Handle,
        operation: impl Future<Output = End> + Send + 'static,
    ) -> Started {
        Started::Pending(Pending {
            handle: Some(handle),
            reach: Some(self),
            future: Box::pin(operation),
        })
    }

    /// Whether the operation may not be dropped.
    pub(crate) fn is_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
