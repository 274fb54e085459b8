//! Rung 5: timers.
//!
//! A hundred tasks may wait for a hundred times, and the host need only know the next one. The times
//! stand in a heap, the nearest on top, each with the waker of its task. Before the executor sleeps it
//! asks the host for that one; when it has come, it wakes everybody who is due.
//!
//! The queue of tasks is that of rung 4.
//!
//! Elsewhere: Tokio has a wheel of times, `async-io` a tree as here, Embassy a list (`embassy-time-queue-utils`).
//!
//! Next: what if the waiting is not for a time but for sockets?
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{completion, leave, now_ns};

ground::rung!(rung);

struct Task {
    number: u32,
    future: Local<RefCell<Pin<Box<dyn Future<Output = ()>>>>>,
    queued: AtomicBool,
}

static READY: Local<RefCell<VecDeque<Arc<Task>>>> = Local(RefCell::new(VecDeque::new()));
/// By time, and by number where two have the same: the first is the nearest.
static TIMERS: Local<RefCell<BTreeMap<(u64, u64), Waker>>> = Local(RefCell::new(BTreeMap::new()));
/// Why wakers are called at the moment.
static WHY: Local<Cell<Reason>> = Local(Cell::new(Reason::Unknown));

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let queued = !self.queued.swap(true, Ordering::Relaxed);
        woken(self.number, WHY.0.get(), queued);
        if queued {
            READY.0.borrow_mut().push_back(self);
        }
    }
}

fn spawn(number: u32, name: &str, future: impl Future<Output = ()> + 'static) {
    spawned(number, 0, name);
    READY.0.borrow_mut().push_back(Arc::new(Task {
        number,
        future: Local(RefCell::new(Box::pin(future))),
        queued: AtomicBool::new(true),
    }));
}

fn poll_what_is_ready() {
    while let Some(task) = { READY.0.borrow_mut().pop_front() } {
        task.queued.store(false, Ordering::Relaxed);
        poll_begins(task.number);
        let waker = Waker::from(task.clone());
        let mut future = task.future.0.borrow_mut();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let timer = Reason::Timer(u64::from(task.number));
        poll_ends(task.number, polled.is_ready(), Some(timer));
    }
}

/// Waits in the heap. A task has one timer here, so its number will do for both.
async fn sleep(task: u32, ms: u64) {
    let at_ns = now_ns() + ms * 1_000_000;
    let timer = u64::from(task);
    trace(What::TimerSet {
        timer,
        at_ns,
        by: task,
    });
    poll_fn(|context| {
        if now_ns() >= at_ns {
            return Poll::Ready(());
        }
        cloned(task);
        let waker = context.waker().clone();
        TIMERS.0.borrow_mut().insert((at_ns, timer), waker);
        Poll::Pending
    })
    .await;
}

/// Takes the nearest timer, if it is due.
fn due() -> Option<(u64, Waker)> {
    let mut timers = TIMERS.0.borrow_mut();
    let first = timers.first_entry()?;
    let ((_, timer), waker) = (first.key().0 <= now_ns()).then(|| first.remove_entry())?;
    Some((timer, waker))
}

fn run() {
    for generation in 0.. {
        poll_what_is_ready();
        let Some((at_ns, _)) = TIMERS.0.borrow().keys().next().copied() else {
            return say!("the host was asked for a time {generation} times");
        };
        // One host timer for all of them.
        submit(Deadline { at_ns }, token(1, generation), 0);
        while completion().is_none() {
            leave();
        }
        while let Some((timer, waker)) = due() {
            WHY.0.set(Reason::Timer(timer));
            waker.wake();
        }
    }
}

fn rung() {
    for (task, name, ms) in [
        (1, "slow", 9),
        (2, "quick", 3),
        (3, "middling", 6),
        (4, "also quick", 3),
    ] {
        spawn(task, name, async move {
            sleep(task, ms).await;
            say!("{name}: {ms} ms");
        });
    }
    run();
}
