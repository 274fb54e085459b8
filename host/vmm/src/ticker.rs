//! One thread for the process that ends quanta.
//!
//! While any vCPU is in its guest, the ticker wakes every [`TICK`] and kicks those that
//! have been there for as long as they may. Entering a guest costs it two loads and two stores; it
//! starts no timer. When no vCPU has been in a guest for a while, the ticker sleeps
//! until one is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::kick::Reasons;
use crate::process::PerProcess;
use crate::signal::VcpuKick;
use crate::thread;

/// Its thread's name.
const NAME: &str = "wakebox-tick";

/// The ticker's grain.
pub const TICK: Duration = Duration::from_millis(1);

/// Idle ticks after which the ticker sleeps.
const IDLE_TICKS: u32 = 20;

/// The process's ticker.
#[derive(Debug, Default)]
pub struct Ticker {
    tick: AtomicU64,
    asleep: AtomicBool,
    watched: Mutex<Vec<Weak<VcpuKick>>>,
    thread: OnceLock<Thread>,
    starting: Mutex<()>,
}

impl Ticker {
    /// The ticker, started at the first call. A child after `fork` has not inherited its parent's
    /// thread, and starts one of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] if its thread cannot start.
    pub fn get() -> Result<&'static Self> {
        static TICKER: PerProcess<Ticker> = PerProcess::new();
        let ticker = TICKER.get_or_init(Self::default);
        if ticker.thread.get().is_none() {
            let _one_at_a_time = ticker.starting.lock();
            if ticker.thread.get().is_none() {
                let handle = thread::spawn(NAME, Some(64 << 10), || ticker.run())
                    .map_err(|source| Error::Thread { name: NAME, source })?;
                let _ = ticker.thread.set(handle.thread().clone());
            }
        }
        Ok(ticker)
    }

    /// Watches a vCPU until it is dropped.
    pub fn watch(&self, kick: &Arc<VcpuKick>) {
        self.lock().push(Arc::downgrade(kick));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<VcpuKick>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tick after which a vCPU that enters its guest now has been there for `time`, rounded up
    /// to whole ticks.
    pub fn after(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(TICK.as_nanos()).max(1);
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.tick.load(Ordering::Relaxed).saturating_add(ticks)
    }

    /// To be called right after [`Kick::enter`](super::kick::Kick::enter), whose fence is the partner of
    /// the one in `run`: either the ticker sees the vCPU in its guest before it sleeps, or this
    /// sees the ticker asleep.
    pub fn entered(&self) {
        if self.asleep.load(Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self) {
        let mut idle = 0;
        loop {
            std::thread::sleep(TICK);
            let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
            idle = if self.look(now) { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS {
                self.asleep.store(true, Ordering::Relaxed);
                // Partner: the fence in `Kick::enter`. Race: a vCPU enters and sees the
                // ticker awake while this look misses it in its guest.
                fence(Ordering::SeqCst);
                if !self.look(now) {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::Relaxed);
                idle = 0;
            }
        }
    }

    /// Kicks whoever has had its time. Returns whether any vCPU is in its guest.
    fn look(&self, now: u64) -> bool {
        let mut any = false;
        self.lock().retain(|watched| {
            let Some(kick) = watched.upgrade() else {
                return false;
            };
            if kick.is_in_guest() {
                any = true;
                // A vCPU that entered while the ticker slept shows an old tick and leaves
                // a little early, once.
                if now > kick.until() {
                    kick.kick(Reasons::QUANTUM);
                }
            }
            true
        });
        any
    }
}
