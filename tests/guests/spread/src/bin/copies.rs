//! A guest with several processors of which templates are taken: it serves calls, and each processor keeps something.
//!
//! `serve` has begun them all; `alone` begins none before it is asked to; `computes` has one that computes until it is
//! released; `asks` asks for a template on the last one.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_channel::{Receiver, Sender};
use embassy_sync::once_lock::OnceLock;
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, export, on_restore, println, processor, restored, snapshot, spawn};

/// What each processor is asked for, and has seen.
struct Desk {
    asked: (Sender<Sender<u64>>, Receiver<Sender<u64>>),
    hooks: AtomicU64,
    restores: AtomicU64,
    slept: AtomicU64,
}

impl Desk {
    fn new() -> Self {
        Self {
            asked: async_channel::unbounded(),
            hooks: AtomicU64::new(0),
            restores: AtomicU64::new(0),
            slept: AtomicU64::new(0),
        }
    }
}

/// Of all processors: made once, by the first.
static DESKS: OnceLock<Vec<Desk>> = OnceLock::new();

fn desks() -> &'static [Desk] {
    DESKS.try_get().expect("the first has made them")
}

static RELEASED: AtomicBool = AtomicBool::new(false);

/// What a processor does that is asked: it counts, in memory that is its own.
async fn attend(number: usize) {
    let desk = &desks()[number];
    on_restore(move || {
        assert!(processor::current() == number);
        desk.hooks.fetch_add(1, Ordering::Relaxed);
    });
    drop(spawn(async move {
        restored().await;
        desk.restores.fetch_add(1, Ordering::Relaxed);
    }));
    // In flight where a template is taken.
    drop(spawn(sleep(Duration::from_secs(3_600))));
    drop(spawn(async move {
        sleep(Duration::from_millis(40)).await;
        desk.slept.fetch_add(1, Ordering::Relaxed);
    }));
    let count = Rc::new(Cell::new(0));
    while let Ok(answer) = desk.asked.1.recv().await {
        assert!(processor::current() == number);
        count.set(count.get() + 1);
        let _ = answer.send(count.get()).await;
    }
}

/// Has a processor attend.
#[export]
async fn begin(number: u32) {
    attend_on(number);
}

/// How often a processor was asked.
#[export]
async fn count(number: u32) -> u64 {
    let (answer, answered) = async_channel::bounded(1);
    let _ = desks()[number as usize].asked.0.send(answer).await;
    answered.recv().await.unwrap_or(0)
}

/// What each has seen of restores: tasks, and hooks.
#[export]
async fn restores() -> Vec<(u64, u64)> {
    let seen = |desk: &Desk| {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&desk.restores), of(&desk.hooks))
    };
    desks().iter().map(seen).collect()
}

/// How many short sleeps have ended.
#[export]
async fn slept() -> u64 {
    let desks = desks().iter();
    desks.map(|desk| desk.slept.load(Ordering::Relaxed)).sum()
}

/// So many tasks that any may run sleep, wherever they are, and say so.
#[export]
async fn anywhere(tasks: u64) -> u64 {
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            processor::spawn_anywhere(async move {
                processor::stay(move || sleep(Duration::from_millis(task % 3))).await;
                task
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap_or(0);
    }
    sum
}

/// Has the one that computes wait again.
#[export]
async fn release() {
    RELEASED.store(true, Ordering::SeqCst);
}

/// The variable `NAME`, as another processor finds it.
#[export]
async fn name(number: u32) -> Option<String> {
    let name = || async { env::var("NAME").map(String::from) };
    processor::spawn_on(number as usize, name)
        .await
        .ok()
        .flatten()
}

#[wakebox_guest::main(processors = 3)]
async fn main() {
    let made = DESKS.init((0..processor::count()).map(|_| Desk::new()).collect());
    assert!(made.is_ok());
    let last = processor::count() - 1;
    let all = || (0..processor::count() as u32).for_each(attend_on);
    match env::args().next() {
        Some("alone") => attend_on(0),
        Some("computes") => {
            all();
            let begun = Arc::new(AtomicBool::new(false));
            let seen = begun.clone();
            drop(processor::spawn_on(last, move || async move {
                seen.store(true, Ordering::SeqCst);
                while !RELEASED.load(Ordering::SeqCst) {
                    spin_loop();
                }
            }));
            while !begun.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(1)).await;
            }
        }
        Some("asks") => {
            all();
            drop(processor::spawn_on(last, || async {
                println!("{:?}", snapshot().await);
            }));
        }
        _ => all(),
    }
    wakebox_guest::serve().await;
}

/// Has a processor attend.
fn attend_on(number: u32) {
    let number = number as usize;
    drop(processor::spawn_on(number, move || attend(number)));
}
