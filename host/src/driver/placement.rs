//! Who takes the driver's turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use wakebox_abi::wake::Mode;

use super::backend::Backend;
use super::herd::Herd;
use super::inflight::Ready;
use super::poller::Poller;
use super::worth::Exits;
use super::{Driver, Ended, Turn, Violation};
use crate::outside::Locked;

/// Two exits closer than this make it likely that a poller would pay.
const DENSE: Duration = Duration::from_micros(200);
/// A turn longer than this would outlast the watch of a guest in mode `auto`, whoever took it.
const LONG: Duration = Duration::from_micros(50);

/// Who takes the driver's turns.
#[derive(Debug)]
pub(crate) enum Placement<B: Backend> {
    /// The task that runs the guest, between two entries.
    Inline(Box<Driver<B>>),
    /// The tasks that run the guest's processors, whichever has been left.
    Shared(Arc<Common<B>>),
    /// A thread that polls while the guest runs, and the tasks that run the guest beside it.
    Poller(Arc<Poller<B>>, Exits),
}

/// A driver that several tasks take turns of.
#[derive(Debug)]
pub(crate) struct Common<B: Backend> {
    driver: Mutex<Driver<B>>,
    ready: Arc<Ready>,
}

impl<B: Backend> Common<B> {
    /// That of these tasks.
    pub(crate) fn new(driver: Driver<B>) -> Arc<Self> {
        let ready = driver.ready().clone();
        let driver = Mutex::new(driver);
        Arc::new(Self { driver, ready })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Driver<B>) -> T) -> T {
        // What is put off meanwhile comes after the lock was let go.
        let _locked = Locked::new();
        let mut driver: MutexGuard<'_, _> =
            self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut driver)
    }
}

/// Where a driver stands after a turn of the task that has parked its guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) ended: Ended,
    /// Whether something is there that the processor had not seen when it announced its sleep.
    pub(crate) has_news: bool,
    /// Whether nothing ever will be.
    pub(crate) is_stuck: bool,
}

impl<B: Backend> Placement<B> {
    /// The poller, if there is one.
    pub(crate) fn poller(&self) -> Option<&Arc<Poller<B>>> {
        match self {
            Self::Inline(_) | Self::Shared(_) => None,
            Self::Poller(poller, _) => Some(poller),
        }
    }

    /// The queue of operations that can go on.
    pub(crate) fn ready(&self) -> &Arc<Ready> {
        match self {
            Self::Inline(driver) => driver.ready(),
            Self::Shared(common) => &common.ready,
            Self::Poller(poller, _) => poller.ready(),
        }
    }

    /// The same for the task of another processor; `None` if there is but one.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Inline(_) => None,
            Self::Shared(common) => Some(Self::Shared(common.clone())),
            Self::Poller(poller, _) => Some(Self::Poller(poller.clone(), Exits::default())),
        }
    }

    /// Acts on the driver.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Driver<B>) -> T) -> T {
        match self {
            Self::Inline(driver) => act(driver),
            Self::Shared(common) => common.with(act),
            Self::Poller(poller, _) => poller.with(act),
        }
    }

    /// A turn of the task that runs the guest, which goes on and is not woken.
    ///
    /// # Errors
    ///
    /// As [`Driver::turn`].
    pub(crate) fn turn(&mut self) -> Result<Turn, Violation> {
        match self {
            Self::Inline(driver) => driver.turn(None),
            Self::Shared(common) => common.with(|driver| driver.turn(None)),
            Self::Poller(poller, _) => poller.with(|driver| driver.turn(None)),
        }
    }

    /// The same if nobody else would take it. The task is woken when an operation can go on.
    pub(crate) fn turn_if_inline(
        &mut self,
        context: &Context<'_>,
    ) -> Option<Result<Turn, Violation>> {
        match self {
            Self::Inline(driver) => Some(driver.turn(Some(context))),
            Self::Shared(common) => Some(common.with(|driver| driver.turn(Some(context)))),
            Self::Poller(poller, _) if poller.comes_and_goes() => {
                Some(poller.with(|driver| driver.turn(Some(context))))
            }
            Self::Poller(..) => None,
        }
    }

    /// A turn beside the poller, which sees to what is left. If the guest goes on at once, the
    /// poller is notified where that saves exits. `None` without a poller, or while it is away.
    pub(crate) fn turn_beside_poller(
        &self,
        mode: Mode,
        goes_on: bool,
    ) -> Option<Result<Turn, Violation>> {
        let poller = self.poller().filter(|poller| !poller.is_away())?;
        let began = Instant::now();
        let (turn, left) = poller.with(|driver| {
            let turn = driver.turn(None);
            let spent = turn.as_ref().is_ok_and(|turn| turn.ended == Ended::Spent);
            // A turn that goes on with another's work does not take what was submitted beyond that.
            (turn, spent || driver.has_submissions())
        });
        // After a long turn the next is likely to be long, too. The guest would leave before a
        // poller has done it: no exit is saved, and the thread has to be woken. What a turn has left
        // wants another.
        let pays = goes_on && (mode == Mode::Poll || began.elapsed() < LONG);
        if turn.is_ok() && (pays || left) {
            poller.notify();
        }
        Some(turn)
    }

    /// The guest was left, and goes on now that the task that runs it has begun so many operations alone. Where that was all
    /// that it was left for, a poller would have saved the exit, and is called if that pays. `is_put_off` says whether some of
    /// them are done, and the guest is not told yet: it may park for something else now.
    pub(crate) fn served_alone(&mut self, operations: u32, was_all: bool, is_put_off: bool) {
        if let Self::Poller(poller, exits) = self
            && poller.is_away()
        {
            exits.began(operations, is_put_off);
            if was_all {
                poller.call_if_dense(exits, true);
            }
        }
    }

    /// The task that runs the guest waits for a completion from now on.
    pub(crate) fn parked(&self) {
        if let Self::Poller(poller, _) = self {
            poller.set_parked(true);
        }
    }

    /// It waits no longer. It has waited for so long since the guest left, or not at all (`pended`),
    /// because what the guest waits for was done on the spot: a poller would have saved it the exit, if
    /// that was short. It would have, too, if the guest has left something that was done on the spot and waits for something else.
    pub(crate) fn unparked(&mut self, waited: Option<Duration>, pended: bool) {
        let Self::Poller(poller, exits) = self else {
            return;
        };
        poller.set_parked(false);
        if poller.is_away() {
            let saved = exits.has_put_off() || !pended;
            poller.call_if_dense(exits, saved);
        } else if !pended && waited.is_some_and(|waited| waited < DENSE) {
            poller.notify();
        }
    }

    /// A turn of the task that has parked its guest, which is woken when there is more for it.
    ///
    /// # Errors
    ///
    /// As [`Driver::turn`].
    pub(crate) fn turn_parked(&mut self, context: &Context<'_>) -> Result<Standing, Violation> {
        let turn = |driver: &mut Driver<B>, register: Option<&Context<'_>>| {
            driver.turn(register).map(|turn| {
                let (has_news, is_stuck) = driver.look(0);
                Standing {
                    ended: turn.ended,
                    has_news,
                    is_stuck,
                }
            })
        };
        match self {
            Self::Inline(driver) => turn(driver, Some(context)),
            Self::Shared(_) => unreachable!("that of several processors is told which it is"),
            Self::Poller(poller, exits) => {
                poller.with(|driver| {
                    // Also while the poller is away: it may come, and so may a helper, who complete something for it.
                    driver.ready().register_runner(context.waker());
                    if poller.is_away() {
                        driver.ready().set_parked(false);
                        let before = driver.taken();
                        let standing = turn(driver, Some(context));
                        let begun = driver.taken().wrapping_sub(before);
                        exits.began(begun, begun > 0 && driver.deferred() > 0);
                        return standing;
                    }
                    // Under the lock: who publishes more, later, wakes.
                    let mut standing = turn(driver, None)?;
                    if standing.ended == Ended::Done && driver.wants_turn() {
                        // As `Driver::turn` does.
                        standing.ended = Ended::Spent;
                    }
                    Ok(standing)
                })
            }
        }
    }

    /// The same of one of several processors.
    ///
    /// # Errors
    ///
    /// As [`Driver::turn`].
    pub(crate) fn turn_parked_of(
        &mut self,
        herd: &Herd,
        processor: u32,
        context: &Context<'_>,
    ) -> Result<Standing, Violation> {
        self.with(|driver| {
            let mut ended = driver.turn(None)?.ended;
            // Registered, then looked.
            herd.register(processor, context.waker());
            if driver.is_silent() {
                // All processors sleep, and whoever has silenced it wakes those for whom there is something then.
                return Ok(Standing {
                    ended,
                    has_news: false,
                    is_stuck: false,
                });
            }
            if ended == Ended::Done && driver.wants_turn() {
                ended = Ended::Spent;
            }
            let (has_news, is_stuck) = match ended {
                Ended::Done => driver.look(processor),
                _ => (false, false),
            };
            Ok(Standing {
                ended,
                has_news,
                is_stuck,
            })
        })
    }

    /// Whether a guest without a machine needs one. If not, the task that runs it is woken when it does.
    pub(crate) fn wants_machine_else_wake(&mut self, context: &Context<'_>) -> bool {
        match self {
            Self::Inline(driver) => driver.ready().register(context.waker()),
            Self::Shared(common) => common.ready.register(context.waker()),
            // Woken for what is ready, or by the poller, which is.
            Self::Poller(poller, _) => {
                poller.ready().register_runner(context.waker());
                if poller.comes_and_goes() {
                    poller.ready().register(context.waker());
                }
            }
        }
        // Registered, then looked.
        self.with(|driver| driver.wants_machine())
    }

    /// The poller's task, to wait for its end once this is closed; given once.
    pub(crate) fn ends(&self) -> Option<JoinHandle<()>> {
        self.poller()?.task()
    }

    /// As [`Driver::close_some`].
    pub(crate) fn close_some(&mut self) -> bool {
        match self {
            Self::Inline(driver) => driver.close_some(),
            Self::Shared(common) => common.with(Driver::close_some),
            Self::Poller(poller, _) => poller.with(Driver::close_some),
        }
    }

    /// Drops every operation in flight and every open resource, and ends the poller's task.
    pub(crate) fn close(&mut self) {
        match self {
            Self::Inline(driver) => driver.close(),
            Self::Shared(common) => common.with(Driver::close),
            Self::Poller(poller, _) => {
                poller.with(Driver::close);
                poller.stop();
            }
        }
    }
}
