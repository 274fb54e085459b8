//! Rung 4: a queue of tasks.
//!
//! A scheduler is a channel: whoever wakes a task sends it, the executor receives and polls. A task is
//! a future with a place in that channel, and its waker is the task itself. Two tasks play ping-pong
//! here: each wakes the other. No completion, no exit: waking inside of the guest costs a push.
//!
//! Next: tasks that wait for a time.
#![no_std]
#![no_main]

use ground::prelude::*;

ground::rung!(rung);

struct Task {
    number: u32,
    future: Local<RefCell<Pin<Box<dyn Future<Output = ()>>>>>,
    /// A task that is woken twice before its poll stands in the queue once.
    queued: AtomicBool,
}

static READY: Local<RefCell<VecDeque<Arc<Task>>>> = Local(RefCell::new(VecDeque::new()));
/// The task that is being polled.
static NOW: Local<Cell<u32>> = Local(Cell::new(0));

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let queued = !self.queued.swap(true, Ordering::Relaxed);
        woken(self.number, Reason::Task(NOW.0.get()), queued);
        if queued {
            READY.0.borrow_mut().push_back(self);
        }
    }
}

fn spawn(number: u32, name: &str, future: impl Future<Output = ()> + 'static) {
    spawned(number, NOW.0.get(), name);
    READY.0.borrow_mut().push_back(Arc::new(Task {
        number,
        future: Local(RefCell::new(Box::pin(future))),
        queued: AtomicBool::new(true),
    }));
}

/// Polls whatever is in the queue, first in, first out, until nothing is.
fn run() {
    loop {
        let Some(task) = READY.0.borrow_mut().pop_front() else {
            return;
        };
        // Before the poll: a wake during it must bring the task back.
        task.queued.store(false, Ordering::Relaxed);
        NOW.0.set(task.number);
        poll_begins(task.number);
        let waker = Waker::from(task.clone());
        let polled = task
            .future
            .0
            .borrow_mut()
            .as_mut()
            .poll(&mut Context::from_waker(&waker));
        poll_ends(task.number, polled.is_ready(), None);
        NOW.0.set(0);
    }
}

/// Whose turn it is, and who waits for that.
#[derive(Default)]
struct Table {
    ball: Cell<u32>,
    waits: [RefCell<Option<Waker>>; 2],
}

/// Hits the ball whenever it is on this side, until it was hit ten times.
async fn player(table: &'static Table, side: usize) {
    while table.ball.get() < 10 {
        poll_fn(|context| {
            let ball = table.ball.get();
            if ball as usize % 2 == side || ball >= 10 {
                return Poll::Ready(());
            }
            *table.waits[side].borrow_mut() = Some(context.waker().clone());
            cloned(NOW.0.get());
            Poll::Pending
        })
        .await;
        table.ball.set((table.ball.get() + 1).min(10));
        let other = table.waits[1 - side].borrow_mut().take();
        other.into_iter().for_each(Waker::wake);
    }
}

fn rung() {
    let table: &'static Table = Box::leak(Box::default());
    spawn(1, "ping", player(table, 0));
    spawn(2, "pong", player(table, 1));
    run();
    say!(
        "the ball was hit {} times, without one exit",
        table.ball.get()
    );
}
