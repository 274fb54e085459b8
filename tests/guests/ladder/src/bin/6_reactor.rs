//! Rung 6: a reactor.
//!
//! One processor, many sockets. Each operation in flight has a slot, and in the slot stands the waker of
//! the task that waits for it. When nothing is ready the guest sleeps once, for all of them; then it
//! reads whatever has completed and wakes those tasks and no others. This is what Tokio does with
//! epoll, but that here the result has come, and not the news that one may now ask for it.
//!
//! The queue of tasks is that of rung 4. The guest talks to itself, through the host's sockets.
//!
//! Next: to be told, instead of having to look.
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{completion, get, leave, listen, put};

ground::rung!(rung);

const CLIENTS: u32 = 16;

struct Task {
    number: u32,
    future: Local<RefCell<Pin<Box<dyn Future<Output = ()>>>>>,
    queued: AtomicBool,
}

static READY: Local<RefCell<VecDeque<Arc<Task>>>> = Local(RefCell::new(VecDeque::new()));
static NOW: Local<Cell<u32>> = Local(Cell::new(0));
static WHY: Local<Cell<Reason>> = Local(Cell::new(Reason::Unknown));
/// Who waits, and what has come for it.
type Slot = (Option<Waker>, Option<u32>);
/// The reactor.
static SLOTS: Local<RefCell<Vec<Slot>>> = Local(RefCell::new(Vec::new()));
static TASKS: Local<Cell<u32>> = Local(Cell::new(0));

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let queued = !self.queued.swap(true, Ordering::Relaxed);
        woken(self.number, WHY.0.get(), queued);
        if queued {
            READY.0.borrow_mut().push_back(self);
        }
    }
}

fn spawn(name: &str, future: impl Future<Output = ()> + 'static) {
    let number = TASKS.0.get() + 1;
    TASKS.0.set(number);
    spawned(number, NOW.0.get(), name);
    READY.0.borrow_mut().push_back(Arc::new(Task {
        number,
        future: Local(RefCell::new(Box::pin(future))),
        queued: AtomicBool::new(true),
    }));
}

/// Submits an operation, and is ready with its value when the completion has come. A slot is used
/// once: a reactor that is to last gives it to the next (and counts generations).
async fn op(operation: impl Operation) -> u32 {
    let (slot, generation) = (SLOTS.0.borrow().len() as u32, 0);
    SLOTS.0.borrow_mut().push((None, None));
    submit(operation, Token { slot, generation }, NOW.0.get());
    poll_fn(|context| {
        let place = &mut SLOTS.0.borrow_mut()[slot as usize];
        place.0 = Some(context.waker().clone());
        place.1.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

fn run() {
    loop {
        while let Some(task) = { READY.0.borrow_mut().pop_front() } {
            task.queued.store(false, Ordering::Relaxed);
            NOW.0.set(task.number);
            poll_begins(task.number);
            let waker = Waker::from(task.clone());
            let mut future = task.future.0.borrow_mut();
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            poll_ends(task.number, polled.is_ready(), None);
        }
        NOW.0.set(0);
        if SLOTS.0.borrow().iter().all(|(_, value)| value.is_some()) {
            return;
        }
        leave();
        while let Some(done) = completion() {
            assert!(done.status.into_result().is_ok(), "{}", done.status);
            let waker = {
                let place = &mut SLOTS.0.borrow_mut()[done.token.slot as usize];
                place.1 = Some(done.value);
                place.0.take()
            };
            WHY.0.set(Reason::Operation(done.token));
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

async fn client(number: u32, address: Buf) {
    let stream = Handle(op(TcpConnect { address }).await);
    let sent = put(
        4096 + number * 64,
        format!("hello from {number}").as_bytes(),
    );
    op(WriteStream { stream, from: sent }).await;
    let into = put(8192 + number * 64, &[0; 32]);
    let len = op(ReadStream { stream, into }).await;
    assert_eq!(get(Buf { len, ..into }), get(sent));
}

async fn echo(number: u32, stream: Handle) {
    let into = put(12288 + number * 64, &[0; 32]);
    let len = op(ReadStream { stream, into }).await;
    op(WriteStream {
        stream,
        from: Buf { len, ..into },
    })
    .await;
}

async fn serve(listener: Handle, address: Buf) {
    (0..CLIENTS).for_each(|number| spawn("client", client(number, address)));
    for number in 0..CLIENTS {
        let stream = Handle(op(TcpAccept { listener }).await);
        spawn("echo", echo(number, stream));
    }
}

fn rung() {
    let (listener, address) = listen(CLIENTS);
    spawn("server", serve(listener, address));
    run();
    say!(
        "{CLIENTS} clients were answered, {} operations on one thread",
        SLOTS.0.borrow().len()
    );
}
