//! What `wakebox lint` finds; the first argument names the mistake.
#![no_std]
#![no_main]

extern crate alloc;

use core::future::{pending, poll_fn};
use core::hint::black_box;
use core::task::{Poll, Waker};

use wakebox_guest::task::{spawn_named, yield_now};
use wakebox_guest::time::{Duration, Instant, sleep};
use wakebox_guest::{env, ops};

#[wakebox_guest::main]
async fn main() {
    match env::args().next() {
        Some("no-waker") => no_waker().await,
        Some("never-woken") => never_woken().await,
        Some("long-poll") => compute(Duration::from_secs(2)),
        Some("wake-storm") => wake_storm().await,
        Some("spurious-polls") => spurious_polls().await,
        Some("wake-circle") => wake_circle().await,
        Some("late-timer") => late_timer().await,
        Some("careful") => careful().await,
        Some("crowd") => crowd(),
        other => panic!("no case {other:?}"),
    }
}

/// A future that is pending and tells nobody whom to wake.
async fn no_waker() {
    let _forgotten = spawn_named("forgetful", poll_fn(|_| Poll::<()>::Pending));
    sleep(Duration::from_millis(1)).await;
}

/// No mistake, but more tasks than anybody looks at: with `main` ten more than 65,536, all of which begin
/// before one is polled.
fn crowd() {
    for _ in 0..(1 << 16) + 9 {
        drop(spawn_named("one of many", pending::<()>()));
    }
}

/// Ten tasks that wait for a lock which keeps one waker: each who comes turns another away.
async fn wake_circle() {
    use alloc::rc::Rc;
    use core::cell::RefCell;

    let waiter: Rc<RefCell<Option<Waker>>> = Rc::default();
    let free = Rc::new(core::cell::Cell::new(false));
    let tasks: alloc::vec::Vec<_> = (0..10)
        .map(|_| {
            let (waiter, free) = (waiter.clone(), free.clone());
            let lock = poll_fn(move |cx| {
                if free.get() {
                    waiter.take().into_iter().for_each(Waker::wake);
                    return Poll::Ready(());
                }
                if let Some(other) = waiter.replace(Some(cx.waker().clone()))
                    && !other.will_wake(cx.waker())
                {
                    other.wake();
                }
                Poll::Pending
            });
            spawn_named("impatient", lock)
        })
        .collect();
    sleep(Duration::from_millis(20)).await;
    free.set(true);
    for task in tasks {
        let _ = task.await;
    }
}

/// A waker that is dropped when its time has come.
async fn never_woken() {
    let mut kept: Option<Waker> = None;
    let (take, taken) = async_channel::bounded(1);
    let _forgotten = spawn_named(
        "forgotten",
        poll_fn(move |cx| {
            let _ = take.try_send(cx.waker().clone());
            Poll::<()>::Pending
        }),
    );
    yield_now().await;
    kept.replace(taken.recv().await.expect("it has sent its waker"));
    drop(kept);
}

fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        black_box(());
    }
}

/// Calls the waker of a task for each of many things.
async fn wake_storm() {
    let (take, taken) = async_channel::bounded(1);
    let mut polls = 0;
    let woken = spawn_named(
        "woken",
        poll_fn(move |cx| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            let _ = take.try_send(cx.waker().clone());
            Poll::Pending
        }),
    );
    let waker: Waker = taken.recv().await.expect("it has sent its waker");
    for _ in 0..2_000 {
        waker.wake_by_ref();
    }
    let _ = woken.await;
}

/// Looks again and again whether something is so.
async fn spurious_polls() {
    let is_so = core::cell::Cell::new(false);
    let mut looks = 0;
    let look = poll_fn(|cx| {
        looks += 1;
        is_so.set(looks > 500);
        if is_so.get() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    look.await;
}

/// A timer that comes due while a task computes.
async fn late_timer() {
    let timer = spawn_named("timer", sleep(Duration::from_millis(5)));
    yield_now().await;
    compute(Duration::from_millis(300));
    let _ = timer.await;
}

/// What looks careless, and is not.
async fn careful() {
    // Given up on purpose.
    let idler = spawn_named("idler", pending::<()>());
    // Computes, and lets others have their turn.
    let computer = spawn_named("computer", async {
        for _ in 0..300 {
            compute(Duration::from_micros(100));
            yield_now().await;
        }
    });
    // Waits for work to the end.
    let (jobs, queue) = async_channel::bounded::<u32>(8);
    let _worker = spawn_named("worker", async move {
        let mut sum = 0;
        while let Ok(job) = queue.recv().await {
            sum += job;
        }
        sum
    });
    for job in 0..300 {
        let _ = jobs.send(job).await;
    }
    ops::nop().await.expect("a no-op cannot fail");
    let _ = computer.await;
    idler.abort();
    let _ = idler.await;
    // It waits still when the guest ends.
    core::mem::forget(jobs);
}
