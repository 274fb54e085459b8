//! Loom's view of kicking, killing, parking and helping: every interleaving, and every reordering
//! that the memory model allows, of the very files that the host runs, compiled with loom's
//! primitives.
//!
//! Somebody who is not woken shows as a deadlock. For each fence there is a test that runs the
//! same model without it and expects loom to object, so that a model which sees nothing is noticed.
//! What is no fence but an order of two steps (register, then look) has a test that takes them the
//! other way round.
//!
//! The searches are exhaustive up to a number of preemptions, three unless `LOOM_MAX_PREEMPTIONS`
//! says otherwise (`cargo xtask loom` asks for more).

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the host uses more of these files than the models"
)]

#[path = "park_model/primitives.rs"]
mod primitives;
#[path = "../../abi/tests/wake_model/search.rs"]
mod search;

#[path = "../vmm/src/kick.rs"]
mod kick;
#[path = "../src/driver/member.rs"]
mod member;
#[path = "../src/driver/notify.rs"]
mod notify;
#[path = "../src/driver/ready.rs"]
mod ready;
#[path = "../src/stop.rs"]
mod stop;

use std::future::poll_fn;
use std::task::Poll;

use loom::thread;

use kick::{Kick, Processor, Reasons};
use member::Member;
use notify::Notify;
use primitives::{
    Arc, AtomicBool, AtomicWaker, Condvar, Mutex, Ordering, block_on, without_fences,
};
use ready::Ready;
use search::{LOST_WAKE_UP, explore};
use stop::{Stop, Why};

/// Runs a broken model and expects an execution in which somebody is not woken.
fn refuses(model: impl Fn() + Sync + Send + 'static) {
    search::refuses(LOST_WAKE_UP, model);
}

/// Who leaves its fences out.
#[derive(Clone, Copy, Default)]
struct Without {
    runner: bool,
    other: bool,
}

const NONE: Without = Without {
    runner: false,
    other: false,
};
const NO_RUNNERS: Without = Without {
    runner: true,
    ..NONE
};
const NO_OTHERS: Without = Without {
    other: true,
    ..NONE
};

/// A processor whose guest computes for ever: `KVM_RUN` returns for `immediate_exit`, which it reads
/// on its way in, or for a signal, which stays pending until it is noticed.
#[derive(Debug)]
struct Machine {
    immediate_exit: AtomicBool,
    signal: Mutex<bool>,
    signalled: Condvar,
}

#[derive(Clone, Debug)]
struct Cpu(Arc<Machine>);

impl Cpu {
    fn new() -> Self {
        Self(Arc::new(Machine {
            immediate_exit: AtomicBool::new(false),
            signal: Mutex::new(false),
            signalled: Condvar::new(),
        }))
    }

    fn run(&self) {
        if self.0.immediate_exit.load(Ordering::Relaxed) {
            return;
        }
        let mut signal = self.0.signal.lock().unwrap();
        while !*signal {
            signal = self.0.signalled.wait(signal).unwrap();
        }
        *signal = false;
    }
}

impl Processor for Cpu {
    fn set_immediate_exit(&self, on: bool) {
        self.0.immediate_exit.store(on, Ordering::Relaxed);
    }

    fn signal(&self, _: i32) -> bool {
        *self.0.signal.lock().unwrap() = true;
        self.0.signalled.notify_one();
        true
    }
}

/// A kick and what it kicks.
fn kicked() -> (Cpu, Arc<Kick<Cpu>>) {
    let cpu = Cpu::new();
    (cpu.clone(), Arc::new(Kick::new(cpu)))
}

/// Enters a guest that computes until it is kicked for this reason.
fn computes_until(cpu: &Cpu, kick: &Kick<Cpu>, why: Reasons) {
    loop {
        kick.enter(1, 0);
        cpu.run();
        if kick.leave(true).has(why) {
            return;
        }
    }
}

fn a_kick(without: Without) {
    let (cpu, kick) = kicked();
    let kicker = thread::spawn({
        let kick = kick.clone();
        move || {
            without_fences(without.other);
            kick.kick(Reasons::STOP);
        }
    });
    without_fences(without.runner);
    // The guest has left once by itself before.
    kick.enter(1, 0);
    let early = kick.leave(false).has(Reasons::STOP);
    if !early {
        computes_until(&cpu, &kick, Reasons::STOP);
    }
    kicker.join().unwrap();
}

#[test]
fn a_kick_reaches_a_guest_that_enters_or_computes() {
    explore(|| a_kick(NONE));
}

#[test]
fn a_kick_is_lost_without_the_runners_fence() {
    refuses(|| a_kick(NO_RUNNERS));
}

#[test]
fn a_kick_is_lost_without_the_kickers_fence() {
    refuses(|| a_kick(NO_OTHERS));
}

#[test]
fn of_two_kicks_at_once_neither_reason_is_lost() {
    explore(|| {
        let (cpu, kick) = kicked();
        let ticker = thread::spawn({
            let kick = kick.clone();
            move || kick.kick(Reasons::QUANTUM)
        });
        let killer = thread::spawn({
            let kick = kick.clone();
            move || kick.kick(Reasons::STOP)
        });
        computes_until(&cpu, &kick, Reasons::STOP);
        ticker.join().unwrap();
        killer.join().unwrap();
    });
}

/// A guest is entered while the ticker takes it for one that sleeps: it is in the ticker's list once, and
/// kicked when it has had its time.
fn stay(without: Without) {
    let (cpu, kick) = kicked();
    let list = Arc::new((Mutex::new(1), Condvar::new()));
    assert!(kick.watch());
    let ticker = thread::spawn({
        let (kick, list) = (kick.clone(), list.clone());
        move || {
            without_fences(without.other);
            {
                let mut listed = list.0.lock().unwrap();
                if kick.unwatch() {
                    *listed -= 1;
                }
                while *listed == 0 {
                    listed = list.1.wait(listed).unwrap();
                }
                assert_eq!(*listed, 1);
            }
            // That of a kick is another matter.
            without_fences(false);
            kick.kick(Reasons::QUANTUM);
        }
    });
    without_fences(without.runner);
    kick.enter(1, 0);
    if kick.watch() {
        *list.0.lock().unwrap() += 1;
        list.1.notify_one();
    }
    cpu.run();
    if !kick.leave(true).has(Reasons::QUANTUM) {
        computes_until(&cpu, &kick, Reasons::QUANTUM);
    }
    ticker.join().unwrap();
}

#[test]
fn a_guest_that_is_entered_is_looked_at_by_the_ticker() {
    explore(|| stay(NONE));
}

#[test]
fn a_guest_stays_for_ever_without_the_runners_fence() {
    refuses(|| stay(NO_RUNNERS));
}

#[test]
fn a_guest_stays_for_ever_without_the_tickers_fence() {
    refuses(|| stay(NO_OTHERS));
}

#[test]
fn a_kick_that_comes_while_the_state_is_looked_at_is_not_lost() {
    explore(|| {
        let (cpu, kick) = kicked();
        let kicker = thread::spawn({
            let kick = kick.clone();
            move || kick.kick(Reasons::STOP)
        });
        kick.without_guest(|| cpu.run());
        computes_until(&cpu, &kick, Reasons::STOP);
        kicker.join().unwrap();
    });
}

#[test]
fn a_processor_that_is_gone_is_not_touched() {
    explore(|| {
        let (cpu, kick) = kicked();
        let killer = thread::spawn({
            let kick = kick.clone();
            move || kick.kick(Reasons::STOP)
        });
        kick.disarm();
        let before = cpu.0.immediate_exit.load(Ordering::Relaxed);
        killer.join().unwrap();
        let after = cpu.0.immediate_exit.load(Ordering::Relaxed);
        assert_eq!(before, after, "it was reached after it had gone");
    });
}

/// One of several processors computes, and something is completed for it that it is to be interrupted for.
fn an_interrupt(without: Without) {
    let (cpu, kick) = kicked();
    let member = Arc::new(Member::new(kick.clone(), true));
    let other = thread::spawn({
        let member = member.clone();
        move || {
            without_fences(without.other);
            member.has_some();
        }
    });
    loop {
        without_fences(without.runner);
        if member.enters() {
            break;
        }
        // That of a kick is another matter.
        without_fences(false);
        kick.enter(1, 0);
        cpu.run();
        kick.leave(true);
        member.left();
    }
    other.join().unwrap();
}

#[test]
fn one_of_several_processors_that_computes_is_interrupted() {
    explore(|| an_interrupt(NONE));
}

#[test]
fn an_interrupt_is_lost_without_the_processors_fence() {
    refuses(|| an_interrupt(NO_RUNNERS));
}

#[test]
fn an_interrupt_is_lost_without_the_other_sides_fence() {
    refuses(|| an_interrupt(NO_OTHERS));
}

/// One of several processors goes to sleep, and another leaves something for it.
fn a_sleep(registers_first: bool) {
    let (_, kick) = kicked();
    let member = Arc::new(Member::new(kick, false));
    let published = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let (member, published) = (member.clone(), published.clone());
        move || {
            published.store(true, Ordering::Relaxed);
            member.has_some();
        }
    });
    block_on(poll_fn(|context| {
        let mut has_news = !registers_first && published.load(Ordering::Relaxed);
        member.register(context.waker());
        has_news |= registers_first && published.load(Ordering::Relaxed);
        match has_news {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    other.join().unwrap();
}

#[test]
fn one_of_several_processors_that_goes_to_sleep_is_woken() {
    explore(|| a_sleep(true));
}

#[test]
fn one_that_looks_before_it_registers_sleeps_for_ever() {
    refuses(|| a_sleep(false));
}

/// What a run does when it is ended from elsewhere: it looks, computes, and is parked.
fn a_kill(without: Without, computes: bool) {
    let (cpu, kick) = kicked();
    let stop = Arc::new(Stop::new(kick.clone()));
    let killer = thread::spawn({
        let stop = stop.clone();
        move || {
            without_fences(without.other);
            stop.end(Why::Killed);
        }
    });
    without_fences(without.runner);
    let why = loop {
        if let Some(why) = stop.why() {
            break why;
        }
        kick.enter(1, 0);
        if computes {
            cpu.run();
            kick.leave(true);
        } else {
            kick.leave(false);
            break block_on(poll_fn(|context| match stop.why_else_wake(context) {
                Some(why) => Poll::Ready(why),
                None => Poll::Pending,
            }));
        }
    };
    assert_eq!(why, Why::Killed);
    killer.join().unwrap();
}

#[test]
fn a_kill_reaches_a_guest_that_computes() {
    explore(|| a_kill(NONE, true));
}

#[test]
fn a_kill_reaches_a_guest_that_is_parked() {
    explore(|| a_kill(NONE, false));
}

#[test]
fn a_kill_is_lost_without_the_runners_fence() {
    refuses(|| a_kill(NO_RUNNERS, true));
}

#[test]
fn a_kill_is_lost_without_the_killers_fence() {
    refuses(|| a_kill(NO_OTHERS, true));
}

#[test]
fn of_two_ends_a_kill_counts_and_no_limit_undoes_it() {
    explore(|| {
        let (_, kick) = kicked();
        let stop = Arc::new(Stop::new(kick));
        let other = thread::spawn({
            let stop = stop.clone();
            move || {
                stop.end(Why::Log);
                stop.why()
            }
        });
        stop.end(Why::Killed);
        assert_eq!(stop.why(), Some(Why::Killed));
        assert!(other.join().unwrap().is_some());
        assert_eq!(stop.why(), Some(Why::Killed));
    });
}

/// An operation is woken while a thread takes turns by itself for a moment (`takes` is given what to do
/// between it begins and leaves). Somebody takes the slot: that thread, or the driver's task, which is woken
/// for it.
fn meanwhile(without: Without, takes: impl FnOnce(&Ready<Cpu>, &mut dyn FnMut()) + Send + 'static) {
    let ready = Arc::new(Ready::<Cpu>::new(None));
    let notified = Arc::new(Notify::new());
    let operation = thread::spawn({
        let ready = ready.clone();
        move || {
            without_fences(without.other);
            ready.push(7);
        }
    });
    let other = thread::spawn({
        let (ready, notified) = (ready.clone(), notified.clone());
        move || {
            without_fences(without.runner);
            let mut taken = false;
            takes(&ready, &mut || taken = takes_any(&ready));
            if taken {
                // For this model's own end.
                notified.notify();
            }
        }
    });
    block_on(poll_fn(|context| {
        if notified.taken_else_wake(context) {
            return Poll::Ready(());
        }
        ready.register(context.waker());
        match takes_any(&ready) {
            false => Poll::Pending,
            true => Poll::Ready(()),
        }
    }));
    operation.join().unwrap();
    other.join().unwrap();
}

/// Takes what is ready. Returns whether there was something.
fn takes_any(ready: &Ready<Cpu>) -> bool {
    let mut batch = Vec::new();
    if ready.is_some() {
        ready.take(&mut batch);
    }
    !batch.is_empty()
}

/// A thread helps.
fn help(without: Without) {
    meanwhile(without, |ready, look| {
        let holds = ready.hold();
        look();
        drop(holds);
    });
}

#[test]
fn what_becomes_ready_while_somebody_helps_is_taken() {
    explore(|| help(NONE));
}

#[test]
fn what_becomes_ready_is_forgotten_without_the_helpers_fence() {
    refuses(|| help(NO_RUNNERS));
}

#[test]
fn what_becomes_ready_is_forgotten_without_the_wakers_fence() {
    refuses(|| help(NO_OTHERS));
}

/// A guest is parked, whose runner takes turns, and is woken for something else.
fn unpark(without: Without) {
    meanwhile(without, |ready, look| {
        ready.set_parked(true);
        ready.register_runner(std::task::Waker::noop());
        look();
        ready.set_parked(false);
    });
}

#[test]
fn what_becomes_ready_while_the_runner_wakes_up_is_taken() {
    explore(|| unpark(NONE));
}

#[test]
fn what_becomes_ready_is_forgotten_without_the_runners_fence() {
    refuses(|| unpark(NO_RUNNERS));
}

#[test]
fn what_becomes_ready_while_the_runner_wakes_up_is_forgotten_without_the_wakers_fence() {
    refuses(|| unpark(NO_OTHERS));
}

/// A guest is parked, and nobody but its runner is to be woken for what becomes ready, twice.
fn runner_alone(registers_first: bool) {
    let ready = Arc::new(Ready::<Cpu>::new(None));
    // Who does not see it yet wakes the driver's task, as if the guest were not parked.
    ready.set_parked(true);
    let operation = thread::spawn({
        let ready = ready.clone();
        move || {
            ready.push(7);
            ready.push(8);
        }
    });
    let mut taken = 0;
    block_on(poll_fn(|context| {
        if registers_first {
            ready.register_runner(context.waker());
        }
        let mut batch = Vec::new();
        if ready.is_some() {
            ready.take(&mut batch);
        }
        taken += batch.len();
        if !registers_first {
            ready.register_runner(context.waker());
        }
        match taken {
            2 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }));
    operation.join().unwrap();
}

#[test]
fn what_becomes_ready_wakes_the_runner_of_a_parked_guest() {
    explore(|| runner_alone(true));
}

#[test]
fn what_becomes_ready_is_missed_by_a_runner_that_looks_before_it_registers() {
    refuses(|| runner_alone(false));
}

/// A turn of a helper's ends early: what it took from the queue lies in the driver's batch, behind the
/// driver's lock. Nobody is woken for that once more, so the helper notifies the poller.
fn leave(notifies: bool) {
    let ready = Arc::new(Ready::<Cpu>::new(None));
    let notified = Arc::new(Notify::new());
    let batch = Arc::new(Mutex::new(Vec::new()));
    let operation = thread::spawn({
        let ready = ready.clone();
        move || ready.push(7)
    });
    let helper = thread::spawn({
        let (ready, notified, batch) = (ready.clone(), notified.clone(), batch.clone());
        move || {
            let holds = ready.hold();
            let unfinished = {
                let mut batch = batch.lock().unwrap();
                if batch.is_empty() && ready.is_some() {
                    ready.take(&mut batch);
                }
                !batch.is_empty()
            };
            drop(holds);
            if unfinished && notifies {
                notified.notify();
            }
        }
    });
    block_on(poll_fn(|context| {
        notified.taken_else_wake(context);
        ready.register(context.waker());
        let mut batch = batch.lock().unwrap();
        if batch.is_empty() && ready.is_some() {
            ready.take(&mut batch);
        }
        match batch.pop() {
            None => Poll::Pending,
            Some(_) => Poll::Ready(()),
        }
    }));
    operation.join().unwrap();
    helper.join().unwrap();
}

#[test]
fn what_a_turn_that_ends_early_leaves_is_taken() {
    explore(|| leave(true));
}

#[test]
fn what_a_turn_that_ends_early_leaves_is_forgotten_by_who_does_not_notify() {
    refuses(|| leave(false));
}

/// A guest is parked while the driver's thread completes what it waits for: the thread publishes
/// under the driver's lock and wakes the runner; the runner registers and looks under the lock.
fn park(registers_first: bool) {
    let published = Arc::new(Mutex::new(0));
    let runner = Arc::new(AtomicWaker::new());
    let driver = thread::spawn({
        let (published, runner) = (published.clone(), runner.clone());
        move || {
            *published.lock().unwrap() += 1;
            runner.wake();
        }
    });
    block_on(poll_fn(|context| {
        if registers_first {
            runner.register(context.waker());
        }
        let seen = *published.lock().unwrap() == 0;
        if !registers_first {
            runner.register(context.waker());
        }
        match seen {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }));
    driver.join().unwrap();
}

#[test]
fn a_completion_wakes_a_guest_that_is_parked() {
    explore(|| park(true));
}

#[test]
fn a_completion_is_missed_by_who_looks_before_it_registers() {
    refuses(|| park(false));
}

#[test]
fn a_notification_is_taken_whenever_it_comes() {
    explore(|| {
        let notified = Arc::new(Notify::new());
        let word = Arc::new(AtomicBool::new(false));
        let notifies = thread::spawn({
            let (notified, word) = (notified.clone(), word.clone());
            move || {
                word.store(true, Ordering::Relaxed);
                notified.notify();
            }
        });
        block_on(poll_fn(|context| match notified.taken_else_wake(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }));
        assert!(
            word.load(Ordering::Relaxed),
            "what came before the notification is seen"
        );
        notifies.join().unwrap();
    });
}
