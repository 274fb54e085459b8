//! Rung 4: a queue of tasks.
//!
//! A scheduler is a channel: whoever wakes a task sends it, the executor receives and polls. A task is
//! a future with a place in that channel, and its waker is the task itself. Two tasks play ping-pong
//! here: each wakes the other. No completion, no exit: waking inside of the guest costs a push.
//!
//! Two questions more. How does a `JoinHandle` get its result? The task's future is wrapped in one that puts the
//! result where the handle finds it, and calls the waker that the handle has left there: a channel for one value. And
//! is it fair? The queue is first in, first out, and a task that wakes itself while it is polled goes to its end: so
//! between two of its polls everybody else who is ready has one. (With a stack instead, whoever never rests would keep
//! the others from ever being polled. What none of this mends is a single poll that takes long: rung 9 does.)
//!
//! Elsewhere: `async-task` with `async-executor`, Tokio's `current_thread` runtime, Embassy's executor.
//!
//! Next: tasks that wait for a time.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;

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

/// Where a task's result goes, and who waits for it.
type Place<T> = Rc<(RefCell<Option<T>>, RefCell<Option<Waker>>)>;

/// The reading end of the place.
struct JoinHandle<T>(Place<T>);

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let (result, waits) = &*self.0;
        match result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                *waits.borrow_mut() = Some(context.waker().clone());
                cloned(NOW.0.get());
                Poll::Pending
            }
        }
    }
}

fn spawn<T: 'static>(
    number: u32,
    name: &str,
    future: impl Future<Output = T> + 'static,
) -> JoinHandle<T> {
    spawned(number, NOW.0.get(), name);
    let place = Place::new((RefCell::new(None), RefCell::new(None)));
    let writes = place.clone();
    let whole = async move {
        let output = future.await;
        let (result, waits) = &*writes;
        *result.borrow_mut() = Some(output);
        let waits = waits.borrow_mut().take();
        waits.into_iter().for_each(Waker::wake);
    };
    READY.0.borrow_mut().push_back(Arc::new(Task {
        number,
        future: Local(RefCell::new(Box::pin(whole))),
        queued: AtomicBool::new(true),
    }));
    JoinHandle(place)
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

/// Hits the ball whenever it is on this side, until it was hit ten times. Returns how often that was.
async fn player(table: &'static Table, side: usize) -> u32 {
    let mut hits = 0;
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
        if table.ball.get() < 10 {
            table.ball.set(table.ball.get() + 1);
            hits += 1;
        }
        let other = table.waits[1 - side].borrow_mut().take();
        other.into_iter().for_each(Waker::wake);
    }
    hits
}

/// Never rests: gives way, and is ready again at once, until the ball was hit ten times.
async fn restless(table: &'static Table) {
    while table.ball.get() < 10 {
        let mut gave_way = false;
        poll_fn(|context| {
            if core::mem::replace(&mut gave_way, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

fn rung() {
    let table: &'static Table = Box::leak(Box::default());
    let ping = spawn(1, "ping", player(table, 0));
    let pong = spawn(2, "pong", player(table, 1));
    spawn(3, "restless", restless(table));
    spawn(4, "umpire", async {
        let (ping, pong) = (ping.await, pong.await);
        say!("the ball was hit {ping} and {pong} times, without one exit");
    });
    run();
}
