//! Order and fairness, as traces.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{ops, println, spawn};

type Trace = Rc<RefCell<String>>;

/// Three tasks take turns: "abcabcabc".
async fn take_turns() -> String {
    let trace = Trace::default();
    let tasks: Vec<_> = "abc"
        .chars()
        .map(|name| {
            let trace = trace.clone();
            spawn(async move {
                for _ in 0..3 {
                    trace.borrow_mut().push(name);
                    yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    trace.take()
}

/// Operations that are submitted together end in the order of their submission.
async fn operations_in_order() -> bool {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..1_000)
        .map(|number| {
            let ends = ends.clone();
            spawn(async move {
                let _ = ops::nop().await;
                ends.borrow_mut().push(number);
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    ends.borrow().is_sorted()
}

/// A task that is always ready keeps neither operations nor timers from ending.
async fn nobody_starves() -> bool {
    let stop = Rc::new(Cell::new(false));
    let (flag, polls) = (stop.clone(), Rc::new(Cell::new(0_u64)));
    let counter = polls.clone();
    let busy = spawn(async move {
        while !flag.get() {
            counter.set(counter.get() + 1);
            yield_now().await;
        }
    });
    for _ in 0..20 {
        let _ = ops::nop().await;
    }
    let after_operations = polls.replace(0) > 0;
    // On a slow machine the time may be over before anybody has slept.
    while polls.get() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    stop.set(true);
    let _ = busy.await;
    after_operations
}

#[wakebox_guest::main]
async fn main() {
    println!("turns {}", take_turns().await);
    println!("operations in order {}", operations_in_order().await);
    println!("operations beside a busy task {}", nobody_starves().await);
    println!("timers beside a busy task");
}
