//! Many sandboxes side by side, and what they may not do to each other.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use wakebox::{Builder, CallError, GuestEnd, Outcome, Sandbox, WakeMode};
use wakebox_abi::entry::Token;
use wakebox_abi::op::{Deadline, Operation};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{alone, ends, kvm_test, leaks, run_here, runtime, runtime_of};

/// Code that waits for a few deadlines, a millisecond apart, all of them in flight at once.
fn waits() -> Vec<u8> {
    let deadlines: Vec<_> = (0..8)
        .map(|slot| {
            let token = Token {
                slot,
                generation: 7,
            };
            Deadline {
                at_ns: u64::from(slot) * 1_000_000,
            }
            .submission(token)
        })
        .collect();
    let waits = (0..8).map(code::wait);
    [code::submit(&deadlines)]
        .into_iter()
        .chain(waits)
        .collect::<Vec<_>>()
        .concat()
}

/// Code that sleeps for ever.
fn sleeps() -> Vec<u8> {
    let token = Token {
        slot: 0,
        generation: 1,
    };
    let never = Deadline { at_ns: u64::MAX }.submission(token);
    [code::submit(&[never]), code::wait(0), code::exit(1)].concat()
}

/// A small sandbox for this code.
fn small(machine_code: &[u8]) -> Builder {
    let guest = Elf::guest(machine_code).to_bytes();
    Sandbox::builder().guest(guest).memory(4 << 20)
}

#[kvm_test]
fn two_hundred_run_side_by_side_on_two_threads() {
    runtime_of(2).block_on(async {
        let mut runs = JoinSet::new();
        for number in 0..200_u8 {
            let guest = [waits(), code::exit(number.into())].concat();
            let mode = WakeMode::ALL[usize::from(number) % 4];
            runs.spawn(async move { (number, run_here(small(&guest).wake(mode)).await) });
        }
        while let Some(run) = runs.join_next().await {
            let (number, ended) = run.expect("no run panics");
            assert_eq!(ended.outcome, Outcome::Exit(number.into()));
        }
    });
}

#[kvm_test]
fn a_parked_guest_holds_no_thread() {
    alone!(
        "a_parked_guest_holds_no_thread",
        parked_guests_hold_no_thread,
    );
}

fn parked_guests_hold_no_thread() {
    for mode in WakeMode::ALL {
        runtime().block_on(async {
            let park = async |runs: &mut JoinSet<_>, how_many| {
                for _ in 0..how_many {
                    let mut sandbox = small(&sleeps()).wake(mode).build().unwrap();
                    runs.spawn(async move { ends(&mut sandbox).await });
                }
                // All of them run in this thread: when a neighbour ends, they are parked.
                let last = [waits(), code::exit(0)].concat();
                run_here(small(&last).wake(mode)).await
            };
            let mut runs = JoinSet::new();
            park(&mut runs, 1).await.success();
            let threads_for_one = leaks::threads().unwrap();
            park(&mut runs, 50).await.success();
            assert_eq!(leaks::threads().unwrap(), threads_for_one, "mode {mode}");
            assert!(runs.try_join_next().is_none(), "all of them sleep");
        });
    }
}

#[kvm_test(modes)]
fn a_computing_guest_lets_others_run_after_each_quantum(mode: WakeMode) {
    runtime().block_on(async {
        let mut sandbox = small(&code::spin()).wake(mode).build().unwrap();
        let kill = sandbox.handle();
        let computes = tokio::spawn(async move {
            let outcome = ends(&mut sandbox).await;
            (outcome, sandbox.stats().exits.kick)
        });
        // A neighbour that is ready all the time, in the same thread.
        let turns = Arc::new(AtomicU64::new(0));
        let neighbour = tokio::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        // Another guest gets through, too.
        let other = [waits(), code::exit(5)].concat();
        assert_eq!(
            run_here(small(&other).wake(mode)).await.outcome,
            Outcome::Exit(5)
        );
        neighbour.abort();
        let turns = turns.load(Ordering::Relaxed);
        kill.kill();
        let (outcome, quanta) = computes.await.unwrap();
        assert_eq!(outcome, Outcome::Cancelled);
        assert!(quanta > 0, "mode {mode}: it was never interrupted");
        assert!(
            turns + 1 >= quanta,
            "mode {mode}: {quanta} quanta, and only {turns} turns for a neighbour"
        );
    });
}

#[kvm_test(modes)]
fn a_guest_is_ended_from_elsewhere_whatever_it_does(mode: WakeMode) {
    for guest in [code::spin(), sleeps()] {
        runtime_of(2).block_on(async {
            let mut sandbox = small(&guest).wake(mode).build().unwrap();
            let kill = sandbox.handle();
            let run = tokio::spawn(async move { ends(&mut sandbox).await });
            // Before, during or after its first instruction: all must do.
            let other = [waits(), code::exit(0)].concat();
            run_here(small(&other)).await.success();
            kill.kill();
            assert_eq!(run.await.unwrap(), Outcome::Cancelled, "mode {mode}");
            kill.kill();
        });
    }
}

#[kvm_test]
fn one_that_is_ended_before_it_starts_never_runs() {
    let mut sandbox = small(&code::exit(1)).build().unwrap();
    sandbox.handle().kill();
    assert_eq!(runtime().block_on(ends(&mut sandbox)), Outcome::Cancelled);
    assert_eq!(sandbox.stats().exits.total(), 0);
}

#[kvm_test]
fn a_sandbox_runs_once() {
    runtime().block_on(async {
        let mut sandbox = small(&code::exit(0)).build().unwrap();
        assert!(ends(&mut sandbox).await.is_success());
        assert!(matches!(sandbox.run().await, Err(wakebox::Error::Ended)));
    });
}

#[kvm_test]
fn a_run_without_a_runtime_says_so_and_the_blocking_one_needs_none() {
    let mut sandbox = small(&code::exit(0)).build().unwrap();
    let mut run = std::pin::pin!(sandbox.run());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = run.as_mut().poll(&mut context) else {
        panic!("it should have failed at once");
    };
    assert!(matches!(error, wakebox::Error::NoRuntime), "{error}");

    let mut sandbox = small(&[waits(), code::exit(9)].concat()).build().unwrap();
    assert_eq!(sandbox.run_blocking().unwrap(), Outcome::Exit(9));
}

#[kvm_test(modes)]
fn a_start_without_a_runtime_is_told_to_whoever_asks(mode: WakeMode) {
    let running = small(&code::exit(0)).wake(mode).build().unwrap().start();
    let caller = running.caller();
    let (called, asked, ended) = runtime().block_on(async {
        let called = running.call::<(), ()>("f", &()).await;
        let asked = caller.call::<(), ()>("f", &()).await;
        (called, asked, running.ended().await)
    });
    assert_eq!(called, Err(CallError::NoRuntime), "mode {mode}");
    assert_eq!(
        asked,
        Err(CallError::Ended(GuestEnd::Dropped)),
        "mode {mode}"
    );
    let error = ended.expect_err("nothing has run");
    assert!(matches!(error, wakebox::Error::NoRuntime), "{error}");
}

/// Ends when what is left has gone; the test runner's patience is the limit.
#[kvm_test]
fn nothing_is_left_behind() {
    alone!("nothing_is_left_behind", nothing_is_left);
}

fn nothing_is_left() {
    let guests = [sleeps(), code::spin(), [waits(), code::exit(0)].concat()];
    let once = || {
        for mode in WakeMode::ALL {
            for guest in &guests {
                runtime().block_on(async {
                    let mut sandbox = small(guest).wake(mode).build().unwrap();
                    tokio::select! {
                        biased;
                        _ = sandbox.run() => {}
                        // Dropped at its first await, and at a later one.
                        () = tokio::task::yield_now() => {}
                    }
                    drop(small(guest).wake(mode).build().unwrap());
                });
            }
        }
    };
    // The threads and the handle that the process keeps are made by the first.
    once();
    let held = || (leaks::descriptors().unwrap(), leaks::threads().unwrap());
    let before = held();
    for _ in 0..10 {
        once();
    }
    // What the driver's thread has in hand it lets go when its turn comes.
    loop {
        let (descriptors, threads) = held();
        if descriptors <= before.0 && threads <= before.1 {
            break;
        }
        std::thread::yield_now();
    }
}

#[kvm_test]
fn a_future_that_is_forgotten_stops_its_guest() {
    runtime_of(2).block_on(async {
        let mut sandbox = small(&code::spin()).build().unwrap();
        let run = tokio::spawn(async move { sandbox.run().await.map(drop) });
        run_here(small(&[waits(), code::exit(0)].concat()))
            .await
            .success();
        run.abort();
        assert!(run.await.is_err_and(|error| error.is_cancelled()));
        // Both threads are free: two futures that never end would show if not.
        let stuck = [tokio::spawn(pending::<()>()), tokio::spawn(pending::<()>())];
        run_here(small(&code::exit(0))).await.success();
        stuck.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
