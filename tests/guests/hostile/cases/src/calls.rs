//! Calls across the boundary that make no sense, in either direction.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Buf, CallHeader, Operation, ReplyKind};
use wakebox_abi::status::Status;

use crate::case::{Answer, Args, Case, End, Modes};
use crate::guest::Guest;
use crate::handles::Kind;
use crate::items;
use crate::machine;
use crate::typed;

/// Where results go.
pub(crate) const INTO: Buf = Buf {
    offset: 0x4000,
    len: 0x1000,
};

/// What is called with what.
const CALLS: &[(&str, &[u8], &[u8], Status)] = &[
    ("right", b"echo", b"\x03abc", Status::Ok),
    ("unknown", b"nothing", b"", Status::NotFound),
    ("unnamed", b"", b"", Status::NotFound),
    ("name-not-utf8", b"\xFF\xFE", b"", Status::InvalidInput),
    ("name-with-nul", b"echo\0", b"\x03abc", Status::NotFound),
    ("name-of-a-stream", b"numbers", b"", Status::NotFound),
    ("input-missing", b"echo", b"", Status::InvalidData),
    ("input-short", b"echo", b"\x7Fabc", Status::InvalidData),
    (
        "input-length-endless",
        b"echo",
        b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        Status::InvalidData,
    ),
    (
        "input-length-max",
        b"echo",
        b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        Status::InvalidData,
    ),
    (
        "input-too-long",
        b"echo",
        b"\x03abcdef",
        Status::InvalidData,
    ),
    (
        "text-not-utf8",
        b"text",
        b"\x02\xFF\xFE",
        Status::InvalidData,
    ),
    ("text-with-escapes", b"text", b"\x04\x1B[2J", Status::Ok),
    ("deep", b"deep", b"\x01\x01\x01\x01\x01\x00", Status::Ok),
    ("panics", b"panics", b"", Status::Panicked),
    ("too-slow", b"never", b"", Status::TimedOut),
];

/// Calls a function of the host's, and gives how that ended and how long the result in [`INTO`] is.
pub(crate) fn call_host(
    guest: &mut Guest,
    form: op::CallForm,
    function: &[u8],
    input: &[u8],
) -> (Status, u32) {
    let function = guest.arena(0x1000, function);
    let input = guest.arena(0x2000, input);
    guest.call(op::CallHost {
        form,
        function,
        input,
        into: INTO,
    })
}

fn call(guest: &mut Guest, [which, ..]: Args) {
    let (_, function, input, _) = CALLS[which as usize];
    let (status, _) = call_host(guest, op::CallForm::Plain, function, input);
    guest.exit_with(status);
}

fn open_stream(guest: &mut Guest, [which, ..]: Args) {
    let (_, function, input, _) = CALLS[which as usize];
    let function = guest.arena(0x1000, function);
    let input = guest.arena(0x2000, input);
    let (status, _) = guest.call(op::OpenHostStream {
        form: op::CallForm::Plain,
        function,
        input,
    });
    guest.exit_with(status);
}

/// A value nested as deep as the arena allows.
fn deep(guest: &mut Guest, _: Args) {
    let function = guest.arena(0x1000, b"deep");
    let input = Buf {
        offset: 0x2000,
        len: machine::ARENA as u32 - 0x2000,
    };
    for offset in input.offset..input.offset + input.len {
        guest.poke(offset, 1);
    }
    guest.poke(input.offset + input.len - 1, 0);
    let (status, _) = guest.call(op::CallHost {
        form: op::CallForm::Plain,
        function,
        input,
        into: Buf::default(),
    });
    guest.exit_with(status);
}

/// All slots wait for a function that never returns; all are taken back.
fn calls_taken_back(guest: &mut Guest, _: Args) {
    let function = guest.arena(0x1000, b"never");
    for _ in 0..5 {
        let tokens: [Token; 60] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            let input = Buf::default();
            let call = op::CallHost {
                form: op::CallForm::Plain,
                function,
                input,
                into: INTO,
            };
            guest.submit(&[call.submission(token)]);
        }
        for target in tokens {
            guest.submit(&[op::Cancel { target }.submission(Token::from_word(0))]);
        }
        for _ in tokens {
            assert_eq!(guest.wait().status, Status::Cancelled);
        }
    }
}

/// Keeps more messages on the host than it may.
fn messages(guest: &mut Guest, _: Args) {
    let mut kept = 0;
    loop {
        let function = guest.arena(0x1000, b"big");
        let into = Buf { len: 8, ..INTO };
        let input = Buf::default();
        let (status, _) = guest.call(op::CallHost {
            form: op::CallForm::Plain,
            function,
            input,
            into,
        });
        match status {
            Status::Ok => kept += 1,
            status => {
                assert_eq!(kept, machine::HANDLES);
                guest.exit_with(status);
            }
        }
    }
}

/// Reads a message in odd places.
fn message_places(guest: &mut Guest, _: Args) {
    // A mebibyte, and its length before it.
    let message = Kind::Message.open(guest);
    for (at, count) in [
        (0, 64),
        (1, 64),
        (100_000, 64),
        (1 << 20, 3),
        (1 << 31, 0),
        (u32::MAX, 0),
    ] {
        let into = Buf { len: 64, ..INTO };
        let done = guest.call(op::ReadMessage { message, at, into });
        assert_eq!(done, (Status::Ok, count), "at {at}");
    }
}

/// Asks a stream from many places at once, beyond its end, and closes it meanwhile.
fn stream(guest: &mut Guest, _: Args) {
    let stream = Kind::HostStream.open(guest);
    for slot in 0..40 {
        let token = guest.token(slot);
        guest.submit(&[op::NextItem { stream, into: INTO }.submission(token)]);
    }
    for _ in 0..40 {
        assert_eq!(guest.wait().status, Status::Ok);
    }
    assert_eq!(guest.call(op::Close { handle: stream }).0, Status::Ok);
    let (status, _) = guest.call(op::NextItem { stream, into: INTO });
    guest.exit_with(status);
}

/// Takes the call that the host makes, and answers it in some wrong way.
fn answer(guest: &mut Guest, [how, ..]: Args) {
    if how == 0 {
        return;
    }
    let (status, len) = guest.call(op::NextCall { into: INTO });
    assert_eq!(status, Status::Ok);
    let mut bytes = [0; 64];
    for (at, byte) in bytes.iter_mut().enumerate().take(len as usize) {
        *byte = guest.peek(INTO.offset + at as u32);
    }
    let (header, _) = CallHeader::split(&bytes).expect("a header");
    let call = header.call;
    let from = guest.arena(0x2000, b"\x01a");
    let mut reply = |call, kind, from| guest.call(op::Reply { call, kind, from }).0;
    match how {
        1 => {}
        2 => {
            assert_eq!(reply(call, ReplyKind::Result, from), Status::Ok);
            // Whoever asked may be gone by now, or not yet.
            for _ in 0..3 {
                let again = reply(call, ReplyKind::Result, from);
                assert!(
                    matches!(again, Status::Ok | Status::InvalidInput),
                    "{again}"
                );
            }
        }
        3 => {
            for other in [call + 1, u64::MAX, 1 << 63] {
                assert_eq!(reply(other, ReplyKind::Result, from), Status::Ok);
            }
            assert_eq!(reply(call, ReplyKind::Result, from), Status::Ok);
        }
        4 => assert_eq!(reply(call, ReplyKind::NoSuchFunction, from), Status::Ok),
        5 => assert_eq!(reply(call, ReplyKind::BadInput, from), Status::Ok),
        6 => {
            // An answer without end: cut off when it is longer than a message may be.
            let part = Buf {
                offset: 0,
                len: machine::ARENA as u32,
            };
            for _ in 0..200 {
                let status = reply(call, ReplyKind::Part, part);
                if status != Status::Ok {
                    assert_eq!(status, Status::InvalidInput);
                    break;
                }
            }
        }
        7 => {
            let from = guest.arena(0x2000, &[0xFF; 12]);
            let kind = ReplyKind::Result;
            assert_eq!(guest.call(op::Reply { call, kind, from }).0, Status::Ok);
        }
        _ => {
            let empty = Buf::default();
            assert_eq!(reply(call, ReplyKind::Result, empty), Status::Ok);
        }
    }
    // The answer gets where it was to go, before the guest ends.
    guest.call(op::Deadline { at_ns: 0 });
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, (name, _, _, status)) in CALLS.iter().enumerate() {
        let args = [index as u64, 0, 0, 0];
        let case = Case::new("calls", format_args!("call-{name}"), call, *status);
        visit(case.with(args).modes(Modes::All));
        let status = match *name {
            "name-of-a-stream" => Status::Ok,
            "name-not-utf8" => Status::InvalidInput,
            _ => Status::NotFound,
        };
        let case = Case::new("calls", format_args!("open-{name}"), open_stream, status);
        visit(case.with(args));
    }
    visit(Case::new(
        "calls",
        "deep-without-end",
        deep,
        Status::InvalidData,
    ));
    visit(Case::new("calls", "taken-back", calls_taken_back, End::Exit(0)).modes(Modes::All));
    visit(Case::new("calls", "messages-unread", messages, Status::LimitReached).modes(Modes::All));
    visit(Case::new(
        "calls",
        "message-places",
        message_places,
        End::Exit(0),
    ));
    visit(Case::new("calls", "stream-beyond-its-end", stream, Status::BadHandle).modes(Modes::All));
    for (how, name, answered) in [
        (0, "never-taken", Answer::Ended),
        (1, "never", Answer::Ended),
        (2, "often", Answer::Given),
        (3, "others", Answer::Given),
        (4, "no-such-function", Answer::NoSuchFunction),
        (5, "bad-input", Answer::BadInput),
        (6, "without-end", Answer::TooLarge),
        (7, "garbage", Answer::BadOutput),
        (8, "nothing", Answer::BadOutput),
    ] {
        let case = Case::new("calls", format_args!("answer-{name}"), answer, End::Exit(0));
        visit(case.with([how, 0, 0, 0]).modes(Modes::All).called(answered));
    }
    typed::cases(visit);
    items::cases(visit);
}
