//! Rung 2: asking all the time.
//!
//! Somebody has to call `poll`. The simplest executor there is, `block_on` with a waker that does
//! nothing, knows only one way: again and again. The future waits for the host, which is to say
//! when five milliseconds are over. Each time round, the guest leaves to let the host look, finds
//! nothing, and polls in vain. The table at the end of the ladder shows what that costs.
//!
//! Elsewhere: `embassy_futures::block_on` is this loop, and so are drivers written for `nb`.
//!
//! Next: poll only when there is a reason to.
#![no_std]
#![no_main]

use ground::prelude::*;
use ground::{ask, completion, now_ns};

ground::rung!(rung);

const MAIN: u32 = 1;
const TOKEN: Token = token(1, 0);

/// Ready when the host says that it is late enough.
struct Until {
    at_ns: u64,
    submitted: bool,
}

impl Future for Until {
    type Output = ();

    /// Takes no notice of the waker: whoever polls will ask again anyway.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if !self.submitted {
            self.submitted = true;
            submit(Deadline { at_ns: self.at_ns }, TOKEN, MAIN);
        }
        match completion() {
            Some(done) if done.token == TOKEN => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// Polls until the future is ready. Returns its output and the number of polls.
fn block_on<T>(future: impl Future<Output = T>) -> (T, u32) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut polls = 0;
    loop {
        polls += 1;
        poll_begins(MAIN);
        let polled = future.as_mut().poll(&mut context);
        poll_ends(MAIN, polled.is_ready(), Some(Reason::Operation(TOKEN)));
        match polled {
            Poll::Ready(output) => return (output, polls),
            Poll::Pending => ask(),
        }
        // This is the waking: none. The loop itself is the reason for the next poll.
        woken(MAIN, Reason::Task(MAIN), true);
    }
}

fn rung() {
    spawned(MAIN, 0, "main");
    let ((), polls) = block_on(Until {
        at_ns: now_ns() + 5_000_000,
        submitted: false,
    });
    say!("5 ms took {polls} polls, and as many ways to the host and back, less one");
}
