//! Loom's view of the queues of tasks that any processor may run, and of who is called for them: every interleaving, and
//! every reordering that the memory model allows, of the very files that a guest runs, compiled with loom's primitives.
//!
//! A task that is lost, or taken twice, or read from a slot before it was written, is counted wrong; one that
//! nobody is called for shows as a deadlock. For the orders and the fence there are tests without them. The searches are
//! exhaustive up to three preemptions, unless `LOOM_MAX_PREEMPTIONS` says otherwise.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a guest uses more of these files than the models"
)]

extern crate alloc;

#[path = "pool_model/primitives.rs"]
mod primitives;
#[path = "../src/processor/queue.rs"]
mod queue;
#[path = "../../abi/tests/wake_model/search.rs"]
mod search;
#[path = "../src/processor/sleepers.rs"]
mod sleepers;

use std::ptr::without_provenance_mut;
use std::rc::Rc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use primitives::{relaxed, without_fences};
use queue::{GlobalQueue, LocalQueue};
use search::{LOST_WAKE_UP, explore, refuses};
use sleepers::Sleepers;

type Local = LocalQueue<u64, 4>;

/// A task of which the model knows the number, from 1.
fn task(number: usize) -> *mut u64 {
    without_provenance_mut(number * 8)
}

/// A bit for a task that was taken.
fn bit(task: *mut u64) -> u32 {
    assert!(!task.is_null(), "a slot was read before it was written");
    1 << (task.addr() / 8)
}

/// Takes all that is in a queue, by its owner.
fn drain(queue: &Local) -> u32 {
    let tasks = std::iter::from_fn(|| queue.pop());
    tasks.map(bit).fold(0, together)
}

/// Both, if they have nothing in common.
fn together(one: u32, other: u32) -> u32 {
    assert_eq!(one & other, 0, "a task was taken twice");
    one | other
}

/// The owner pushes tasks and pops some while others steal.
fn stealing(thieves: usize, pushed: usize, popped: usize) -> impl Fn() + Sync + Send + 'static {
    move || {
        let queue = Rc::new(Local::new());
        let threads: Vec<_> = (0..thieves)
            .map(|_| {
                let queue = queue.clone();
                thread::spawn(move || {
                    let own = Local::new();
                    let first = queue.steal_half(&own).map_or(0, bit);
                    together(first, drain(&own))
                })
            })
            .collect();
        for number in 1..=pushed {
            queue.push(task(number)).unwrap();
        }
        let mut taken = (0..popped)
            .filter_map(|_| queue.pop())
            .map(bit)
            .fold(0, together);
        for one in threads {
            taken = together(taken, one.join().unwrap());
        }
        taken = together(taken, drain(&queue));
        assert_eq!(taken, (1 << (pushed + 1)) - 2, "a task was lost");
    }
}

/// A full queue is written again while a thief reads it.
fn wrapping() {
    let queue = Rc::new(Local::new());
    for number in 1..=4 {
        queue.push(task(number)).unwrap();
    }
    let thief = thread::spawn({
        let queue = queue.clone();
        move || {
            let own = Local::new();
            let first = queue.steal_half(&own).map_or(0, bit);
            together(first, drain(&own))
        }
    });
    let mut taken = 0;
    for number in 5..=6 {
        taken = together(taken, queue.pop().map_or(0, bit));
        if queue.push(task(number)).is_err() {
            taken = together(taken, bit(task(number)));
        }
    }
    taken = together(taken, thief.join().unwrap());
    assert_eq!(
        together(taken, drain(&queue)),
        0b111_1110,
        "a task was lost"
    );
}

/// Two processors take their share of what is common while a third adds to it.
fn sharing() {
    let global = Rc::new(GlobalQueue::<u64>::new());
    global.push(task(1));
    global.push(task(2));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let global = global.clone();
            thread::spawn(move || {
                let own = Local::new();
                let first = global.take_share(2, &own).map_or(0, bit);
                together(first, drain(&own))
            })
        })
        .collect();
    global.push(task(3));
    let mut taken = threads
        .into_iter()
        .map(|one| one.join().unwrap())
        .fold(0, together);
    let own = Local::new();
    while let Some(task) = global.take_share(1, &own) {
        taken = together(taken, together(bit(task), drain(&own)));
    }
    assert_eq!(taken, 0b1110, "a task was lost");
}

/// One processor pushes tasks and calls somebody; another steals them, and sleeps when there is none.
fn calling(tasks: usize) -> impl Fn() + Sync + Send + 'static {
    move || {
        let queue = Rc::new(Local::new());
        let sleepers = Rc::new(Sleepers::new());
        let called = Rc::new((Mutex::new(false), Condvar::new()));
        let thief = thread::spawn({
            let (queue, sleepers, called) = (queue.clone(), sleepers.clone(), called.clone());
            move || {
                let own = Local::new();
                let mut taken = 0;
                while taken != (1 << (tasks + 1)) - 2 {
                    let mut found = queue.steal_half(&own);
                    if found.is_none() {
                        sleepers.enter(1);
                        if queue.len() == 0 {
                            let mut rung = called.0.lock().unwrap();
                            while !*rung {
                                rung = called.1.wait(rung).unwrap();
                            }
                            *rung = false;
                        }
                        sleepers.leave(1);
                        found = queue.steal_half(&own);
                    }
                    let found = found.map_or(0, bit);
                    taken = together(taken, together(found, drain(&own)));
                }
            }
        });
        for number in 1..=tasks {
            queue.push(task(number)).unwrap();
            if sleepers.call().is_some() {
                *called.0.lock().unwrap() = true;
                called.1.notify_one();
            }
        }
        thief.join().unwrap();
    }
}

#[test]
fn each_task_is_taken_once_by_its_owner_or_a_thief() {
    explore(stealing(1, 3, 2));
}

#[test]
fn each_task_is_taken_once_by_one_of_two_thieves() {
    explore(stealing(2, 2, 1));
}

#[test]
fn a_slot_is_written_again_only_when_it_was_read() {
    explore(wrapping);
}

#[test]
fn each_common_task_is_taken_once() {
    explore(sharing);
}

#[test]
fn without_orders_a_thief_reads_what_is_not_written() {
    refuses("read before it was written", relaxed(stealing(1, 1, 0)));
}

#[test]
fn who_sleeps_is_called_for_a_task() {
    explore(calling(2));
}

#[test]
fn without_the_fences_nobody_is_called_for_a_task() {
    refuses(LOST_WAKE_UP, without_fences(calling(1)));
}
