//! What a guest can bring the embedder's own functions to do: panic in every place where they have code,
//! block, call back.

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Buf, Operation};
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Modes};
use crate::guest::Guest;

const INTO: Buf = Buf {
    offset: 0x4000,
    len: 0x1000,
};

/// Functions that never give an answer, each with another reason why nobody may drop it lightly.
const NEVER: &[&[u8]] = &[b"bomb", b"calls-back"];

/// Functions that panic.
const PANIC: &[&[u8]] = &[
    b"panics-at-once",
    b"panics-with-a-bomb",
    b"reads-badly",
    b"writes-badly",
    b"ends-badly",
];

/// Streams that panic.
const STREAMS: &[&[u8]] = &[b"stream-panics", b"stream-writes-badly"];

fn call(guest: &mut Guest, name: &[u8], token: Token) {
    let function = guest.arena(0x1000, name);
    let call = op::CallHost {
        form: op::CallForm::Plain,
        function,
        input: Buf::default(),
        into: INTO,
    };
    guest.submit(&[call.submission(token)]);
}

/// Calls in all slots, and takes them back, again and again.
fn taken_back(guest: &mut Guest, [which, ..]: Args) {
    for _ in 0..5 {
        let tokens: [Token; 40] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            call(guest, NEVER[which as usize], token);
        }
        for target in tokens {
            guest.submit(&[op::Cancel { target }.submission(Token::from_word(0))]);
        }
        for _ in tokens {
            assert_eq!(guest.wait().status, Status::Cancelled);
        }
    }
}

/// Ends while calls are under way.
fn left_open(guest: &mut Guest, [which, ..]: Args) {
    for slot in 0..40 {
        let token = guest.token(slot);
        call(guest, NEVER[which as usize], token);
    }
    // They have begun, or not.
    guest.call(op::Deadline { at_ns: 0 });
}

/// Calls what panics, many at once.
fn panics(guest: &mut Guest, [which, ..]: Args) {
    for slot in 0..40 {
        let token = guest.token(slot);
        call(guest, PANIC[which as usize], token);
    }
    for _ in 0..40 {
        assert_eq!(guest.wait().status, Status::Panicked);
    }
}

/// A stream panics when it is asked for an item: said once, and then it is at its end.
fn stream_panics(guest: &mut Guest, [which, ..]: Args) {
    let function = guest.arena(0x1000, STREAMS[which as usize]);
    let input = Buf::default();
    let stream = guest.open(op::OpenHostStream {
        form: op::CallForm::Plain,
        function,
        input,
    });
    let mut next = || guest.call(op::NextItem { stream, into: INTO });
    assert_eq!(next().0, Status::Panicked);
    assert_eq!(next(), (Status::Ok, 0));
}

/// Streams that panic when they are dropped, closed or not.
fn streams_dropped(guest: &mut Guest, [closes, ..]: Args) {
    for _ in 0..10 {
        let function = guest.arena(0x1000, b"stream-of-bombs");
        let input = Buf::default();
        let stream = guest.open(op::OpenHostStream {
            form: op::CallForm::Plain,
            function,
            input,
        });
        let (status, _) = guest.call(op::NextItem { stream, into: INTO });
        assert_eq!(status, Status::Ok);
        if closes == 1 {
            assert_eq!(guest.call(op::Close { handle: stream }).0, Status::Ok);
        }
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let name = |name: &'static [u8]| core::str::from_utf8(name).unwrap_or_default();
    let mut add = |detail: core::fmt::Arguments<'_>, act, which: usize| {
        let case = Case::new("embedder", detail, act, End::Exit(0));
        visit(case.with([which as u64, 0, 0, 0]).modes(Modes::All));
    };
    for (which, function) in NEVER.iter().enumerate() {
        add(
            format_args!("{}-taken-back", name(function)),
            taken_back,
            which,
        );
        add(
            format_args!("{}-left-open", name(function)),
            left_open,
            which,
        );
    }
    for (which, function) in PANIC.iter().enumerate() {
        add(format_args!("{}", name(function)), panics, which);
    }
    for (which, function) in STREAMS.iter().enumerate() {
        add(format_args!("{}", name(function)), stream_panics, which);
    }
    add(format_args!("streams-left-open"), streams_dropped, 0);
    add(format_args!("streams-closed"), streams_dropped, 1);
}
