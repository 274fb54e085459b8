//! Rung 8: structured concurrency.
//!
//! `join` polls two futures in one task until both are ready, `select` until one is. What `select` drops,
//! nobody wants any more: but its operation is still with the host. Whoever drops it must ask for
//! its end, or the bug of this rung appears: a read that timed out and was forgotten goes on, takes the
//! bytes that come later, and gives them to nobody. The next read waits in vain.
//!
//! Elsewhere: `join!` and `select!` of `futures` and of Tokio; for the buffer of a dropped operation,
//! `tokio-uring` and `compio`, which keep it until the kernel is done.
//!
//! What mends it stands at `Drop`. The rest of the way is the library `wakebox-guest`.
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{completion, get, leave, now_ns, pair, put};

ground::rung!(rung);

const MAIN: u32 = 1;

/// What has come, for each slot. A slot is used once.
static SLOTS: Local<RefCell<Vec<Option<u32>>>> = Local(RefCell::new(Vec::new()));

/// An operation in flight, from the moment it is made.
struct Op {
    token: Token,
    cancels: bool,
}

fn op(operation: impl Operation, cancels: bool) -> Op {
    let slot = SLOTS.0.borrow().len() as u32;
    SLOTS.0.borrow_mut().push(None);
    let token = token(slot, 0);
    submit(operation, token, MAIN);
    Op { token, cancels }
}

impl Future for Op {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        let value = SLOTS.0.borrow()[self.token.slot as usize];
        value.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Op {
    /// Asks for the end of what nobody waits for any more.
    fn drop(&mut self) {
        let is_over = SLOTS.0.borrow()[self.token.slot as usize].is_some();
        if self.cancels && !is_over {
            let (target, by) = (self.token, MAIN);
            trace(What::CancelAsked { token: target, by });
            submit(Cancel { target }, token(0, 0), MAIN);
        }
    }
}

/// Both, at once.
async fn join(a: impl Future, b: impl Future) {
    let (mut a, mut b, mut is_a, mut is_b) = (pin!(a), pin!(b), false, false);
    poll_fn(|context| {
        is_a = is_a || a.as_mut().poll(context).is_ready();
        is_b = is_b || b.as_mut().poll(context).is_ready();
        let both = (is_a && is_b).then_some(());
        both.map_or(Poll::Pending, Poll::Ready)
    })
    .await;
}

fn after(ms: u64) -> Op {
    let at_ns = now_ns() + ms * 1_000_000;
    op(Deadline { at_ns }, true)
}

/// The first, unless the time is over before: then `None`, and the first is dropped.
async fn within<T>(ms: u64, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut late) = (pin!(future), pin!(after(ms)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => late.as_mut().poll(context).map(|_| None),
    })
    .await
}

/// Polls the one task, and goes on until nothing is in flight: what was cancelled also ends.
fn block_on(future: impl Future<Output = ()>) {
    let (mut future, mut over) = (pin!(future), false);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if !over {
            poll_begins(MAIN);
            over = future.as_mut().poll(&mut context).is_ready();
            poll_ends(MAIN, over, None);
        }
        if over && !SLOTS.0.borrow().contains(&None) {
            return;
        }
        leave();
        while let Some(done) = completion() {
            SLOTS.0.borrow_mut()[done.token.slot as usize] = Some(done.value);
            woken(MAIN, Reason::Operation(done.token), !over);
        }
    }
}

/// A read in vain, then a write from the other side and another read: what does that one get?
async fn two_reads(stream: Handle, peer: Handle, cancels: bool) -> &'static str {
    let (first, second) = (put(8192, &[0; 8]), put(8256, &[0; 8]));
    let read = |into| ReadStream { stream, into };
    assert_eq!(within(5, op(read(first), cancels)).await, None);
    let (stream, from) = (peer, put(4096, b"hello"));
    join(
        op(
            WriteStream {
                stream,
                from,
                amount: Amount::Some,
            },
            true,
        ),
        after(5),
    )
    .await;
    match within(20, op(read(second), true)).await {
        Some(len) if get(Buf { len, ..second }) == b"hello" => "gets the bytes",
        _ => "waits in vain",
    }
}

fn rung() {
    let (one, other) = pair();
    spawned(MAIN, 0, "main");
    // Slot 0 is that of cancels, which have no completion.
    SLOTS.0.borrow_mut().push(Some(0));
    block_on(async {
        for (cancels, words) in [(true, "cancelled"), (false, "forgotten")] {
            let next = two_reads(one, other, cancels).await;
            say!("a read was {words}: the next one {next}");
        }
    });
}
