//! Says in which order timers fire; the first argument names the case.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use wakebox_guest::time::{Duration, Instant, interval, sleep, sleep_until, timeout};
use wakebox_guest::{env, println, spawn};

#[wakebox_guest::main]
async fn main() -> i32 {
    match env::args().next() {
        Some("order") => order().await,
        Some("many") => many().await,
        Some("same") => same().await,
        Some("zero") => zero().await,
        Some("far") => far().await,
        Some("clocks") => clocks().await,
        other => panic!("no case {other:?}"),
    }
    0
}

const MS: Duration = Duration::from_millis(1);

async fn order() {
    let tasks: Vec<_> = [30, 10, 20, 0, 40]
        .map(|wait| {
            spawn(async move {
                sleep(MS * wait).await;
                println!("{wait}");
            })
        })
        .into_iter()
        .collect();
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
}

/// A thousand deadlines in no order: they fire in theirs, and none early.
async fn many() {
    let start = Instant::now();
    let fired = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..1000_u32)
        .map(|number| {
            let fired = fired.clone();
            let deadline =
                start + MS * 5 + Duration::from_micros(u64::from(number * 7919 % 1000) * 40);
            spawn(async move {
                sleep_until(deadline).await;
                assert!(Instant::now() >= deadline, "a timer fired early");
                fired.borrow_mut().push(deadline);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
    println!("{} {}", fired.borrow().len(), fired.borrow().is_sorted());
}

/// A thousand timers for one moment.
async fn same() {
    let deadline = Instant::now() + MS * 20;
    let fired = Rc::new(Cell::new(0));
    let tasks: Vec<_> = (0..1000)
        .map(|number| {
            let fired = fired.clone();
            spawn(async move {
                sleep_until(deadline).await;
                assert_eq!(
                    fired.replace(number + 1),
                    number,
                    "first come, first served"
                );
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
    println!("{}", fired.get());
}

async fn zero() {
    sleep(Duration::ZERO).await;
    sleep_until(Instant::from_nanos(0)).await;
    println!(
        "{:?}",
        timeout(Duration::ZERO, core::future::pending::<()>())
            .await
            .is_err()
    );
    println!("{:?}", timeout(Duration::ZERO, async { 5 }).await);
}

/// Timers beyond all time do not fire, do not overflow, and cost nothing when dropped.
async fn far() {
    for far in [
        Duration::MAX,
        Duration::from_nanos(u64::MAX),
        Duration::from_secs(1 << 40),
    ] {
        println!("{}", timeout(MS, sleep(far)).await.is_err());
        println!("{}", timeout(far, sleep(MS)).await.is_ok());
    }
    let mut never = interval(Duration::MAX);
    never.tick().await;
    println!("{}", timeout(MS, never.tick()).await.is_err());
}

/// The clock that costs no exit, and that of the host, agree and only go forward.
async fn clocks() {
    let mut last = Instant::now();
    for _ in 0..1000 {
        let now = Instant::now();
        assert!(now >= last, "the clock went back");
        last = now;
    }
    let before = Instant::now();
    let host = wakebox_guest::time::synchronize()
        .await
        .expect("the host has a clock");
    let after = Instant::now();
    println!("{}", before <= host && host <= after);
    println!("{}", wakebox_guest::time::unix_time().as_secs());
}
