//! Rung 3: a waker.
//!
//! `Pending` is a promise: "I have left your waker with whoever knows when it is worth asking again."
//! The executor sleeps until the waker is called. Where it sleeps is this project's subject: at the
//! boundary. `out` leaves the guest, the host parks the whole machine, and `out` returns
//! when a completion stands in the ring. The completion finds the waker; the waker says "poll".
//!
//! And what is it? A pointer and a table of four functions that know what it points to: clone, wake, wake without
//! giving the waker up, drop. That is all that a future and an executor have in common, so that each can be
//! anybody's. The table stands here by hand; from the next rung on `Wake` for an `Arc` writes it.
//!
//! Elsewhere: `pollster`, and `futures::executor::block_on`, which park a thread where this parks a machine.
//!
//! Next: more than one future.
#![no_std]
#![no_main]

use core::sync::atomic::AtomicU32;
use core::task::{RawWaker, RawWakerVTable};

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
        if !self.submitted {
            self.submitted = true;
            submit(Deadline { at_ns: self.at_ns }, TOKEN, MAIN);
        }
        Poll::Pending
    }
}

/// The other end of the waker: whether there is a reason to poll. The first poll needs none.
struct Reasonable {
    any: AtomicBool,
    /// Wakers that point here: how an `Arc` would know when to free it.
    wakers: AtomicU32,
}

static REASON: Reasonable = Reasonable {
    any: AtomicBool::new(true),
    wakers: AtomicU32::new(0),
};

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);

/// What all four get is the pointer that `clone` or `waker` has put into the waker.
fn reason(data: *const ()) -> &'static Reasonable {
    // SAFETY: only `waker` makes the first one, of `REASON`, and `clone` hands on what it was given.
    unsafe { &*data.cast() }
}

fn waker(of: &'static Reasonable) -> Waker {
    of.wakers.fetch_add(1, Ordering::Relaxed);
    let data = (&raw const *of).cast();
    // SAFETY: the functions of the table keep `RawWaker`'s contract: they may be called on any thread, for what they
    // point to is atomic and lasts for ever.
    unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
}

fn clone(data: *const ()) -> RawWaker {
    reason(data).wakers.fetch_add(1, Ordering::Relaxed);
    cloned(MAIN);
    RawWaker::new(data, &TABLE)
}

/// Takes the waker with it.
fn wake(data: *const ()) {
    wake_by_ref(data);
    drop(data);
}

fn wake_by_ref(data: *const ()) {
    reason(data).any.store(true, Ordering::Relaxed);
    woken(MAIN, Reason::Operation(TOKEN), true);
}

fn drop(data: *const ()) {
    reason(data).wakers.fetch_sub(1, Ordering::Relaxed);
}

fn block_on<T>(future: impl Future<Output = T>) -> (T, u32) {
    let mut future = pin!(future);
    let waker = waker(&REASON);
    let mut polls = 0;
    loop {
        while !REASON.any.swap(false, Ordering::Relaxed) {
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
    let left = REASON.wakers.load(Ordering::Relaxed);
    say!(
        "a waker is {} bytes; {left} of them are left",
        size_of::<Waker>()
    );
}
