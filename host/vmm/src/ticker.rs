//! One thread for the process that ends quanta.
//!
//! While any vCPU is in its guest, the ticker wakes every [`TICK`] and kicks those that
//! have been there for as long as they may. It looks at those alone that were in their guests lately:
//! thousands that sleep cost it nothing. Entering a guest costs it two loads and two stores; it
//! starts no timer. When no vCPU has been in a guest for a while, the ticker sleeps
//! until one is.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// Ticks after which a vCPU that is not in its guest is no longer looked at.
const IDLE_TICKS: u32 = 20;

/// A vCPU that was in its guest lately.
#[derive(Debug)]
struct Watched {
    kick: Weak<VcpuKick>,
    /// Ticks since it was seen there.
    idle: u32,
}

/// The process's ticker.
#[derive(Debug, Default)]
pub struct Ticker {
    tick: AtomicU64,
    /// Empty while the thread sleeps.
    watched: Mutex<Vec<Watched>>,
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tick after which a vCPU that enters its guest now has been there for `time`, rounded up
    /// to whole ticks.
    pub fn after(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(TICK.as_nanos()).max(1);
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.tick.load(Ordering::Relaxed).saturating_add(ticks)
    }

    /// To be called right after [`Kick::enter`](super::kick::Kick::enter): from now on it is looked at.
    pub fn entered(&self, kick: &Arc<VcpuKick>) {
        if kick.watch() {
            let (kick, idle) = (Arc::downgrade(kick), 0);
            self.lock().push(Watched { kick, idle });
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    fn run(&self) {
        loop {
            // Who adds one wakes this thread after it: a wake that comes before the wait is not lost.
            while self.lock().is_empty() {
                std::thread::park();
            }
            std::thread::sleep(TICK);
            let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
            self.lock().retain_mut(|watched| watched.look(now));
        }
    }
}

impl Watched {
    /// Kicks it if it has had its time. Returns whether it is to be looked at again.
    fn look(&mut self, now: u64) -> bool {
        let Some(kick) = self.kick.upgrade() else {
            return false;
        };
        if !kick.is_in_guest() {
            self.idle += 1;
            if self.idle >= IDLE_TICKS && kick.unwatch() {
                return false;
            }
            return true;
        }
        self.idle = 0;
        // A vCPU that entered while the ticker slept shows an old tick and leaves a little early, once.
        if now > kick.until() {
            kick.kick(Reasons::QUANTUM);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kick::Kick;

    #[test]
    fn those_that_sleep_are_not_looked_at_until_they_are_entered_again() {
        let ticker = Ticker::default();
        let listed = || ticker.lock().len();
        let tick = |now| ticker.lock().retain_mut(|watched| watched.look(now));
        let [sleeps, computes] = [(); 2].map(|()| Arc::new(Kick::idle()));
        for kick in [&sleeps, &computes, &sleeps] {
            kick.enter(1, u64::MAX);
            ticker.entered(kick);
        }
        assert_eq!(listed(), 2, "each once");
        let _ = sleeps.leave(false);
        for now in 0..u64::from(IDLE_TICKS) - 1 {
            tick(now);
        }
        assert_eq!(listed(), 2, "it may come back");
        tick(u64::from(IDLE_TICKS));
        assert_eq!(listed(), 1, "it sleeps");
        sleeps.enter(1, u64::MAX);
        ticker.entered(&sleeps);
        assert_eq!(listed(), 2);
        drop((sleeps, computes));
        tick(0);
        assert_eq!(listed(), 0, "they are gone");
    }
}
