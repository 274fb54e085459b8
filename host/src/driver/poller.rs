//! The poller: a thread that polls the rings while guests run (submission queue polling).
//!
//! The thread has a Tokio runtime of its own, so that it works beside any runtime of the embedder's; all
//! sockets and timers of its exitless sandboxes live in its reactor. Each sandbox has one task there
//! ([`poll`]). [`pollers`](super::pollers) says how many threads there are.
//!
//! While there is activity, the task polls the submission ring and says so in
//! [`Word::DriverPolls`](wakebox_abi::memory::Word::DriverPolls): a turn of the guest costs
//! no exit. After a quiet time it arms the doorbell and sleeps until an operation can go on
//! or somebody notifies it. The quiet time adapts: it doubles when looking has paid, and halves when it
//! has not.
//!
//! The task that runs the guest may call [`Driver::turn`] as well, after an exit, when that
//! is faster than waking the thread. It does so inside the thread's runtime context, so that
//! whatever it starts still lives in the thread's reactor.
//!
//! A mutex is not fair: who takes one turn after the other, as either does while there is work, has it
//! again before another that waits for it is awake, over and over, and whatever else runs on the thread
//! that waits would wait as well. So the poller never waits for a driver: it sees to its other tasks while
//! somebody has it. And whoever else wants it claims it first ([`Poller::claim`]): the poller keeps from
//! it until that has been.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use wakebox_abi::wake::Mode;
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::signal::VcpuKick;

use super::backend::Backend;
use super::inflight::Ready;
use super::notify::Notify;
use super::pollers::{Place, Pollers};
use super::rest::{Rest, Watching};
use super::{Driver, Ended, Turn, Violation};
use crate::calls::help::{Errand, Help};
use crate::embedded::Home;
use crate::error::Result;
use crate::outside::Locked;

/// Looks at the ring between two visits to the reactor.
const LOOKS_A_VISIT: u32 = 128;

/// Least quiet time after a notification: whoever notifies has just paid for an exit, and until this thread is
/// awake will perhaps have paid for another one. Longer than both together, else the two would miss
/// each other again and again.
const NOTIFIED: Duration = Duration::from_micros(150);

/// How long tasks of the embedder's may wait to begin while the guest that has called them is on a
/// thread of their runtime. A thread that sleeps needs about a tenth to take one.
const WAITS: Duration = Duration::from_micros(300);

/// Bounds of the quiet time, by mode.
fn patience(mode: Mode) -> (Duration, Duration) {
    match mode {
        Mode::Poll => (Duration::from_micros(200), Duration::from_millis(2)),
        _ => (Duration::from_micros(5), Duration::from_micros(200)),
    }
}

/// What the runner of a guest and the thread share about one sandbox.
#[derive(Debug)]
pub(crate) struct Poller<B: Backend> {
    driver: Mutex<Driver<B>>,
    /// Threads that wait for the driver and are to have it next.
    claims: AtomicU32,
    /// Where on the thread's runtime.
    place: Place,
    ready: Arc<Ready>,
    mode: Mode,
    /// Whether the guest has several processors.
    has_several: bool,
    /// Where the embedder's tasks are.
    home: Home,
    /// Each makes one of the guest's processors leave.
    kicks: Vec<Arc<VcpuKick>>,
    /// Makes the thread's task look.
    notified: Notify,
    /// Whether the task that runs the guest waits for a completion, whatever the guest says of its sleep.
    parked: AtomicBool,
    /// In mode `auto`, whether the rings are left alone for a while.
    rest: Rest,
    stop: AtomicBool,
    /// Its task, until somebody waits for it.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<B: Backend> Poller<B> {
    /// Polls a driver on a thread, which is started if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Pollers::of_process`] and [`Pollers::place`].
    pub(crate) fn new(
        driver: Driver<B>,
        mode: Mode,
        home: Home,
        kicks: Vec<Arc<VcpuKick>>,
    ) -> Result<Arc<Self>> {
        let poller = Arc::new(Self {
            place: Pollers::of_process()?.place()?,
            has_several: driver.has_several(),
            ready: driver.ready().clone(),
            driver: Mutex::new(driver),
            claims: AtomicU32::new(0),
            mode,
            home,
            kicks,
            notified: Notify::new(),
            parked: AtomicBool::new(false),
            rest: Rest::default(),
            stop: AtomicBool::new(false),
            task: Mutex::default(),
        });
        let task = poller.place.runtime.spawn(poll(poller.clone()));
        *poller.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(poller)
    }

    /// The driver, for another thread than the poller's, which lets it go first.
    fn claim(&self) -> Holds<'_, B> {
        // A hint, which orders nothing: the mutex does.
        self.claims.fetch_add(1, Ordering::Relaxed);
        let locked = Locked::new();
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        self.claims.fetch_sub(1, Ordering::Relaxed);
        Holds {
            driver,
            _locked: locked,
        }
    }

    /// The driver, unless another thread has it or has claimed it.
    fn try_driver(&self) -> Option<Holds<'_, B>> {
        if self.claims.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let locked = Locked::new();
        let driver = match self.driver.try_lock() {
            Ok(driver) => driver,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Holds {
            driver,
            _locked: locked,
        })
    }

    /// Runs `act` on the driver from another thread than its own.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Driver<B>) -> T) -> T {
        let _context = self.place.runtime.enter();
        act(&mut self.claim())
    }

    /// Says whether the task that runs the guest waits for a completion.
    ///
    /// To be said before that task takes its own turn: the driver's lock orders it before every
    /// later turn, and what an earlier turn has completed is seen in its own.
    ///
    /// The task that runs a guest which has slept for a while takes the turns itself: it is woken for what
    /// is ready at once, and not by the thread, which would go on polling for nothing.
    pub(crate) fn set_parked(&self, parked: bool) {
        if self.has_several {
            // Each is woken by what is completed for it.
            return;
        }
        self.parked.store(parked, Ordering::Relaxed);
        // While it rests, the thread wakes the runner once for all that the reactor has at once.
        if self.mode == Mode::Auto && !(parked && self.rests()) {
            self.ready.set_parked(parked);
        }
    }

    /// Whether the rings are left alone for a while, and the task that runs the guest takes the turns.
    pub(crate) fn rests(&self) -> bool {
        self.mode == Mode::Auto && self.rest.is_on()
    }

    /// Whether the task that runs the guest is to be woken after a turn: for a completion, or because the
    /// guest needs a machine. A guest that sleeps and says that it is awake is woken as any other.
    fn must_wake(&self, driver: &Driver<B>, turn: Turn) -> bool {
        let sleeps = || self.parked.load(Ordering::Relaxed) || driver.must_wake();
        turn.completed > 0 && sleeps() || driver.wants_machine()
    }

    /// Wakes whoever runs the guest.
    fn wake_runner(&self) {
        self.ready.wake_runner();
    }

    /// The queue of operations that can go on.
    pub(crate) fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Makes the thread look.
    pub(crate) fn notify(&self) {
        self.notified.notify();
    }

    /// Ends the thread's task; the driver goes when the last user of the poller does.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.notify();
    }

    /// The thread's task, which ends after [`Self::stop`]; given once.
    pub(crate) fn task(&self) -> Option<JoinHandle<()>> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.take()
    }

    /// One turn by the thread's task; none while another thread has the driver.
    fn try_turn(
        &self,
        register: Option<&std::task::Context<'_>>,
    ) -> Result<Option<Turn>, Violation> {
        let Some((turn, must_wake)) = self.turn_and_look(register)? else {
            return Ok(None);
        };
        if must_wake {
            self.wake_runner();
        }
        Ok(Some(turn))
    }

    /// The same, and whether the task that runs the guest is to be woken.
    fn turn_and_look(
        &self,
        register: Option<&std::task::Context<'_>>,
    ) -> Result<Option<(Turn, bool)>, Violation> {
        let Some(mut driver) = self.try_driver() else {
            return Ok(None);
        };
        let turn = driver.turn(register)?;
        Ok(Some((turn, self.must_wake(&driver, turn))))
    }
}

impl<B: Backend> Help for Poller<B> {
    fn help(&self, limit: Duration, errand: &mut dyn Errand) {
        let _context = self.place.runtime.enter();
        let _helper = self.ready.hold();
        errand.begin();
        self.claim().polls();
        let started = Instant::now();
        while !errand.is_done() && started.elapsed() < limit {
            match self.turn_and_look(None) {
                Ok(Some((_, true))) => {
                    // The guest sleeps: another thread has to run it.
                    self.wake_runner();
                    break;
                }
                Ok(Some((turn, _))) if turn.ended == Ended::Stopped => break,
                Ok(_) => std::hint::spin_loop(),
                Err(_) => {
                    // The driver remembers it, and says it again to who runs the guest.
                    self.wake_runner();
                    break;
                }
            }
        }
        let must_look = {
            let driver = self.claim();
            !driver.may_sleep() || driver.is_unfinished()
        };
        if must_look {
            self.notify();
        }
    }
}

/// What a watchdog wants to know. It does not wait for the driver.
impl<B: Backend> std::fmt::Display for Poller<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "runner parked {}, stopped {}, {}; ",
            self.parked.load(Ordering::Relaxed),
            self.stop.load(Ordering::Relaxed),
            self.notified,
        )?;
        match self.driver.try_lock() {
            Ok(driver) => write!(
                f,
                "driver free: taken {}, published {}, {} in flight, submissions {}, ready {}",
                driver.taken(),
                driver.published(),
                driver.in_flight(),
                driver.has_submissions(),
                driver.has_ready(),
            ),
            Err(_) => f.write_str("driver in use"),
        }
    }
}

/// The driver, held by this thread.
struct Holds<'a, B: Backend> {
    // Dropped in this order: what was put off meanwhile comes after the lock was let go.
    driver: MutexGuard<'a, Driver<B>>,
    _locked: Locked,
}

impl<B: Backend> Deref for Holds<'_, B> {
    type Target = Driver<B>;

    fn deref(&self) -> &Driver<B> {
        &self.driver
    }
}

impl<B: Backend> DerefMut for Holds<'_, B> {
    fn deref_mut(&mut self) -> &mut Driver<B> {
        &mut self.driver
    }
}

/// Makes a guest's processors leave while tasks of the embedder's wait to begin: at once if one of them is on
/// the only thread of their runtime, else if no other thread has taken them for a while.
#[derive(Debug, Default)]
struct Impatience {
    since: Option<Instant>,
}

impl Impatience {
    fn look<B: Backend>(&mut self, poller: &Poller<B>) {
        let inside = poller.kicks.iter().filter(|kick| kick.is_in_guest());
        if !poller.home.has_waiting() || inside.clone().next().is_none() {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if poller.home.is_narrow() || since.elapsed() > WAITS {
            inside.for_each(|kick| kick.kick(Reasons::QUANTUM));
            self.since = None;
        }
    }
}

/// The task of one sandbox on the thread.
async fn poll<B: Backend>(poller: Arc<Poller<B>>) {
    if poll_until_stopped(&poller).await.is_err() {
        // The driver remembers it, and says it again to who runs the guest.
        poller.wake_runner();
    }
}

async fn poll_until_stopped<B: Backend>(poller: &Poller<B>) -> Result<(), Violation> {
    let (least, most) = patience(poller.mode);
    let mut patience = least;
    let mut notified = false;
    // The other mode never rests, and need not ask the scheduler.
    let mut watching = (poller.mode == Mode::Auto).then(Watching::new);
    while !poller.stop.load(Ordering::Acquire) {
        // Look for as long as it pays; while it rests, as long as there is something.
        let rests = poller.rests();
        let look = |driver: Holds<'_, B>| {
            if !rests {
                driver.polls();
            }
        };
        if poller.try_driver().map(look).is_none() {
            give_way().await;
            continue;
        }
        let quiet = match (rests, notified) {
            (true, _) => Duration::ZERO,
            (false, true) => patience.max(NOTIFIED),
            (false, false) => patience,
        };
        let mut watching = watching.as_mut().filter(|_| !rests);
        if let Some(watching) = &mut watching {
            watching.begins();
        }
        let Some(paid) = look_until_quiet(poller, quiet).await? else {
            // Who runs the guest was woken to end it.
            return Ok(());
        };
        if let Some(watching) = watching {
            watching.ends(&poller.rest);
        }
        patience = if paid {
            (patience * 2).min(most)
        } else {
            (patience / 2).max(least)
        };

        // Arm the doorbell, look once more, sleep.
        let Some(may_sleep) = poller.try_driver().map(|driver| driver.may_sleep()) else {
            give_way().await;
            continue;
        };
        if !may_sleep {
            continue;
        }
        notified = sleep(poller).await?;
    }
    Ok(())
}

/// Takes turns until there was nothing to do for so long. Returns whether there was anything; `None` if the sandbox is to
/// end.
async fn look_until_quiet<B: Backend>(
    poller: &Poller<B>,
    quiet: Duration,
) -> Result<Option<bool>, Violation> {
    let mut active_at = Instant::now();
    let mut paid = false;
    let mut impatience = Impatience::default();
    loop {
        let Some(turn) = poller.try_turn(None)? else {
            if poller.stop.load(Ordering::Acquire) {
                return Ok(Some(paid));
            }
            give_way().await;
            continue;
        };
        if turn.ended == Ended::Stopped {
            return Ok(None);
        }
        if turn.is_active() {
            active_at = Instant::now();
            paid = true;
        } else if active_at.elapsed() > quiet || poller.stop.load(Ordering::Acquire) {
            return Ok(Some(paid));
        }
        impatience.look(poller);
        watch(poller);
        // Lets the reactor and the other sandboxes on this thread have their turn.
        tokio::task::yield_now().await;
    }
}

/// Waits until somebody notifies the task, or an operation can go on or has. Returns whether it was
/// notified.
async fn sleep<B: Backend>(poller: &Poller<B>) -> Result<bool, Violation> {
    std::future::poll_fn(|context| {
        if poller.notified.taken_else_wake(context) || poller.stop.load(Ordering::Acquire) {
            return Poll::Ready(Ok(true));
        }
        if poller.rests() && !poller.has_several {
            // The task that runs the guest takes the turns: it is woken once for all that the reactor had at once, if the
            // guest is parked, and else looks when the guest has left. Registered, then looked.
            poller.ready.register(context.waker());
            if poller.ready.is_some() && poller.parked.load(Ordering::Relaxed) {
                poller.wake_runner();
            }
            return Poll::Pending;
        }
        match poller.try_turn(Some(context)) {
            // An operation went on, or will: its guest will want more.
            Ok(Some(turn)) if turn.is_active() => Poll::Ready(Ok(false)),
            // One that is to end is left alone; who runs it notifies at the end.
            Ok(Some(_)) => Poll::Pending,
            // Who has the driver may have left something.
            Ok(None) => Poll::Ready(Ok(false)),
            Err(violation) => Poll::Ready(Err(violation)),
        }
    })
    .await
}

/// Another thread has the driver, or is about to: the others on this thread have their turn, and that
/// one the processor, if it waits for the one that this thread is on.
async fn give_way() {
    std::thread::yield_now();
    tokio::task::yield_now().await;
}

/// Watches the ring for a moment, before the reactor has its turn.
fn watch<B: Backend>(poller: &Poller<B>) {
    for _ in 0..LOOKS_A_VISIT {
        match poller.try_driver() {
            Some(driver) if !driver.wants_turn() => {}
            _ => return,
        }
        std::hint::spin_loop();
    }
}
