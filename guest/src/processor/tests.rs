//! Processors that are threads, each with a fake machine ([`crate::machine`]).

use alloc::sync::Arc;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use std::sync::Mutex;

use super::queue::SLOTS;
use super::*;
use crate::executor::JoinError;
use crate::machine::boot_several;
use crate::task::yield_now;

/// Runs a future on the first of so many processors, and ends the others.
fn run<F: Future + 'static>(count: u32, main: F) -> F::Output {
    let (runtime, group) = boot_several(count);
    let output = runtime.block_on(main);
    runtime.end_others();
    group.join();
    output
}

#[test]
fn a_task_runs_on_the_processor_that_it_was_given_to() {
    let ran = run(4, async {
        assert_eq!((count(), current()), (4, 0));
        let mut ran = Vec::new();
        for processor in [3, 1, 0, 2, 3] {
            let task = spawn_on(processor, move || async move {
                // What it makes need not be `Send`.
                let number = std::rc::Rc::new(current());
                yield_now().await;
                assert_eq!(*number, current());
                *number
            });
            ran.push(task.await.unwrap());
        }
        ran
    });
    assert_eq!(ran, [3, 1, 0, 2, 3]);
}

#[test]
#[should_panic(expected = "there is no processor 2: this guest has 2, numbered from 0")]
fn a_processor_that_is_not_there_is_named() {
    run(2, async { drop(spawn_on(2, async || ())) });
}

#[test]
fn tasks_of_all_end_once_each_however_many_processors_there_are() {
    for processors in [1, 2, 4] {
        let sum = run(processors, async {
            let parts: Vec<_> = (0..2_000_u64)
                .map(|part| {
                    spawn_anywhere(async move {
                        for _ in 0..part % 4 {
                            yield_now().await;
                        }
                        part
                    })
                })
                .collect();
            let mut sum = 0;
            for part in parts {
                sum += part.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 1_999_000, "on {processors}");
    }
}

#[test]
fn one_processor_alone_polls_tasks_of_all_in_the_order_of_their_spawns() {
    let order = run(1, async {
        let order = Arc::new(Mutex::new(Vec::new()));
        // As many as fit into its own queue.
        let tasks: Vec<_> = (0..SLOTS)
            .map(|number| {
                let order = order.clone();
                spawn_anywhere(async move { order.lock().unwrap().push(number) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        order.clone()
    });
    assert!(order.is_sorted() && order.len() == SLOTS, "{order:?}");
}

/// Sets a flag when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_aborted_task_is_dropped_where_it_runs_and_says_so() {
    for processors in [1, 2] {
        run(processors, async {
            let place = count() - 1;
            let flags: [Arc<AtomicBool>; 2] = Default::default();
            let (one, other) = (Dropped(flags[0].clone()), Dropped(flags[1].clone()));
            let stays = spawn_on(place, move || async move {
                let _kept = one;
                core::future::pending::<()>().await;
            });
            let roams = spawn_anywhere(async move {
                let _kept = other;
                core::future::pending::<()>().await;
            });
            // Both begin.
            for _ in 0..100 {
                yield_now().await;
            }
            assert!(!stays.is_finished() && !roams.is_finished());
            stays.abort();
            roams.abort();
            assert_eq!(stays.await, Err(JoinError::Aborted));
            assert_eq!(roams.await, Err(JoinError::Aborted));
            assert!(flags.iter().all(|flag| flag.load(Ordering::Relaxed)));
        });
    }
}

#[test]
fn an_output_that_nobody_wants_is_dropped() {
    run(2, async {
        let flag: Arc<AtomicBool> = Arc::default();
        for place in [0, 1] {
            flag.store(false, Ordering::Relaxed);
            let output = Dropped(flag.clone());
            drop(spawn_on(place, move || async move { output }));
            while !flag.load(Ordering::Relaxed) {
                yield_now().await;
            }
        }
        flag.store(false, Ordering::Relaxed);
        let output = Dropped(flag.clone());
        let task = spawn_anywhere(async move { output });
        while !task.is_finished() {
            yield_now().await;
        }
        assert!(!flag.load(Ordering::Relaxed));
        drop(task);
        assert!(flag.load(Ordering::Relaxed));
    });
}

#[test]
fn main_ends_while_other_processors_have_tasks() {
    let flag: Arc<AtomicBool> = Arc::default();
    let kept = Dropped(flag.clone());
    run(3, async {
        let began = Arc::new(AtomicBool::new(false));
        let inner = began.clone();
        drop(spawn_on(2, move || async move {
            let _kept = kept;
            inner.store(true, Ordering::Relaxed);
            core::future::pending::<()>().await;
        }));
        while !began.load(Ordering::Relaxed) {
            yield_now().await;
        }
    });
    assert!(flag.load(Ordering::Relaxed), "dropped at its home");
}

// A randomized run ---------------------------------------------------------------------------

/// Where a task waits for tokens.
#[derive(Default)]
struct Mailbox {
    tokens: Mutex<(u32, Option<Waker>)>,
}

impl Mailbox {
    fn put(&self) {
        let waker = {
            let mut tokens = self.tokens.lock().unwrap();
            tokens.0 += 1;
            tokens.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn take(&self) {
        poll_fn(|cx| {
            let mut tokens = self.tokens.lock().unwrap();
            if tokens.0 > 0 {
                tokens.0 -= 1;
                return Poll::Ready(());
            }
            tokens.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

struct Game {
    boxes: Vec<Mailbox>,
    hops: AtomicU32,
    random: AtomicU64,
    over: Mailbox,
}

impl Game {
    /// The same numbers each time; who gets which is up to the threads.
    fn random(&self) -> u64 {
        let mut z = self
            .random
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Passes tokens on to whomever, until they have gone their way.
    async fn play(self: Arc<Self>, own: usize) {
        loop {
            self.boxes[own].take().await;
            if self.hops.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.over.put();
            }
            let random = self.random();
            if random & 7 == 0 {
                yield_now().await;
            }
            self.boxes[random as usize / 8 % self.boxes.len()].put();
        }
    }
}

#[test]
fn four_processors_lose_no_wake_up() {
    const TASKS: usize = 64;
    const HOPS: u32 = 100_000;
    for tokens in [1, 3, 40] {
        run(4, async move {
            let game = Arc::new(Game {
                boxes: (0..TASKS).map(|_| Mailbox::default()).collect(),
                hops: AtomicU32::new(HOPS),
                random: AtomicU64::new(tokens),
                over: Mailbox::default(),
            });
            for own in 0..TASKS {
                let game = game.clone();
                match own % 8 {
                    place @ 0..4 => drop(spawn_on(place, move || game.play(own))),
                    _ => drop(spawn_anywhere(game.play(own))),
                }
            }
            for token in 0..tokens as usize {
                game.boxes[token].put();
            }
            game.over.take().await;
        });
    }
}

/// What may go to another processor, and what may not, as the documentation has it.
#[test]
fn the_compiler_knows_what_may_go_to_another_processor() {
    /// Whether a type is `Send`: the inherent function is there only if it is.
    struct Probe<T>(core::marker::PhantomData<T>);
    trait Fallback {
        const IS_SEND: bool = false;
    }
    impl<T> Fallback for Probe<T> {}
    impl<T: Send> Probe<T> {
        const IS_SEND: bool = true;
    }
    macro_rules! is_send {
        ($($type:ty)*) => { [$((stringify!($type), <Probe<$type>>::IS_SEND)),*] };
    }
    let go = is_send! { JoinHandle<u8> crate::fs::File crate::time::Instant };
    let stay = is_send! {
        crate::task::JoinHandle<u8> crate::io::IoBuf crate::net::TcpStream crate::net::TcpListener
        crate::net::UnixStream crate::time::Sleep crate::time::Interval crate::io::StdinHandle
        crate::Restored crate::op::Op
    };
    for (name, is_send) in go {
        assert!(is_send, "{name}");
    }
    for (name, is_send) in stay {
        assert!(!is_send, "{name}");
    }
}
