//! What executors take, measured inside one guest, in turns: ours, that of `embassy-executor`, and a bare loop that polls
//! boxed futures. A line `what spawn-ns wake-ns` each.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use embassy_executor::raw::{Executor, TaskStorage};
use wakebox_guest::task::yield_now;
use wakebox_guest::time::Instant;
use wakebox_guest::{println, spawn};

const TASKS: usize = 1_000;
const ROUNDS: u32 = 200;

/// Wakes itself so many times, and is ready at the poll after the last.
struct Yields(u32);

impl Future for Yields {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            0 => Poll::Ready(()),
            left => {
                self.0 = left - 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Nanoseconds of one of all tasks, in the middle of all rounds.
#[derive(Default)]
struct Rounds(Vec<f64>);

impl Rounds {
    fn add(&mut self, start: Instant) {
        self.0
            .push(start.elapsed().as_nanos() as f64 / TASKS as f64);
    }

    fn middle(mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

/// Tasks that are spawned, polled once and gone; tasks that wake themselves while they are polled.
async fn ours() -> (f64, f64) {
    let (mut spawns, mut wakes) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..TASKS {
            spawn(Yields(0));
        }
        // Behind all of them.
        yield_now().await;
        spawns.add(start);
    }
    for _ in 0..TASKS {
        spawn(Yields(ROUNDS));
    }
    for _ in 0..ROUNDS {
        let start = Instant::now();
        yield_now().await;
        wakes.add(start);
    }
    yield_now().await;
    (spawns.middle(), wakes.middle())
}

/// What wakes the executor of `embassy-executor`, which is polled in a loop here.
#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {}

fn embassy() -> (f64, f64) {
    let executor: &'static Executor = Box::leak(Box::new(Executor::new(core::ptr::null_mut())));
    let storage: Vec<TaskStorage<Yields>> = (0..TASKS).map(|_| TaskStorage::new()).collect();
    let storage: &'static [_] = storage.leak();
    let spawner = executor.spawner();
    let spawn_all = |yields| {
        for task in storage {
            match task.spawn(|| Yields(yields)) {
                Ok(token) => spawner.spawn(token),
                Err(_) => panic!("the last round has ended"),
            }
        }
    };
    // SAFETY: nobody else polls it, and no task of it does.
    let turn = || unsafe { executor.poll() };
    let (mut spawns, mut wakes) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        spawn_all(0);
        turn();
        spawns.add(start);
    }
    spawn_all(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        turn();
        wakes.add(start);
    }
    turn();
    (spawns.middle(), wakes.middle())
}

/// A list of futures that are polled one after the other: no queue, no wakers, no handles.
fn bare() -> (f64, f64) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut futures: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::with_capacity(TASKS);
    let (mut spawns, mut wakes) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        futures.extend((0..TASKS).map(|_| Box::pin(black_box(Yields(0))) as _));
        for mut future in futures.drain(..) {
            assert!(future.as_mut().poll(&mut cx).is_ready());
        }
        spawns.add(start);
    }
    futures.extend((0..TASKS).map(|_| Box::pin(black_box(Yields(ROUNDS))) as _));
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for future in &mut futures {
            assert!(future.as_mut().poll(&mut cx).is_pending());
        }
        wakes.add(start);
    }
    (spawns.middle(), wakes.middle())
}

#[wakebox_guest::main]
async fn main() {
    let all = [
        ("ours", ours().await),
        ("embassy", embassy()),
        ("bare", bare()),
    ];
    for (what, (spawn, wake)) in all {
        println!("{what} {spawn:.2} {wake:.2}");
    }
}
