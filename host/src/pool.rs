//! Sandboxes of a template that are ready before somebody wants one.
//!
//! ```text
//!            take                       dropped, or ended
//! ready ----------------> taken ---------------------------> machine and memory wait
//!   ^                                                                  |
//!   '------------------- another is made of the template -------------'
//! ```
//!
//! The machine of one that comes back is given to another of the same template. What the former has
//! written in its memory is written again from the template, in place: those pages need not be copied
//! once more, and a [rehearsal](PoolBuilder::rehearse) has written those that a call will write. Nothing
//! of a former tenant is there for the next; see the package's `SECURITY.md`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wakebox_vmm::machines::Machines;

use crate::calls::guest::Caller;
use crate::error::{Error, Result};
use crate::sandbox::{Builder, Running, Sandbox};
use crate::template::Template;

type Settings = Box<dyn Fn(Builder) -> Builder + Send + Sync>;
type Rehearsal = Box<dyn Fn(Caller) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Bytes that a sandbox has written and that stay its machine's; one that has written more is given all
/// of its memory anew.
const WRITTEN: u64 = 16 << 20;

/// Settings of a [`Pool`].
pub struct PoolBuilder {
    template: Template,
    idle: usize,
    max: usize,
    patience: Option<Duration>,
    reuses: bool,
    settings: Settings,
    rehearsal: Option<Rehearsal>,
}

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("idle", &self.idle)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl PoolBuilder {
    /// How many are ready, besides those that are taken. One by default.
    #[must_use]
    pub fn idle(mut self, sandboxes: usize) -> Self {
        self.idle = sandboxes;
        self
    }

    /// How many may be taken at once: who wants one more waits. 16 by default.
    #[must_use]
    pub fn max(mut self, sandboxes: usize) -> Self {
        self.max = sandboxes;
        self
    }

    /// How long somebody may wait for a sandbox ([`Error::PoolExhausted`]). As long as it takes by
    /// default.
    #[must_use]
    pub fn patience(mut self, most: Duration) -> Self {
        self.patience = Some(most);
        self
    }

    /// Whether a machine serves one sandbox of the pool after the other, as it does by default.
    #[must_use]
    pub fn reuse(mut self, reuses: bool) -> Self {
        self.reuses = reuses;
        self
    }

    /// What each sandbox gets: a template carries no rights. Called once for each.
    #[must_use]
    pub fn settings(
        mut self,
        settings: impl Fn(Builder) -> Builder + Send + Sync + 'static,
    ) -> Self {
        self.settings = Box::new(settings);
        self
    }

    /// What a sandbox is to do before it is reset: calls like those that it will get, so that the memory
    /// that they write is its own already. Nothing of what they did is left but that.
    #[must_use]
    pub fn rehearse<F, Fut>(mut self, rehearsal: F) -> Self
    where
        F: Fn(Caller) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.rehearsal = Some(Box::new(move |caller| Box::pin(rehearsal(caller))));
        self
    }

    /// Makes the pool and the sandboxes that are ready in it, rehearsed.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`]; [`Error::Setting`] if none may be taken.
    pub async fn build(self) -> Result<Pool> {
        if self.max == 0 {
            return Err(Error::Setting(
                "a pool of which no sandbox may be taken is of no use: at least 1".into(),
            ));
        }
        let machines = match self.reuses {
            true => Machines::keeping(self.idle + self.max, WRITTEN),
            false => Machines::new(0),
        };
        let pool = Pool(Arc::new(Inner {
            template: self.template,
            settings: self.settings,
            machines,
            permits: Arc::new(Semaphore::new(self.max)),
            patience: self.patience,
            idle: self.idle,
            ready: Mutex::default(),
            making: AtomicUsize::new(0),
        }));
        if let Some(rehearsal) = self.rehearsal.filter(|_| self.reuses) {
            // All at once, so that as many machines come of it.
            let mut rehearsed = Vec::new();
            for _ in 0..self.idle.max(1) {
                let running = pool.0.make()?.start();
                rehearsal(running.caller()).await;
                rehearsed.push(running);
            }
            for running in rehearsed {
                running.handle().kill();
                running.ended().await?;
            }
            pool.0.machines.tidy_up();
        }
        pool.0.fill()?;
        Ok(pool)
    }
}

struct Inner {
    template: Template,
    settings: Settings,
    machines: Machines,
    permits: Arc<Semaphore>,
    patience: Option<Duration>,
    /// How many are to be ready.
    idle: usize,
    ready: Mutex<Vec<Sandbox>>,
    /// How many are being made for that. Written by who has the lock of `ready`, or has failed.
    making: AtomicUsize,
}

/// A sandbox that is being made to be ready.
struct Making<'a>(Option<&'a AtomicUsize>);

impl<'a> Making<'a> {
    /// `None` if there are as many as are to be.
    fn begin(pool: &'a Inner) -> Option<Self> {
        let ready = pool.ready();
        let coming = pool.making.load(Ordering::Relaxed);
        (ready.len() + coming < pool.idle).then(|| {
            pool.making.fetch_add(1, Ordering::Relaxed);
            Self(Some(&pool.making))
        })
    }

    /// It is made, and stands there.
    fn end(mut self, _ready: &MutexGuard<'_, Vec<Sandbox>>) {
        if let Some(making) = self.0.take() {
            making.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Making<'_> {
    /// It could not be made.
    fn drop(&mut self) {
        if let Some(making) = self.0 {
            making.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.idle)
            .field("ready", &self.ready().len())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn ready(&self) -> MutexGuard<'_, Vec<Sandbox>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Sandbox> {
        let builder = (self.settings)(self.template.spawn());
        builder.machines(self.machines.clone()).build()
    }

    /// Makes as many ready as are to be, with what others are making.
    fn fill(&self) -> Result<()> {
        while let Some(making) = Making::begin(self) {
            let sandbox = self.make()?;
            // Nobody counts it twice: not one that was made and one that is being made.
            let mut ready = self.ready();
            ready.push(sandbox);
            making.end(&ready);
        }
        Ok(())
    }

    /// Resets what has come back, and makes as many ready as are to be. What cannot be made now is made
    /// when somebody wants it, who is told why it cannot be.
    fn refill(&self) {
        self.machines.tidy_up();
        let _ = self.fill();
    }
}

/// Sandboxes of a template that are ready. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

impl Pool {
    /// Settings of a pool of this template's sandboxes.
    #[must_use]
    pub fn builder(template: Template) -> PoolBuilder {
        PoolBuilder {
            template,
            idle: 1,
            max: 16,
            patience: None,
            reuses: true,
            settings: Box::new(|builder| builder),
            rehearsal: None,
        }
    }

    /// How many are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.0.ready().len()
    }

    /// How many machines were made for it so far: about as many as were in use at once, however many were taken.
    #[must_use]
    pub fn machines_made(&self) -> usize {
        self.0.machines.made()
    }

    /// Takes a sandbox, and runs it as a task of the current Tokio runtime. If as many are taken as may
    /// be, it waits, first come, first served.
    ///
    /// Whoever drops it ends it; its machine then serves the next.
    ///
    /// # Errors
    ///
    /// [`Error::PoolExhausted`]; [`Error::NoRuntime`]; as [`Builder::build`].
    pub async fn take(&self) -> Result<Running> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let permit = self.permit().await?;
        let ready = self.0.ready().pop();
        let sandbox = match ready {
            Some(sandbox) => sandbox,
            None => self.0.make()?,
        };
        let back = Back {
            pool: Arc::downgrade(&self.0),
            _permit: permit,
        };
        Ok(sandbox.start_in(&runtime, move || back.refill()))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = self.0.permits.clone().acquire_owned();
        let permit = match self.0.patience {
            None => permit.await,
            Some(patience) => match tokio::time::timeout(patience, permit).await {
                Ok(permit) => permit,
                Err(_) => return Err(Error::PoolExhausted { patience }),
            },
        };
        Ok(permit.expect("nobody closes the semaphore"))
    }
}

/// A place in the pool that was taken.
struct Back {
    pool: Weak<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Back {
    /// The sandbox is gone: another may be taken, and is made ready on a thread for blocking calls.
    fn refill(self) {
        if let Some(pool) = self.pool.upgrade() {
            tokio::task::spawn_blocking(move || {
                pool.refill();
                // Who waits gets one that is ready.
                drop(self);
            });
        }
    }
}
