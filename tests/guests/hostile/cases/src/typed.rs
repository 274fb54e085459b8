//! Calls whose types are forged, in either direction: records that are none or another value's, words
//! about types that are no words, and replies of every kind to every kind of call.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{
    self, Buf, CallForm, CallHeader, CallKind, Handle, OVERFLOW, Operation, ReplyKind,
};
use wakebox_abi::status::Status;

use crate::calls::{INTO, call_host};
use crate::case::{Answer, Args, Case, End, Modes};
use crate::guest::Guest;
use crate::machine;

/// What host functions are called with: bytes, and behind them the record of their types, as the crate
/// `wakebox-typed` makes it (`D8 97 F8 48` for a list of three bytes, zeroes for nothing).
const CALLS: &[(&str, &[u8], &[u8], Status)] = &[
    ("right", b"echo", b"\x03abc\xD8\x97\xF8\x48", Status::Ok),
    ("record-missing", b"echo", b"\x03abc", Status::InvalidData),
    ("nothing", b"echo", b"", Status::InvalidData),
    (
        "record-short",
        b"echo",
        b"\x03abc\xD8\x97\xF8",
        Status::InvalidData,
    ),
    (
        "record-zeroes",
        b"echo",
        b"\x03abc\0\0\0\0",
        Status::InvalidData,
    ),
    (
        "record-ones",
        b"echo",
        b"\x03abc\xFF\xFF\xFF\xFF",
        Status::InvalidData,
    ),
    (
        "record-turned",
        b"echo",
        b"\x03abc\x48\xF8\x97\xD8",
        Status::InvalidData,
    ),
    (
        "record-of-text",
        b"echo",
        b"\x01a\x0F\x59\x75\x8D",
        Status::InvalidData,
    ),
    (
        "record-twice",
        b"echo",
        b"\x03abc\xD8\x97\xF8\x48\xD8\x97\xF8\x48",
        Status::InvalidData,
    ),
    (
        "record-alone",
        b"echo",
        b"\xD8\x97\xF8\x48",
        Status::InvalidData,
    ),
    (
        "length-over-the-record",
        b"echo",
        b"\x07abc\xD8\x97\xF8\x48",
        Status::InvalidData,
    ),
    (
        "length-endless",
        b"echo",
        b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\xD8\x97\xF8\x48",
        Status::InvalidData,
    ),
    ("unit", b"panics", b"\0\0\0\0", Status::Panicked),
    ("unit-forged", b"panics", b"\0\0\0\x01", Status::InvalidData),
    ("unknown", b"nothing", b"\0\0\0\0", Status::NotFound),
];

fn call(guest: &mut Guest, [which, ..]: Args) {
    let (_, function, input, _) = CALLS[which as usize];
    let (status, _) = call_host(guest, CallForm::Typed, function, input);
    guest.exit_with(status);
}

/// Opens a stream with a record that is right, or not, or asks for its types instead.
fn open(guest: &mut Guest, [form, record, ..]: Args) {
    let function = guest.arena(0x1000, b"numbers");
    let input = guest.arena(0x2000, &(record as u32).to_le_bytes());
    let form = [
        CallForm::Plain,
        CallForm::Typed,
        CallForm::Signature,
        CallForm::Json,
        CallForm::Bytes,
    ][form as usize];
    let open = op::OpenHostStream {
        form,
        function,
        input,
    };
    let (status, _) = guest.call(open);
    guest.exit_with(status);
}

/// Asks for the types of functions, with input that is not looked at.
fn signature(guest: &mut Guest, [which, ..]: Args) {
    let names: [&[u8]; 4] = [b"echo", b"numbers", b"nothing", b"\xFF"];
    let name = names[which as usize];
    let (status, len) = call_host(guest, CallForm::Signature, name, &[0xFF; 64]);
    for at in 0..len {
        let byte = guest.peek(INTO.offset + at);
        assert!((b' '..=b'~').contains(&byte), "{byte}");
    }
    guest.exit_with(status);
}

/// All slots ask for types that do not fit where they are to go, over and over; and are taken back.
fn signatures(guest: &mut Guest, [take_back, ..]: Args) {
    let function = guest.arena(0x1000, b"echo");
    for _ in 0..20 {
        let tokens: [Token; 60] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            let into = Buf {
                offset: 0x4000 + token.slot * 8,
                len: 4,
            };
            let (form, input) = (CallForm::Signature, Buf::default());
            let call = op::CallHost {
                form,
                function,
                input,
                into,
            };
            guest.submit(&[call.submission(token)]);
        }
        if take_back != 0 {
            for target in tokens {
                guest.submit(&[op::Cancel { target }.submission(Token::from_word(0))]);
            }
        }
        let mut open = [None; machine::HANDLES as usize];
        let mut kept = 0;
        for _ in tokens {
            let completion = guest.wait();
            match completion.status {
                Status::Ok => {
                    assert_eq!(completion.value, OVERFLOW);
                    let at = 0x4000 + completion.token.slot * 8;
                    let bytes = core::array::from_fn(|byte| guest.peek(at + byte as u32));
                    open[kept] = Some(Handle(u32::from_le_bytes(bytes)));
                    kept += 1;
                }
                Status::LimitReached => assert_eq!(kept, open.len()),
                status => assert_eq!(status, Status::Cancelled),
            }
        }
        for handle in open.into_iter().flatten() {
            assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
        }
    }
}

/// What a guest answers.
const BODIES: &[(&str, &[u8])] = &[
    ("text", b"\x01a"),
    ("typed-text", b"\x01a\x0F\x59\x75\x8D"),
    ("forged", b"\x01a\0\0\0\0"),
    ("record-alone", b"\x0F\x59\x75\x8D"),
    ("record-short", b"\x0F\x59\x75"),
    ("nothing", b""),
    ("record-twice", b"\x01a\x0F\x59\x75\x8D\x0F\x59\x75\x8D"),
    ("garbage", &[0xFF; 12]),
    ("escapes", b"\x1B[2J\x1B]0;owned\x07\xC2\x9B\xE2\x80\xAE"),
    // As long as the arena allows.
    ("endless", b"\x1B"),
];

fn body(name: &str) -> u64 {
    let found = BODIES.iter().position(|(other, _)| *other == name);
    found.expect("a body") as u64
}

/// Takes the next call.
pub(crate) fn take(guest: &mut Guest) -> CallHeader {
    let (status, _) = guest.call(op::NextCall { into: INTO });
    assert_eq!(status, Status::Ok);
    let header: [u8; CallHeader::SIZE] =
        core::array::from_fn(|at| guest.peek(INTO.offset + at as u32));
    let (header, _) = CallHeader::split(&header).expect("a header");
    header
}

fn reply(guest: &mut Guest, call: u64, kind: u64, body: u64) -> Status {
    let (name, bytes) = BODIES[body as usize];
    let from = match name {
        "endless" => Buf {
            offset: 0x8000,
            len: machine::ARENA as u32 - 0x8000,
        },
        _ => guest.arena(0x8000, bytes),
    };
    if name == "endless" {
        for offset in from.offset..from.offset + from.len {
            guest.poke(offset, bytes[0]);
        }
    }
    let kind = REPLIES[kind as usize].0;
    guest.call(op::Reply { call, kind, from }).0
}

const REPLIES: [(ReplyKind, &str); 5] = [
    (ReplyKind::Result, "result"),
    (ReplyKind::Part, "part"),
    (ReplyKind::NoSuchFunction, "no-such-function"),
    (ReplyKind::BadInput, "bad-input"),
    (ReplyKind::Typed, "typed"),
];

/// No further call is answered.
const NONE: u64 = u64::MAX;

/// Answers a call, and the question after the function's types, if it is to be answered.
fn answer(guest: &mut Guest, [kind, body, types_kind, types_body]: Args) {
    let header = take(guest);
    assert_eq!(reply(guest, header.call, kind, body), Status::Ok);
    if types_kind != NONE {
        let header = take(guest);
        assert_eq!(header.kind, CallKind::Signature);
        assert_eq!(
            reply(guest, header.call, types_kind, types_body),
            Status::Ok
        );
    }
    // The answer gets where it was to go, before the guest ends.
    guest.call(op::Deadline { at_ns: 0 });
}

/// Answers in two parts, whose border lies in the record.
fn parts(guest: &mut Guest, _: Args) {
    let call = take(guest).call;
    for (kind, bytes) in [
        (ReplyKind::Part, &b"\x01a\x0F\x59"[..]),
        (ReplyKind::Typed, b"\x75\x8D"),
    ] {
        let from = guest.arena(0x8000, bytes);
        let (status, _) = guest.call(op::Reply { call, kind, from });
        assert_eq!(status, Status::Ok);
    }
    guest.call(op::Deadline { at_ns: 0 });
}

/// What comes of a reply of any kind, whose body is [`BODIES`]' first, to a call of any kind.
fn answered(call: CallKind, reply: ReplyKind) -> Answer {
    match (call, reply) {
        (_, ReplyKind::Part) => Answer::Ended,
        (_, ReplyKind::NoSuchFunction) => Answer::NoSuchFunction,
        (_, ReplyKind::BadInput) => Answer::BadInput,
        (_, ReplyKind::Item | ReplyKind::End) => Answer::BadOutput,
        // It is no longer than a record would be alone.
        (CallKind::Typed, ReplyKind::Typed) => Answer::BadOutput,
        (_, ReplyKind::Result | ReplyKind::Typed) => Answer::Given,
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, (name, _, _, status)) in CALLS.iter().enumerate() {
        let case = Case::new("calls", format_args!("typed-{name}"), call, *status);
        visit(case.with([index as u64, 0, 0, 0]).modes(Modes::All));
    }
    for (name, form, record, status) in [
        ("typed", 1, 0, Status::Ok),
        ("typed-forged", 1, 1, Status::InvalidData),
        ("typed-as-plain", 0, 0, Status::InvalidData),
        ("signature", 2, 0, Status::InvalidInput),
        ("json", 3, 0, Status::InvalidData),
        ("bytes", 4, 0, Status::InvalidData),
    ] {
        let case = Case::new("calls", format_args!("open-{name}"), open, status);
        visit(case.with([form, record, 0, 0]));
    }
    for (which, name, status) in [
        (0, "function", Status::Ok),
        (1, "stream", Status::Ok),
        (2, "unknown", Status::NotFound),
        (3, "name-not-utf8", Status::InvalidInput),
    ] {
        let case = Case::new("calls", format_args!("signature-{name}"), signature, status);
        visit(case.with([which, 0, 0, 0]));
    }
    for (take_back, name) in [(0, "unread"), (1, "taken-back")] {
        let case = Case::new(
            "calls",
            format_args!("signatures-{name}"),
            signatures,
            End::Exit(0),
        );
        visit(case.with([take_back, 0, 0, 0]).modes(Modes::All));
    }

    for (call, call_name) in [
        (CallKind::Call, "call"),
        (CallKind::Json, "json"),
        (CallKind::Typed, "typed"),
    ] {
        for (index, (kind, name)) in REPLIES.into_iter().enumerate() {
            let name = format_args!("{call_name}-gets-{name}");
            let case = Case::new("calls", name, answer, End::Exit(0));
            let case = case.with([index as u64, body("text"), NONE, 0]);
            visit(case.modes(Modes::All).called_as(call, answered(call, kind)));
        }
    }
    let [result, _, _, bad_input, typed] = [0, 1, 2, 3, 4];
    for (call, name, kind, bytes, answered) in [
        (
            CallKind::Json,
            "json-gets-garbage",
            result,
            "garbage",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-text",
            typed,
            "typed-text",
            Answer::Given,
        ),
        (
            CallKind::Typed,
            "typed-text-twice",
            typed,
            "record-twice",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-record-alone",
            typed,
            "record-alone",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-record-short",
            typed,
            "record-short",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-nothing",
            typed,
            "nothing",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-garbage",
            typed,
            "garbage",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "typed-endless",
            typed,
            "endless",
            Answer::BadOutput,
        ),
        (
            CallKind::Typed,
            "bad-input-escapes",
            bad_input,
            "escapes",
            Answer::BadInput,
        ),
        (
            CallKind::Typed,
            "bad-input-endless",
            bad_input,
            "endless",
            Answer::BadInput,
        ),
    ] {
        let case = Case::new("calls", format_args!("answer-{name}"), answer, End::Exit(0));
        let case = case.with([kind, body(bytes), NONE, 0]);
        visit(case.called_as(call, answered));
    }
    // The caller asks what the types are; whatever it is told, the result is none.
    for (index, (_, name)) in REPLIES.into_iter().enumerate() {
        for bytes in ["text", "nothing", "escapes", "endless"] {
            let name = format_args!("types-{name}-{bytes}");
            let case = Case::new("calls", name, answer, End::Exit(0));
            let case = case.with([typed, body("forged"), index as u64, body(bytes)]);
            visit(case.called(Answer::BadOutput));
        }
    }
    let case = Case::new("calls", "answer-typed-in-parts", parts, End::Exit(0));
    visit(case.modes(Modes::All).called(Answer::Given));
}
