//! Rung 1: a future by hand.
//!
//! An `async fn` is not a thread that waits. It is a value: a state machine with one state for each
//! `.await` at which it can stand, which holds whatever lives across that point. `poll` runs it to the
//! next point that is not ready, and returns. Here is one such function twice: as the compiler
//! writes it, and as one would write it by hand. Both are polled by hand, as often as they want.
//!
//! Why does `poll` want a `Pin`? What lives across an `.await` may be a reference to something else that does: then
//! the value points into itself, and moving it, which copies its bytes and nothing else, would leave that pointer
//! behind. `Pin` is the promise that it is moved no more; it begins with the first poll, before which there is no
//! such reference.
//!
//! Elsewhere: the compiler's own transformation of `async fn` and of coroutines; by hand, most of the
//! futures in `tokio` and `hyper`, with `pin-project` for the reaching in.
//!
//! Next: who calls `poll`, and when?
#![no_std]
#![no_main]

use ground::prelude::*;

ground::rung!(rung);

/// The smallest future that is not ready at once: it asks for a second poll, and gives its number then.
struct Later {
    number: u32,
    asked: bool,
}

fn later(number: u32) -> Later {
    let asked = false;
    Later { number, asked }
}

impl Future for Later {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        if self.asked {
            return Poll::Ready(self.number);
        }
        self.asked = true;
        Poll::Pending
    }
}

/// With two points at which it can stand; `first` lives across the second.
async fn by_compiler(a: u32, b: u32) -> u32 {
    let first = later(a).await;
    let second = later(b).await;
    first * 10 + second
}

/// The same by hand: a state for each point, with what lives there.
enum ByHand {
    Start { a: u32, b: u32 },
    AtFirst { b: u32, waits_for: Later },
    AtSecond { first: u32, waits_for: Later },
    Done,
}

impl Future for ByHand {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        loop {
            *self = match &mut *self {
                Self::Start { a, b } => Self::AtFirst {
                    b: *b,
                    waits_for: later(*a),
                },
                Self::AtFirst { b, waits_for } => match Pin::new(waits_for).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(first) => Self::AtSecond {
                        first,
                        waits_for: later(*b),
                    },
                },
                Self::AtSecond { first, waits_for } => match Pin::new(waits_for).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(second) => {
                        let result = *first * 10 + second;
                        *self = Self::Done;
                        return Poll::Ready(result);
                    }
                },
                Self::Done => panic!("polled after it was ready"),
            };
        }
    }
}

/// Polls until it is ready, and tells what each poll gave. Nobody wakes anybody yet.
fn drive(task: u32, name: &str, future: impl Future<Output = u32>) {
    spawned(task, 0, name);
    say!("{name}: {} bytes", size_of_val(&future));
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        poll_begins(task);
        let polled = future.as_mut().poll(&mut context);
        poll_ends(task, polled.is_ready(), None);
        say!("  poll: {polled:?}");
        if polled.is_ready() {
            return;
        }
        // For the trace: the next poll has no other reason than this loop.
        woken(task, Reason::Task(task), true);
    }
}

/// What such a function is after its first poll: digits, and a reference to one of them.
struct PointsIntoItself {
    digits: [u32; 2],
    last: *const u32,
}

impl PointsIntoItself {
    fn does(&self) -> bool {
        self.digits.as_ptr_range().contains(&self.last)
    }
}

/// Moves one by hand, as safe code may do with any value that is not pinned.
fn move_what_points_into_itself() {
    let mut here = Box::new(PointsIntoItself {
        digits: [4, 2],
        last: core::ptr::null(),
    });
    here.last = &raw const here.digits[1];
    say!("it points into itself: {}", here.does());
    let there = Box::new(*here);
    say!("moved, it points into itself: {}", there.does());
}

/// The same as the compiler writes it. Tells where the reference leads.
async fn points_into_itself(leads_to: &Cell<*const u32>) {
    let digits = [4, 2];
    let last = &digits[1];
    later(0).await;
    leads_to.set(last);
}

/// Polls it where it is pinned. The compiler would refuse `let moved = *future;`.
fn poll_what_points_into_itself() {
    let leads_to = Cell::new(core::ptr::null());
    let mut future = Box::pin(points_into_itself(&leads_to));
    let start = (&raw const *future).cast::<u8>();
    let place = start..start.wrapping_add(size_of_val(&*future));
    let mut context = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut context).is_pending() {}
    let does = place.contains(&leads_to.get().cast());
    say!("pinned, it points into itself: {does}");
}

fn rung() {
    drive(1, "by hand", ByHand::Start { a: 4, b: 2 });
    drive(2, "async fn", by_compiler(4, 2));
    move_what_points_into_itself();
    poll_what_points_into_itself();
}
