//! Guests that lie about their sleep, sleep in ways that they were not told to, or do not sleep.

use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Operation};
use wakebox_abi::port;
use wakebox_abi::status::Status;
use wakebox_abi::wake::Sleep;

use crate::case::{Args, Case, End, Modes};
use crate::guest::Guest;

/// Says something of its sleep, and runs all the same.
fn says(guest: &mut Guest, [word, seen, ..]: Args) {
    for _ in 0..200 {
        guest.set(Word::Sleep, word as u32);
        guest.set(Word::Seen, seen as u32);
        let token = guest.token(0);
        guest.submit(&[op::Nop {}.submission(token)]);
        while guest.take().is_none() {
            guest.ring(port::SUBMIT);
            guest.set(Word::Sleep, word as u32);
        }
    }
}

/// A millisecond from now on the guest's clock, which begins near zero.
fn soon(guest: &mut Guest) -> u64 {
    let into = op::Buf { offset: 0, len: 16 };
    assert_eq!(guest.call(op::ReadClock { into }).0, Status::Ok);
    let bytes = core::array::from_fn(|at| guest.peek(at as u32));
    u64::from_le_bytes(bytes) + 1_000_000
}

/// Sleeps through a doorbell or the halt stub, whatever its mode, having said something else.
fn sleeps(guest: &mut Guest, [how, word, lie, ..]: Args) {
    for _ in 0..3 {
        let at_ns = soon(guest);
        let token = guest.token(1);
        guest.submit(&[op::Deadline { at_ns }.submission(token)]);
        let seen = guest.consumed();
        guest.set(Word::Seen, seen.wrapping_add(lie as u32));
        guest.set(Word::Sleep, word as u32);
        match how {
            0 => guest.ring(port::WAIT),
            // SAFETY: the host wakes who halts, if only because the deadline passes.
            _ => unsafe { port::halt(seen) },
        }
        guest.set(Word::Sleep, Sleep::Awake as u32);
        assert_eq!(guest.wait().token, token);
    }
}

/// Sleeps with nothing that could wake it.
fn for_ever(guest: &mut Guest, [how, word, ..]: Args) {
    guest.set(Word::Sleep, word as u32);
    match how {
        0 => guest.ring(port::WAIT),
        // SAFETY: there is nothing to be woken for, which is the point.
        _ => unsafe { port::halt(0) },
    }
}

/// Says that it has seen more than there is, and then sleeps for real.
fn returns_at_once(guest: &mut Guest, [seen, ..]: Args) {
    for _ in 0..500 {
        guest.set(Word::Seen, seen as u32);
        guest.set(Word::Sleep, Sleep::Out as u32);
        guest.ring(port::WAIT);
    }
    guest.set(Word::Seen, 0);
    guest.ring(port::WAIT);
}

/// Says on the driver's behalf that no doorbell is needed, and rings none.
fn no_doorbell(guest: &mut Guest, [says, ..]: Args) {
    for _ in 0..50 {
        guest.set(Word::DriverPolls, says as u32);
        let token = guest.token(1);
        guest.publish_quietly(wakebox_abi::entry::Entry::to_words(
            op::Nop {}.submission(token),
        ));
        assert_eq!(guest.wait().token, token);
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let mut case = |name, act, args, end| {
        let case = Case::new("lies", name, act, end).with(args);
        visit(case.modes(Modes::All));
    };
    let words = [
        ("awake", Sleep::Awake as u64),
        ("out", Sleep::Out as u64),
        ("halt", Sleep::Halt as u64),
        ("three", 3),
        ("max", u64::from(u32::MAX)),
    ];
    for (name, word) in words {
        let fine = End::Exit(0);
        let name = |what| crate::Name::new(format_args!("{what}-{name}"));
        case(name("runs-says"), says as crate::Act, [word, 0, 0, 0], fine);
        case(
            name("runs-says-seen-max"),
            says,
            [word, u64::from(u32::MAX), 0, 0],
            fine,
        );
        case(name("waits-says"), sleeps, [0, word, 0, 0], fine);
        case(name("halts-says"), sleeps, [1, word, 0, 0], fine);
        case(name("waits-with-a-lie-says"), sleeps, [0, word, 7, 0], fine);
        case(name("halts-with-a-lie-says"), sleeps, [1, word, 7, 0], fine);
        case(
            name("waits-for-ever-says"),
            for_ever,
            [0, word, 0, 0],
            End::Deadlock,
        );
        case(
            name("halts-for-ever-says"),
            for_ever,
            [1, word, 0, 0],
            End::Deadlock,
        );
    }
    for seen in [1, 1 << 31, u64::from(u32::MAX)] {
        let name = crate::Name::new(format_args!("seen-{seen:#x}"));
        case(name, returns_at_once, [seen, 0, 0, 0], End::Deadlock);
    }
    for says in [0, 1, u64::from(u32::MAX)] {
        let name = crate::Name::new(format_args!("driver-polls-{says:#x}"));
        case(name, no_doorbell, [says, 0, 0, 0], End::Exit(0));
    }
}
