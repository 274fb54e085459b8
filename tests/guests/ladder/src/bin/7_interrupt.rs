//! Rung 7: woken by an interrupt (`--wake irq`).
//!
//! So far the guest learnt of a completion by leaving, or by looking. On bare metal, where Embassy
//! lives, nobody looks: the device interrupts whatever runs, its handler notes that something has come,
//! and the executor finds the note between two polls. Here the host is the device. One task
//! computes, another waits; no poll of the first and no exit by the guest's own will tells of the
//! completion. When nothing is ready the processor halts, and an interrupt ends that, too.
//!
//! Elsewhere: Embassy's drivers, whose interrupt handlers call wakers (`AtomicWaker`), and its executor's `wfe`.
//!
//! Next: what if nobody wants the result any more?
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{ask, completion, compute, halt, interrupts, now_ns};

ground::rung!(rung);

struct Task {
    number: u32,
    future: Local<RefCell<Pin<Box<dyn Future<Output = ()>>>>>,
    queued: AtomicBool,
}

static READY: Local<RefCell<VecDeque<Arc<Task>>>> = Local(RefCell::new(VecDeque::new()));
static WHY: Local<Cell<Reason>> = Local(Cell::new(Reason::Unknown));
/// Who waits for the one operation at a time, and how many are over.
static WAITS: Local<RefCell<Option<Waker>>> = Local(RefCell::new(None));
static OVER: Local<Cell<u32>> = Local(Cell::new(0));

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

/// What has come, to those who wait for it.
fn deliver() {
    while let Some(done) = completion() {
        OVER.0.set(OVER.0.get() + 1);
        WHY.0.set(Reason::Operation(done.token));
        let waits = WAITS.0.borrow_mut().take();
        waits.into_iter().for_each(Waker::wake);
    }
}

fn run() {
    let mut noted = 0;
    loop {
        // The handler's note: a counter that the interrupt stub adds to. To look costs one load.
        if interrupts() != noted {
            noted = interrupts();
            trace(What::Interrupted { count: noted });
            deliver();
        }
        let Some(task) = ({ READY.0.borrow_mut().pop_front() }) else {
            if WAITS.0.borrow().is_none() {
                return;
            }
            halt();
            deliver();
            continue;
        };
        task.queued.store(false, Ordering::Relaxed);
        WHY.0.set(Reason::Task(task.number));
        poll_begins(task.number);
        let waker = Waker::from(task.clone());
        let mut future = task.future.0.borrow_mut();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        poll_ends(task.number, polled.is_ready(), None);
    }
}

async fn wait(ms: u64, generation: u32) {
    let at_ns = now_ns() + ms * 1_000_000;
    submit(Deadline { at_ns }, token(1, generation), 1);
    // The host is told at once, for this guest has no reason to leave soon.
    ask();
    poll_fn(|context| {
        if OVER.0.get() > generation {
            return Poll::Ready(());
        }
        cloned(1);
        *WAITS.0.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

fn rung() {
    spawn(1, "waits", async {
        wait(3, 0).await;
        say!("the first completion interrupted a computation");
        wait(3, 1).await;
        say!("the second ended a halt");
    });
    // Gives way after each slice, and asks for another.
    let computes = poll_fn(|context| {
        compute(100_000);
        if OVER.0.get() > 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    spawn(2, "computes", computes);
    run();
}
