//! Says in which order tasks run; the first argument names the case.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use wakebox_guest::task::{spawn_named, yield_now};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, ops, println, spawn, task};

#[wakebox_guest::main]
async fn main() -> i32 {
    match env::args().next() {
        Some("order") => order().await,
        Some("fair") => fair().await,
        Some("wakes") => wakes().await,
        Some("join") => join().await,
        Some("names") => names().await,
        Some("panic") => panics().await,
        Some("deadlock") => core::future::pending().await,
        other => panic!("no case {other:?}"),
    }
    0
}

/// Five tasks say their name twice and yield in between.
async fn order() {
    let tasks: Vec<_> = ('a'..='e')
        .map(|name| {
            spawn(async move {
                println!("{name}1");
                yield_now().await;
                println!("{name}2");
            })
        })
        .collect();
    println!("spawned");
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
}

/// A task that is always ready, beside one that takes some turns.
async fn fair() {
    let turns = Rc::new(Cell::new(0_u32));
    let greedy = spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        }
    });
    let modest = spawn(async move {
        let before = turns.get();
        for _ in 0..100 {
            yield_now().await;
        }
        turns.get() - before
    });
    println!("{}", modest.await.expect("nobody aborts it"));
    greedy.abort();
    println!("{:?}", greedy.await);
}

/// Operations that end together wake their tasks in the order of submission.
async fn wakes() {
    let order = Rc::new(Cell::new(0_u32));
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let order = order.clone();
            spawn(async move {
                ops::nop().await.expect("a no-op cannot fail");
                let place = order.replace(order.get() + 1);
                (number, place)
            })
        })
        .collect();
    let mut in_order = true;
    for task in tasks {
        let (number, place) = task.await.expect("nobody aborts it");
        in_order &= number == place;
    }
    println!("{in_order}");
}

/// Output, abort, detach, and what is dropped when.
async fn join() {
    struct Guard(&'static str);
    impl Drop for Guard {
        fn drop(&mut self) {
            println!("{} dropped", self.0);
        }
    }
    println!("{:?}", spawn(async { 7 }).await);

    let guard = Guard("aborted");
    let task = spawn(async move {
        let _guard = guard;
        sleep(Duration::MAX).await;
    });
    yield_now().await;
    task.abort();
    println!("{:?}", task.await);

    let detached = Rc::new(Cell::new(false));
    drop(spawn({
        let detached = detached.clone();
        async move {
            sleep(Duration::from_millis(1)).await;
            detached.set(true);
        }
    }));
    while !detached.get() {
        yield_now().await;
    }
    println!("detached");

    let finished = spawn(async {});
    while !finished.is_finished() {
        yield_now().await;
    }
    finished.abort();
    println!("{:?}", finished.await);
}

async fn names() {
    println!("{}", task::name());
    let named = spawn_named("fetch-2", async { println!("{}", task::name()) });
    named.await.expect("nobody aborts it");
}

async fn panics() {
    let doomed = spawn_named("doomed", async {
        sleep(Duration::from_millis(1)).await;
        let none: Option<u32> = core::hint::black_box(None);
        none.expect("there should be one")
    });
    println!("before");
    let _ = doomed.await;
    println!("never");
}
