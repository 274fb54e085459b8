//! The poller: a thread that polls the rings while guests run (submission queue polling).
//!
//! The thread has a Tokio runtime of its own, so that it works beside any runtime of the embedder's. Each
//! sandbox has one task there ([`poll`]). [`pollers`](super::pollers) says how many threads there are.
//!
//! While there is activity, the task polls the submission ring and says so in
//! [`Word::DriverPolls`](wakebox_abi::memory::Word::DriverPolls): a turn of the guest costs no exit. After a quiet
//! time it arms the doorbell. The quiet time doubles when looking has paid, and halves when it has not. Then:
//!
//! - Where it *stays* (mode `poll`, and guests of several processors), it sleeps until an operation can go on or somebody
//!   notifies it. Sockets and timers of these sandboxes live in the thread's reactor: it goes on with them while
//!   guests run. The task that runs the guest may call [`Driver::turn`] as well, after an exit, when that
//!   is faster than waking the thread, and does so inside the thread's runtime context.
//! - Where it *comes and goes* (mode `auto`), it leaves, and the task that runs the guest is alone, as in mode `out`, until
//!   its exits are so dense that it [calls](Poller::call_if_dense) the thread ([`worth`](super::worth)). While it is away,
//!   sockets and timers that are waited for live in the embedder's reactor: what is ready is one thread's matter. When an
//!   operation begins to wait while it is here, the socket comes to its reactor (`ops/wait.rs`), since nobody looks at the
//!   other while the guest watches.
//!
//! A mutex is not fair: who takes one turn after the other, as either does while there is work, has it again before
//! another that waits for it is awake, over and over, and whatever else runs on the thread that waits would wait as
//! well. So the poller never waits for a driver: it sees to its other tasks while somebody has it. And whoever else
//! wants it claims it first ([`Poller::claim`]): the poller keeps from it until that has been.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use wakebox_abi::wake::Mode;
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::signal::VcpuKick;

use super::backend::Backend;
use super::inflight::Ready;
use super::notify::Notify;
use super::patience::{Courtesy, Patience};
use super::pollers::{Place, Pollers};
use super::worth::{Exits, Pace, Rest, Stay};
use super::{Driver, Ended, Turn, Violation};
use crate::calls::help::{Errand, Help};
use crate::embedded::Home;
use crate::error::Result;
use crate::outside::Locked;

/// Least quiet time after a notification: whoever notifies has just paid for an exit, and until this thread is
/// awake will perhaps have paid for another one. Longer than both together, else the two would miss
/// each other again and again.
const NOTIFIED: Duration = Duration::from_micros(150);

/// Quiet time of one that comes and goes: longer than a guest watches beside it, so that whoever both wait for has a processor
/// once at least, where there are two.
const AWAITED: Duration = Duration::from_micros(400);

/// How long tasks of the embedder's may wait to begin while the guest that has called them is on a
/// thread of their runtime. A thread that sleeps needs about a tenth to take one.
const WAITS: Duration = Duration::from_micros(300);

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
    /// Whether the thread takes turns. Changed by it under the driver's lock.
    is_beside: AtomicBool,
    /// What was done without it when it was called.
    without: Mutex<Option<Pace>>,
    /// Whether it is not called for a while.
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
            is_beside: AtomicBool::new(false),
            without: Mutex::default(),
            rest: Rest::default(),
            stop: AtomicBool::new(false),
            task: Mutex::default(),
        });
        poller
            .is_beside
            .store(!poller.comes_and_goes(), Ordering::Relaxed);
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

    /// Where operations of a turn wait for sockets and timers: in the reactor that somebody looks at meanwhile. Under the
    /// driver's lock it stays so.
    fn reactor(&self) -> &Handle {
        let home = self.is_away().then(|| self.home.runtime());
        home.flatten().unwrap_or(&self.place.runtime)
    }

    /// Whether the thread is called when it pays, and else away.
    pub(crate) fn comes_and_goes(&self) -> bool {
        // Of several processors, each is woken by what is completed for it, whoever completes it.
        self.mode == Mode::Auto && !self.has_several
    }

    /// Whether the task that runs the guest takes all turns. Under the driver's lock it stays so.
    pub(crate) fn is_away(&self) -> bool {
        !self.is_beside.load(Ordering::Relaxed)
    }

    /// Runs `act` on the driver from another thread than its own.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Driver<B>) -> T) -> T {
        let mut driver = self.claim();
        let _context = self.reactor().enter();
        act(&mut driver)
    }

    /// The guest was left while the thread is away, which would have saved it that or not: calls it if exits are dense that
    /// it would save, unless it has come in vain lately.
    pub(crate) fn call_if_dense(&self, exits: &mut Exits, saved: bool) {
        if self.rest.is_on() {
            exits.forget();
        } else if let Some(pace) = exits.left(Instant::now(), saved) {
            *self.without.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace);
            exits.forget();
            self.notify();
        }
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
        if self.mode == Mode::Auto && !(parked && self.is_away()) {
            self.ready.set_parked(parked);
        }
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

    /// Makes the thread look, which comes if it was away.
    pub(crate) fn notify(&self) {
        self.notified.notify();
    }

    /// The same, if it would take the turn for which there is a reason now.
    pub(crate) fn notify_beside(&self) {
        if !self.is_away() {
            self.notify();
        }
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

    /// The thread is away from now on, unless there is something to do after a turn. Under the driver's lock.
    fn leaves(&self, driver: &mut Driver<B>) -> Result<bool, Violation> {
        // A guest that is busy has mostly submitted something, and right after a turn mostly not yet.
        let turn = driver.turn(None)?;
        let leaves = driver.may_sleep() && !driver.is_unfinished();
        if leaves {
            self.is_beside.store(false, Ordering::Relaxed);
            // Who has asked for a turn by now has had this one.
            self.notified.taken();
        } else {
            driver.polls();
        }
        // Whatever is ready from now on is for who runs the guest.
        if self.must_wake(driver, turn) || leaves && self.parked.load(Ordering::Relaxed) {
            self.wake_runner();
        }
        Ok(leaves)
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
        let _context = self.comes_and_goes().then(|| self.reactor().enter());
        let turn = driver.turn(register)?;
        Ok(Some((turn, self.must_wake(&driver, turn))))
    }
}

impl<B: Backend> Help for Poller<B> {
    fn help(&self, limit: Duration, errand: &mut dyn Errand) {
        let _context = self.reactor().enter();
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
            "runner parked {}, thread away {}, stopped {}, {}; ",
            self.parked.load(Ordering::Relaxed),
            self.is_away(),
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
    let polled = match poller.comes_and_goes() {
        true => come_and_go(&poller).await,
        false => stay(&poller).await,
    };
    if polled.is_err() {
        // The driver remembers it, and says it again to who runs the guest.
        poller.wake_runner();
    }
}

/// What ended a time of looking.
enum Looked {
    /// There was nothing for a while. Whether there was something before.
    Quiet { paid: bool },
    /// Somebody says that it does not pay.
    Enough,
    /// The sandbox is to end, and who runs the guest was woken for it.
    Stopped,
}

/// Looks until it is quiet, sleeps until an operation can go on, and so on.
async fn stay<B: Backend>(poller: &Poller<B>) -> Result<(), Violation> {
    let mut patience = Patience::of(poller.mode);
    let mut notified = false;
    while !poller.stop.load(Ordering::Acquire) {
        with_driver(poller, |driver| driver.polls()).await;
        let quiet = match notified {
            true => patience.now.max(NOTIFIED),
            false => patience.now,
        };
        match look_until_quiet(poller, quiet, |_| false).await? {
            Looked::Stopped => return Ok(()),
            Looked::Quiet { paid } => patience.adapt(paid),
            Looked::Enough => {}
        }
        // Arm the doorbell, look once more, sleep.
        if with_driver(poller, |driver| driver.may_sleep()).await {
            notified = sleep(poller).await?;
        }
    }
    Ok(())
}

/// Comes when it is called, and leaves when there is nothing to do or it does not pay.
async fn come_and_go<B: Backend>(poller: &Poller<B>) -> Result<(), Violation> {
    let mut stay = Stay::new();
    loop {
        let stops = || poller.stop.load(Ordering::Acquire);
        std::future::poll_fn(|context| {
            // Whoever stops it notifies after that, and the thread may have taken the notification as it left.
            match poller.notified.taken_else_wake(context) || stops() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        if stops() {
            return Ok(());
        }
        let without = poller.without.lock();
        let without = without.unwrap_or_else(PoisonError::into_inner).take();
        let came = with_driver(poller, |driver| {
            poller.is_beside.store(true, Ordering::Relaxed);
            driver.polls();
            driver.taken()
        })
        .await;
        stay.begins(without, came);
        loop {
            let did = |at| {
                let taken = || poller.try_driver().map(|driver| driver.taken());
                stay.is_over(at, taken, &poller.rest)
            };
            match look_until_quiet(poller, AWAITED, did).await? {
                Looked::Stopped => return Ok(()),
                Looked::Enough => {}
                Looked::Quiet { .. } => {
                    let taken = with_driver(poller, |driver| driver.taken()).await;
                    stay.ends(taken, &poller.rest);
                }
            }
            if with_driver(poller, |driver| poller.leaves(driver)).await? {
                break;
            }
        }
    }
}

/// Acts on the driver when no other thread has it, in whose favour the others on this one have their turn meanwhile.
async fn with_driver<B: Backend, T>(
    poller: &Poller<B>,
    mut act: impl FnMut(&mut Driver<B>) -> T,
) -> T {
    loop {
        if let Some(mut driver) = poller.try_driver() {
            return act(&mut driver);
        }
        give_way().await;
    }
}

/// Takes turns until there was nothing to do for so long, or `is_enough` says so after one in which something was done.
async fn look_until_quiet<B: Backend>(
    poller: &Poller<B>,
    quiet: Duration,
    mut is_enough: impl FnMut(Instant) -> bool,
) -> Result<Looked, Violation> {
    let mut active_at = Instant::now();
    let mut paid = false;
    let mut impatience = Impatience::default();
    let mut courtesy = Courtesy::default();
    let looks = poller.place.looks();
    loop {
        let Some(turn) = poller.try_turn(None)? else {
            if poller.stop.load(Ordering::Acquire) {
                return Ok(Looked::Quiet { paid });
            }
            give_way().await;
            continue;
        };
        if turn.ended == Ended::Stopped {
            return Ok(Looked::Stopped);
        }
        if turn.is_active() {
            active_at = Instant::now();
            paid = true;
            if is_enough(active_at) {
                return Ok(Looked::Enough);
            }
        } else if active_at.elapsed() > quiet || poller.stop.load(Ordering::Acquire) {
            return Ok(Looked::Quiet { paid });
        }
        impatience.look(poller);
        if !watch(poller, looks.a_visit()) {
            courtesy.yield_now();
        }
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

/// Watches the ring for a moment of so many looks, before the reactor has its turn. Returns whether there is something to do.
fn watch<B: Backend>(poller: &Poller<B>, looks: u32) -> bool {
    for _ in 0..looks {
        match poller.try_driver() {
            Some(driver) if !driver.wants_turn() => {}
            _ => return true,
        }
        std::hint::spin_loop();
    }
    false
}
