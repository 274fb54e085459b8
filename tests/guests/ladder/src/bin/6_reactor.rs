//! Rung 6: a reactor.
//!
//! One processor, many sockets. Each operation in flight has a slot, and in the slot stands the waker of
//! the task that waits for it. When nothing is ready the guest sleeps once, for all of them; then it
//! reads whatever has completed and wakes those tasks and no others.
//!
//! This is what Tokio does with epoll, but for one thing. `epoll` tells of *readiness*: a call would not wait now.
//! The program then makes the call, with a buffer that was its own until that moment; who drops the future has
//! nothing to take back. A ring tells of *completion*: the call was made, and here is its result. Nothing is left to
//! ask for, so many results cost one sleep, as the last line says (`cargo xtask run ladder/6`); but the buffer was
//! lent all the while, which is rung 8's trouble.
//!
//! The queue of tasks is that of rung 4. The guest talks to itself, through the host's sockets.
//!
//! Elsewhere: `mio` under Tokio and `polling` under smol, for readiness; `tokio-uring`, `monoio` and `compio`, for
//! completion.
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
    let slot = SLOTS.0.borrow().len() as u32;
    SLOTS.0.borrow_mut().push((None, None));
    submit(operation, token(slot, 0), NOW.0.get());
    poll_fn(|context| {
        let place = &mut SLOTS.0.borrow_mut()[slot as usize];
        place.0 = Some(context.waker().clone());
        cloned(NOW.0.get());
        place.1.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Returns how often it has slept.
fn run() -> u32 {
    let mut sleeps = 0;
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
        if SLOTS.0.borrow().iter().all(|(_, value)| value.is_some()) {
            return sleeps;
        }
        sleeps += 1;
        leave();
        while let Some(done) = completion() {
            assert!(done.status.into_result().is_ok(), "{}", done.status);
            let (slot, come) = (done.token.slot as usize, (None, Some(done.value)));
            let (waker, _) = core::mem::replace(&mut SLOTS.0.borrow_mut()[slot], come);
            WHY.0.set(Reason::Operation(done.token));
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

async fn client(number: u32, address: Buf) {
    let stream = Handle(op(TcpConnect { address }).await);
    let sent = put(4096 + number * 64, &number.to_le_bytes());
    op(WriteStream {
        stream,
        from: sent,
        amount: Amount::Some,
    })
    .await;
    let into = put(8192 + number * 64, &[0; 32]);
    let len = op(ReadStream { stream, into }).await;
    assert_eq!(get(Buf { len, ..into }), get(sent));
}

async fn echo(number: u32, stream: Handle) {
    let into = put(12288 + number * 64, &[0; 32]);
    let len = op(ReadStream { stream, into }).await;
    let from = Buf { len, ..into };
    op(WriteStream {
        stream,
        from,
        amount: Amount::Some,
    })
    .await;
}

async fn serve((listener, address): (Handle, Buf)) {
    for number in 0..CLIENTS {
        spawn(2 + number, "client", client(number, address));
    }
    for number in 0..CLIENTS {
        let stream = Handle(
            op(TcpAccept {
                listener,
                peer: Buf::default(),
            })
            .await,
        );
        spawn(2 + CLIENTS + number, "echo", echo(number, stream));
    }
}

fn rung() {
    spawn(1, "server", serve(listen(CLIENTS)));
    let sleeps = run();
    let operations = SLOTS.0.borrow().len();
    say!("{CLIENTS} clients were answered, {operations} operations on one thread");
    say!("told of results: {sleeps} sleeps; told when one may ask: {operations} calls besides");
}
