//! Makes the host keep things in its own memory, until a limit says no: the account of what it keeps
//! has a mebibyte here.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Buf, CallHeader, Handle, Operation, ReplyKind};
use wakebox_abi::status::Status;

use crate::case::{Answer, Args, Case, End, Modes};
use crate::guest::Guest;
use crate::machine;

/// Where results go.
const INTO: Buf = Buf {
    offset: 0x100,
    len: 0x100,
};

/// Where a large argument lies.
const LARGE: u32 = 0x2000;

/// Most bytes that are not the length of an argument.
const ROOM: u32 = machine::ARENA as u32 - LARGE - 8;

/// An argument: a list of so many elements, each of these bytes.
fn list(guest: &mut Guest, len: u64, element: &[u8]) -> Buf {
    let mut number = [0; 10];
    let mut rest = len;
    let mut digits = 0;
    loop {
        number[digits] = (rest & 0x7F) as u8 | if rest > 0x7F { 0x80 } else { 0 };
        digits += 1;
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    let mut at = guest.arena(LARGE, &number[..digits]).len + LARGE;
    if len <= u64::from(ROOM) {
        for _ in 0..len {
            for byte in element {
                guest.poke(at, *byte);
                at += 1;
            }
        }
    }
    Buf {
        offset: LARGE,
        len: at - LARGE,
    }
}

/// A call of the function of this name, whose result goes to [`INTO`].
fn call_of(guest: &Guest, name: &[u8], input: Buf) -> op::CallHost {
    op::CallHost {
        form: op::CallForm::Plain,
        function: guest.arena(0, name),
        input,
        into: INTO,
    }
}

/// Calls a function with an argument that would be large on the host.
fn bomb(guest: &mut Guest, [which, ..]: Args) {
    let (_, name, element, count, _) = BOMBS[which as usize];
    let input = list(guest, count, element);
    let call = call_of(guest, name, input);
    let (first, _) = guest.call(call);
    // What did not come about is not kept.
    for _ in 0..20 {
        let (again, _) = guest.call(call);
        assert_eq!(again, first);
    }
    guest.exit_with(first);
}

/// A name, a function, an element of its argument, their number, and what comes of it.
type Bomb = (&'static str, &'static [u8], &'static [u8], u64, Status);

const BOMBS: &[Bomb] = &[
    ("options", b"options", &[0], 30_000, Status::LimitReached),
    ("boxes", b"boxes", &[0], 30_000, Status::LimitReached),
    ("lists", b"lists", &[0], 60_000, Status::LimitReached),
    ("texts", b"texts", &[0], 60_000, Status::LimitReached),
    ("units", b"units", &[], 1 << 60, Status::InvalidData),
    ("numbers", b"bytes", &[0], 1 << 60, Status::InvalidData),
    ("bytes", b"bytes", &[7], 100_000, Status::Ok),
];

/// Calls that never return keep their arguments; taken back, they give them up.
fn calls(guest: &mut Guest, _: Args) {
    for _ in 0..3 {
        let input = list(guest, 50_000, &[7]);
        let call = call_of(guest, b"hold", input);
        let tokens: [Token; 40] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            guest.submit(&[call.submission(token)]);
        }
        // A mebibyte is 10 of them, each with what it was read into.
        for _ in 0..30 {
            assert_eq!(guest.wait().status, Status::LimitReached);
        }
        for target in tokens {
            guest.submit(&[op::Cancel { target }.submission(Token::from_word(0))]);
        }
        for _ in 0..10 {
            let status = guest.wait().status;
            assert!(
                matches!(status, Status::Cancelled | Status::LimitReached),
                "{status}"
            );
        }
    }
    let input = list(guest, 50_000, &[7]);
    let call = call_of(guest, b"bytes", input);
    // A call that is taken back is dropped by the embedder's runtime, in its own time: the patience of
    // whoever runs this is the limit.
    let status = loop {
        match guest.call(call).0 {
            Status::LimitReached => {}
            status => break status,
        }
    };
    assert_eq!(status, Status::Ok);
}

/// Streams keep their arguments for as long as they are open.
fn streams(guest: &mut Guest, _: Args) {
    let input = list(guest, 80_000, &[7]);
    let function = guest.arena(0, b"hold-stream");
    for _ in 0..3 {
        let mut open = [Handle(0); 16];
        let mut count = 0;
        let status = loop {
            match guest.call(op::OpenHostStream {
                form: op::CallForm::Plain,
                function,
                input,
            }) {
                (Status::Ok, handle) => {
                    open[count] = Handle(handle);
                    count += 1;
                }
                (status, _) => break status,
            }
        };
        assert_eq!(status, Status::LimitReached);
        assert!((4..12).contains(&count), "{count} streams were opened");
        for handle in &open[..count] {
            assert_eq!(guest.call(op::Close { handle: *handle }).0, Status::Ok);
        }
    }
}

/// Messages that do not fit stay on the host, until they are closed.
fn messages(guest: &mut Guest, _: Args) {
    let mut call = call_of(guest, b"large", Buf::default());
    call.into.len = 8;
    for _ in 0..3 {
        let mut open = [Handle(0); 16];
        let mut count = 0;
        let status = loop {
            match guest.call(call).0 {
                Status::Ok => {
                    let bytes = core::array::from_fn(|at| guest.peek(INTO.offset + at as u32));
                    open[count] = Handle(u32::from_le_bytes(bytes));
                    count += 1;
                }
                status => break status,
            }
        };
        assert_eq!(status, Status::LimitReached);
        assert!((3..12).contains(&count), "{count} messages were kept");
        for handle in &open[..count] {
            assert_eq!(guest.call(op::Close { handle: *handle }).0, Status::Ok);
        }
    }
}

/// Answers a call in parts without end: empty ones, or such as add up to more than may be kept.
fn parts(guest: &mut Guest, [len, count, ..]: Args) {
    let (status, _) = guest.call(op::NextCall { into: INTO });
    assert_eq!(status, Status::Ok);
    let header: [u8; CallHeader::SIZE] =
        core::array::from_fn(|at| guest.peek(INTO.offset + at as u32));
    let (header, _) = CallHeader::split(&header).expect("a header");
    let call = header.call;
    let part = Buf {
        offset: LARGE,
        len: len as u32,
    };
    for _ in 0..count {
        let (kind, from) = (ReplyKind::Part, part);
        match guest.call(op::Reply { call, kind, from }).0 {
            Status::Ok => {}
            // The call has ended, by this part or an earlier one.
            Status::LimitReached | Status::InvalidInput => break,
            status => panic!("{status}"),
        }
    }
    let from = guest.arena(0x400, b"\x01a");
    let kind = ReplyKind::Result;
    let (status, _) = guest.call(op::Reply { call, kind, from });
    assert!(
        matches!(status, Status::Ok | Status::InvalidInput),
        "{status}"
    );
    // The answer gets where it was to go, before the guest ends.
    guest.call(op::Deadline { at_ns: 0 });
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, (name, _, _, _, status)) in BOMBS.iter().enumerate() {
        let case = Case::new("kept", format_args!("bomb-{name}"), bomb, *status);
        visit(case.with([index as u64, 0, 0, 0]).modes(Modes::All));
    }
    for (name, act) in [
        ("calls-for-ever", calls as fn(&mut Guest, Args)),
        ("streams-open", streams),
        ("messages-unread", messages),
    ] {
        visit(Case::new("kept", name, act, End::Exit(0)).modes(Modes::All));
    }
    for (name, len, count, answer) in [
        ("parts-empty", 0, 20_000, Answer::Given),
        ("parts-large", 60_000, 100, Answer::LimitReached),
    ] {
        let case = Case::new("kept", name, parts, End::Exit(0)).modes(Modes::All);
        visit(case.with([len, count, 0, 0]).called(answer));
    }
}
