//! The driver with a backend that is not Tokio's.

use std::pin::Pin;
use std::task::{Context, Poll};

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Operation as _, Request};
use wakebox_abi::status::Status;

use super::{Ends, driver_of};
use crate::allowance;
use crate::driver::backend::{Backend, Operation, Started};

/// A backend without Tokio: all but `Nop` go on, and end at their second poll.
#[derive(Debug, Default)]
struct Scripted {
    told: Vec<(&'static str, u32)>,
    starts: u32,
    flushes: u32,
}

/// Goes on until it is polled for the second time.
#[derive(Debug, Default)]
struct Twice(bool);

impl Future for Twice {
    type Output = Status;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Status> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Status::NotFound);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Operation for Twice {
    type End = Status;
}

impl Backend for Scripted {
    type Operation = Twice;
    type End = Status;
    type Open = ();

    fn price(_: u16) -> usize {
        allowance::LIGHT
    }

    fn start(&mut self, request: Request) -> Started<Self> {
        self.starts += 1;
        match request {
            Request::Nop(_) => Started::Done(Status::Ok),
            _ => Started::Pending(Twice::default()),
        }
    }

    fn start_again(&mut self, request: Request) -> Started<Self> {
        self.start(request)
    }

    fn goes_on(&mut self, token: Token, _: &Twice) {
        self.told.push(("goes on", token.slot));
    }

    fn ended(&mut self, token: Token, _: Twice) {
        self.told.push(("ended", token.slot));
    }

    fn settle(&mut self, end: Status) -> (Status, u32) {
        (end, self.starts)
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }

    fn is_killed(&self) -> bool {
        false
    }

    fn end(&mut self) -> impl Iterator<Item = ()> + Send + 'static {
        std::iter::empty()
    }
}

#[test]
fn a_backend_hears_of_every_operation_that_goes_on_and_is_flushed_once_a_turn() {
    let (memory, _) = super::driver(4096, &crate::Policy::new());
    let Ends {
        mut submissions,
        mut completions,
    } = Ends::of(&memory);
    let mut driver = driver_of(&memory, &[], Scripted::default());
    let token = |slot| Token {
        slot,
        generation: 1,
    };
    let clock = op::NextCall {
        into: op::Buf { offset: 0, len: 0 },
    };
    let cancel = op::Cancel { target: token(2) };
    for entry in [
        op::Nop {}.submission(token(0)),
        clock.submission(token(1)),
        clock.submission(token(2)),
        cancel.submission(token(0)),
    ] {
        assert_eq!(submissions.push(entry), Ok(true));
    }
    submissions.publish();
    let turn = driver.turn(None).unwrap();
    assert_eq!((turn.submitted, turn.completed), (4, 3));
    let told = [("goes on", 1), ("goes on", 2), ("ended", 2), ("ended", 1)];
    assert_eq!(driver.backend.told, told);
    assert_eq!((driver.backend.starts, driver.backend.flushes), (3, 1));
    let mut ends = Vec::new();
    while let Ok(Some(completion)) = completions.pop() {
        ends.push((completion.token.slot, completion.status));
    }
    let all = [
        (0, Status::Ok),
        (2, Status::Cancelled),
        (1, Status::NotFound),
    ];
    assert_eq!(ends, all);
    driver.close();
}
