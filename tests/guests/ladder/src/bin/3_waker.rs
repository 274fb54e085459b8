//! Rung 3: a waker.
//!
//! `Pending` is a promise: "I have left your waker with whoever knows when it is worth asking again."
//! The executor sleeps until the waker is called. Where it sleeps is this project's subject: at the
//! boundary. `out` leaves the guest, the host parks the whole machine, and `out` returns
//! when a completion stands in the ring. The completion finds the waker; the waker says "poll".
//!
//! Next: more than one future.
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{completion, leave, now_ns};

ground::rung!(rung);

const MAIN: u32 = 1;
const TOKEN: Token = token(1, 0);

/// Where the future leaves its waker, and finds that its operation is over: a reactor for one.
static WAITS: Local<RefCell<Option<Waker>>> = Local(RefCell::new(None));
static OVER: AtomicBool = AtomicBool::new(false);

struct Until {
    at_ns: u64,
    submitted: bool,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if OVER.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        // The waker of *this* poll: a future may have moved to another task since the last one.
        *WAITS.0.borrow_mut() = Some(context.waker().clone());
        cloned(MAIN);
        if !self.submitted {
            self.submitted = true;
            submit(Deadline { at_ns: self.at_ns }, TOKEN, MAIN);
        }
        Poll::Pending
    }
}

/// The other end of the waker: whether there is a reason to poll.
struct Reasonable(AtomicBool);

impl Wake for Reasonable {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
        woken(MAIN, Reason::Operation(TOKEN), true);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> (T, u32) {
    let mut future = pin!(future);
    // The first poll needs no reason.
    let reason = Arc::new(Reasonable(AtomicBool::new(true)));
    let waker = Waker::from(reason.clone());
    let mut polls = 0;
    loop {
        while !reason.0.swap(false, Ordering::Relaxed) {
            leave();
            while let Some(done) = completion() {
                OVER.store(done.token == TOKEN, Ordering::Relaxed);
                let waits = WAITS.0.borrow_mut().take();
                waits.into_iter().for_each(Waker::wake);
            }
        }
        polls += 1;
        poll_begins(MAIN);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        poll_ends(MAIN, polled.is_ready(), Some(Reason::Operation(TOKEN)));
        if let Poll::Ready(output) = polled {
            return (output, polls);
        }
    }
}

fn rung() {
    spawned(MAIN, 0, "main");
    let at_ns = now_ns() + 5_000_000;
    let submitted = false;
    let ((), polls) = block_on(Until { at_ns, submitted });
    say!("5 ms took {polls} polls and one sleep at the boundary");
}
