//! Replies with items of a stream that make no sense.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Buf, CallKind, Operation, ReplyKind};
use wakebox_abi::status::Status;

use crate::case::{Answer, Args, Case, End, Modes};
use crate::guest::Guest;
use crate::machine;
use crate::typed::take;

/// The text `a`, and the record of its type.
const ITEM: &[u8] = b"\x01a\x0F\x59\x75\x8D";

fn reply(guest: &mut Guest, call: u64, kind: ReplyKind, from: Buf) -> Status {
    guest.call(op::Reply { call, kind, from }).0
}

/// As many items at once as there are slots, which are taken back, or not.
fn flood(guest: &mut Guest, [take_back, ..]: Args) {
    let call = take(guest).call;
    let from = guest.arena(0x8000, ITEM);
    for _ in 0..5 {
        let tokens: [Token; 60] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            let kind = ReplyKind::Item;
            guest.submit(&[op::Reply { call, kind, from }.submission(token)]);
        }
        for target in tokens.into_iter().filter(|_| take_back == 1) {
            guest.submit(&[op::Cancel { target }.submission(Token::from_word(0))]);
        }
        for _ in tokens {
            let status = guest.wait().status;
            assert!(matches!(status, Status::Ok | Status::Cancelled), "{status}");
        }
    }
    let end = reply(guest, call, ReplyKind::End, Buf::default());
    assert_eq!(end, Status::Ok);
    guest.call(op::Deadline { at_ns: 0 });
}

/// What is no item, or none any more.
fn odd(guest: &mut Guest, [how, ..]: Args) {
    let call = take(guest).call;
    let item = guest.arena(0x8000, ITEM);
    match how {
        0 => {
            let garbage = guest.arena(0x9000, &[0xFF; 12]);
            assert_eq!(reply(guest, call, ReplyKind::Item, garbage), Status::Ok);
        }
        1 => {
            assert_eq!(reply(guest, call, ReplyKind::End, item), Status::Ok);
            // Whoever asked may be gone by now, or not yet.
            for kind in [ReplyKind::Item, ReplyKind::Part, ReplyKind::End] {
                let again = reply(guest, call, kind, item);
                assert!(
                    matches!(again, Status::Ok | Status::InvalidInput),
                    "{again}"
                );
            }
        }
        2 => {
            let part = Buf {
                offset: 0,
                len: machine::ARENA as u32,
            };
            for _ in 0..200 {
                let status = reply(guest, call, ReplyKind::Part, part);
                if status != Status::Ok {
                    assert_eq!(status, Status::InvalidInput);
                    break;
                }
            }
        }
        // The guest ends in the middle of an item.
        3 => {
            assert_eq!(reply(guest, call, ReplyKind::Item, item), Status::Ok);
            assert_eq!(reply(guest, call, ReplyKind::Part, item), Status::Ok);
        }
        // Half an item, and an end that makes it none.
        4 => {
            assert_eq!(reply(guest, call, ReplyKind::Part, item), Status::Ok);
            let end = reply(guest, call, ReplyKind::End, Buf::default());
            assert_eq!(end, Status::Ok);
        }
        _ => assert_eq!(
            reply(guest, call, ReplyKind::Item, Buf::default()),
            Status::Ok
        ),
    }
    // The answer gets where it was to go, before the guest ends.
    guest.call(op::Deadline { at_ns: 0 });
}

/// An item for who wants one result.
fn unasked(guest: &mut Guest, [kind, ..]: Args) {
    let call = take(guest).call;
    let item = guest.arena(0x8000, ITEM);
    let (kind, status) = match kind {
        0 => (ReplyKind::Item, Status::InvalidInput),
        _ => (ReplyKind::End, Status::Ok),
    };
    assert_eq!(reply(guest, call, kind, item), status);
    guest.call(op::Deadline { at_ns: 0 });
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (take_back, name) in [(0, "flood"), (1, "taken-back")] {
        let case = Case::new("calls", format_args!("items-{name}"), flood, End::Exit(0));
        let case = case.with([take_back, 0, 0, 0]).modes(Modes::All);
        visit(case.streamed(Answer::Given));
    }
    for (how, name, answered) in [
        (0, "garbage", Answer::BadOutput),
        (1, "after-the-end", Answer::Given),
        (2, "without-end", Answer::TooLarge),
        (3, "cut-off", Answer::Ended),
        (4, "half", Answer::Given),
        (5, "empty", Answer::BadOutput),
    ] {
        let case = Case::new("calls", format_args!("items-{name}"), odd, End::Exit(0));
        let case = case.with([how, 0, 0, 0]).modes(Modes::All);
        visit(case.streamed(answered));
    }
    for (call, call_name) in [
        (CallKind::Call, "call"),
        (CallKind::Json, "json"),
        (CallKind::Typed, "typed"),
    ] {
        for (kind, name) in [(0, "item"), (1, "end-of-items")] {
            let name = format_args!("{call_name}-gets-{name}");
            let case = Case::new("calls", name, unasked, End::Exit(0));
            let case = case.with([kind, 0, 0, 0]).modes(Modes::All);
            visit(case.called_as(call, Answer::BadOutput));
        }
    }
}
