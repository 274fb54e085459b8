//! Rung 10: two processors and one queue, as in a thread pool.
//!
//! Whoever has nothing to do takes a task, so one is polled here and then there: it must be `Send`. What
//! both processors change is atomic now, or has a lock, and Release and Acquire carry what a poll has
//! written to the next one. Rung 4 cleared its flag before the poll; here the other processor would then
//! poll the same task at once. So wakes are counted, and who has polled puts the task back.
//!
//! Where does a wake go? A processor that sleeps does not look at the queue. Whoever pushes calls it: a
//! count in its control page, and an exit only if it sleeps.
//!
//! Elsewhere: Tokio's multi-threaded runtime, `async-executor` on several threads, Rayon; their queues are in
//! `crossbeam-deque`.
//!
//! Next: the library wakebox-guest.
#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use ground::prelude::*;
use ground::{begin_trace, call, called, leave_unless_called, processor, start};

ground::rung!(rung, 2);

/// How many tasks pass from hand to hand, and how often each.
const PASSED: u32 = 6;
const ROUNDS: u32 = 100;

struct Task {
    number: u32,
    /// Who has popped the task polls it, and nobody else until it is pushed again.
    future: Local<RefCell<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Wakes since the last poll began. The first one pushes.
    wakes: AtomicU32,
}

/// Used by whoever has set `LOCKED`.
static READY: Local<RefCell<VecDeque<Arc<Task>>>> = Local(RefCell::new(VecDeque::new()));
static LOCKED: AtomicBool = AtomicBool::new(false);
/// Tasks that have not ended.
static LEFT: AtomicU32 = AtomicU32::new(0);
/// Polls, by processor.
static POLLS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

fn ready<T>(act: impl FnOnce(&mut VecDeque<Arc<Task>>) -> T) -> T {
    while LOCKED.swap(true, Acquire) {
        spin_loop();
    }
    let result = act(&mut READY.0.borrow_mut());
    LOCKED.store(false, Release);
    result
}

fn push(task: Arc<Task>) {
    ready(|queue| queue.push_back(task));
    call(1 - processor());
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // Before the push, after which the other processor may poll. Here a task is woken by itself alone.
        woken(self.number, Reason::Task(self.number), true);
        if self.wakes.fetch_add(1, AcqRel) == 0 {
            push(self);
        }
    }
}

fn spawn(number: u32, name: &str, future: impl Future<Output = ()> + Send + 'static) {
    spawned(number, 0, name);
    LEFT.fetch_add(1, AcqRel);
    ready(|queue| {
        queue.push_back(Arc::new(Task {
            number,
            future: Local(RefCell::new(Box::pin(future))),
            wakes: AtomicU32::new(1),
        }));
    });
}

/// Polls whatever is in the queue until no task is left. Both processors are here.
fn run() {
    loop {
        // Before the look: who pushes after it has called since.
        let calls = called();
        match ready(VecDeque::pop_front) {
            Some(task) => poll(task),
            None if LEFT.load(Acquire) == 0 => return,
            None => leave_unless_called(calls),
        }
    }
}

fn poll(task: Arc<Task>) {
    POLLS[processor() as usize].fetch_add(1, AcqRel);
    let wakes = task.wakes.load(Acquire);
    let waker = Waker::from(task.clone());
    let mut context = Context::from_waker(&waker);
    poll_begins(task.number);
    let polled = task.future.0.borrow_mut().as_mut().poll(&mut context);
    poll_ends(task.number, polled.is_ready(), None);
    if polled.is_ready() {
        // Its wakes are never taken down: nobody pushes it again.
        LEFT.fetch_sub(1, AcqRel);
        call(1 - processor());
    } else if task.wakes.fetch_sub(wakes, AcqRel) > wakes {
        // It was woken while it was polled.
        push(task);
    }
}

/// Two of these end only if both are being polled at the same time.
async fn meet() {
    static HERE: AtomicU32 = AtomicU32::new(0);
    HERE.fetch_add(1, AcqRel);
    while HERE.load(Acquire) < 2 {
        spin_loop();
    }
}

/// Goes to the end of the queue again and again: whoever has time goes on with it.
async fn pass() {
    for _ in 0..ROUNDS {
        let mut gave_way = false;
        poll_fn(|context| {
            if gave_way {
                return Poll::Ready(());
            }
            gave_way = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Where the second processor begins: at the end of a stack of its own.
#[unsafe(naked)]
extern "C" fn second() -> ! {
    naked_asm!("call {help}", "ud2", help = sym help)
}

extern "C" fn help() -> ! {
    begin_trace();
    loop {
        run();
        leave_unless_called(called());
    }
}

fn rung() {
    // Nothing is allocated from here on but on this processor, and the queue never grows.
    ready(|queue| queue.reserve(2 + PASSED as usize));
    spawn(1, "meets", meet());
    spawn(2, "meets", meet());
    (0..PASSED).for_each(|more| spawn(3 + more, "passed on", pass()));
    start(1, second);
    run();
    let [here, there] = POLLS.each_ref().map(|polls| polls.load(Acquire));
    say!("two tasks have met, each in the middle of a poll");
    say!(
        "{} polls, and each processor had some: {}",
        here + there,
        here > 0 && there > 0
    );
}
