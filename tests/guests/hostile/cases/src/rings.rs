//! Rings used as no guest should: indices that jump, run back and go round, floods, completions that
//! nobody reads, cancellations of everything and nothing.

use wakebox_abi::entry::{Entry, Submission, Token};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Buf, Operation};
use wakebox_abi::status::Status;
use wakebox_abi::{layout, port};

use crate::case::{Args, Case, End, Modes, Violated};
use crate::guest::Guest;

const RING: u32 = Guest::RING;

/// An operation that ends in half a millennium.
fn never(token: Token) -> Submission {
    op::Deadline { at_ns: u64::MAX }.submission(token)
}

fn cancel(target: Token) -> Submission {
    op::Cancel { target }.submission(Token::from_word(0))
}

fn nops(guest: &mut Guest, count: u32) {
    for _ in 0..count {
        assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
    }
}

/// After a few operations, the submission tail is moved by some number.
fn tail_moves(guest: &mut Guest, [before, by, ..]: Args) {
    nops(guest, before as u32);
    guest.set(
        Word::SubmissionTail,
        (before as u32).wrapping_add(by as u32),
    );
    guest.ring(port::SUBMIT);
    guest.sleep(before as u32);
}

/// As above, and the guest leaves at once: its last submissions are looked at all the same.
fn tail_moves_and_ends(guest: &mut Guest, [before, by, ..]: Args) {
    nops(guest, before as u32);
    guest.set(
        Word::SubmissionTail,
        (before as u32).wrapping_add(by as u32),
    );
    guest.exit(0);
}

/// After a few operations, the completion head is moved by some number.
fn head_moves(guest: &mut Guest, [before, by, ..]: Args) {
    nops(guest, before as u32);
    // The host notes where the head is when it takes this one.
    nops(guest, 1);
    guest.set(
        Word::CompletionHead,
        (before as u32).wrapping_add(by as u32),
    );
    let token = guest.token(0);
    guest.submit(&[op::Nop {}.submission(token)]);
    guest.sleep(before as u32 + 1);
}

/// The tail goes a whole ring ahead, over entries of an earlier round: they are done once more.
fn replay(guest: &mut Guest, _: Args) {
    nops(guest, RING);
    guest.set(Word::SubmissionTail, 2 * RING);
    guest.ring(port::SUBMIT);
    for _ in 0..RING {
        assert_eq!(guest.wait().status, Status::Ok);
    }
    assert!(guest.take().is_none());
}

/// Goes round the rings many times, in full batches.
fn flood(guest: &mut Guest, [rounds, batch, ..]: Args) {
    for _ in 0..rounds {
        let entries: [Submission; RING as usize] =
            core::array::from_fn(|slot| op::Nop {}.submission(guest.token(slot as u32)));
        guest.submit(&entries[..batch as usize]);
        for entry in &entries[..batch as usize] {
            let completion = guest.wait();
            assert_eq!(
                (completion.token, completion.status),
                (entry.token, Status::Ok)
            );
        }
    }
    assert!(guest.take().is_none());
}

/// Never consumes a completion.
fn never_read(guest: &mut Guest, [batch, ..]: Args) {
    let mut tail = 0_u32;
    loop {
        for _ in 0..batch {
            let token = guest.token(tail % RING);
            guest.put(tail, op::Nop {}.submission(token).to_words());
            tail += 1;
        }
        guest.set(Word::SubmissionTail, tail);
        guest.ring(port::SUBMIT);
    }
}

/// More operations in flight than it may have, without a completion.
fn too_many_in_flight(guest: &mut Guest, _: Args) {
    for slot in 0..RING {
        let token = guest.token(slot);
        guest.submit(&[never(token)]);
    }
    let token = guest.token(0);
    guest.submit(&[op::Nop {}.submission(token)]);
    guest.wait();
}

fn slot_taken(guest: &mut Guest, [slot, ..]: Args) {
    let (first, second) = (guest.token(slot as u32), guest.token(slot as u32));
    guest.submit(&[never(first), never(second)]);
    guest.wait();
}

/// The same token twice at once, for operations that are done on the spot.
fn same_token(guest: &mut Guest, _: Args) {
    let token = guest.token(3);
    guest.submit(&[op::Nop {}.submission(token); 8]);
    for _ in 0..8 {
        assert_eq!(guest.wait().token, token);
    }
    assert!(guest.take().is_none());
}

/// Cancels what is not there, in full batches.
fn cancel_nothing(guest: &mut Guest, [word, ..]: Args) {
    for _ in 0..100 {
        for _ in 0..RING {
            guest.submit(&[cancel(Token::from_word(word))]);
        }
        nops(guest, 1);
    }
}

/// Cancels the same operation many times.
fn cancel_often(guest: &mut Guest, _: Args) {
    let token = guest.token(9);
    guest.submit(&[never(token)]);
    guest.submit(&[cancel(token); 20]);
    let completion = guest.wait();
    assert_eq!(
        (completion.token, completion.status),
        (token, Status::Cancelled)
    );
    nops(guest, 1);
    assert!(guest.take().is_none());
}

/// Cancels with every wrong generation: the operation goes on.
fn cancel_a_stranger(guest: &mut Guest, _: Args) {
    let token = guest.token(9);
    guest.submit(&[never(token)]);
    for bit in 0..32 {
        let generation = token.generation ^ 1 << bit;
        guest.submit(&[cancel(Token {
            generation,
            ..token
        })]);
        nops(guest, 1);
    }
    guest.submit(&[cancel(token)]);
    assert_eq!(guest.wait().status, Status::Cancelled);
}

/// Fills all slots with operations that wait, and cancels them all, again and again.
fn fill_and_cancel(guest: &mut Guest, _: Args) {
    for _ in 0..30 {
        let tokens: [Token; RING as usize] = core::array::from_fn(|slot| guest.token(slot as u32));
        for token in tokens {
            guest.submit(&[never(token)]);
        }
        for token in tokens {
            guest.submit(&[cancel(token)]);
        }
        for _ in tokens {
            assert_eq!(guest.wait().status, Status::Cancelled);
        }
    }
}

/// Uses a slot again in the same batch in which it is cancelled.
fn reuse_at_once(guest: &mut Guest, _: Args) {
    for _ in 0..100 {
        let (first, second) = (guest.token(1), guest.token(1));
        guest.submit(&[never(first), cancel(first), never(second), cancel(second)]);
        for token in [first, second] {
            let completion = guest.wait();
            assert_eq!(
                (completion.token, completion.status),
                (token, Status::Cancelled)
            );
        }
    }
}

/// Cancels a no-op in its own batch: it was done before.
fn cancel_what_is_done(guest: &mut Guest, _: Args) {
    let token = guest.token(1);
    guest.submit(&[cancel(token), op::Nop {}.submission(token), cancel(token)]);
    assert_eq!(guest.wait().status, Status::Ok);
    nops(guest, 1);
    assert!(guest.take().is_none());
}

/// Writes all over the host's half of the shared pages.
fn scribble(guest: &mut Guest, [value, ..]: Args) {
    for _ in 0..50 {
        for word in [
            Word::CompletionTail,
            Word::SubmissionHead,
            Word::DriverPolls,
        ] {
            guest.set(word, value as u32);
        }
        for place in 0..u64::from(RING) * 2 {
            let at = layout::COMPLETIONS + place * 8;
            // SAFETY: the ring is mapped, and its reader is this very guest.
            unsafe { (at as *mut u64).write_volatile(value) };
        }
        // What the guest reads now is its own lie; the host goes on by what it knows itself.
        guest.ring(port::SUBMIT);
    }
    guest.set(Word::CompletionTail, 0);
    guest.set(Word::SubmissionHead, 0);
    guest.set(Word::DriverPolls, 0);
    nops(guest, 1);
}

/// A submission ring full of a value.
fn ring_of(guest: &mut Guest, [value, ..]: Args) {
    for place in 0..RING {
        guest.put(place, [value; Submission::WORDS]);
    }
    guest.set(Word::SubmissionTail, RING);
    guest.ring(port::SUBMIT);
    for _ in 0..RING {
        let status = guest.wait().status;
        assert_eq!(status, Status::Unsupported);
    }
    guest.exit_with(Status::Unsupported);
}

/// Ends in some way while operations of every kind are in flight.
fn end_in_flight(guest: &mut Guest, [how, ..]: Args) {
    let file = crate::handles::Kind::File.open(guest);
    let socket = crate::handles::Kind::Udp.open(guest);
    let stream = crate::handles::Kind::Stream.open(guest);
    let function = guest.arena(0x100, b"never");
    let from = Buf {
        offset: 0x4000,
        len: 0x4000,
    };
    let into = Buf {
        offset: 0x8000,
        len: 0x4000,
    };
    for slot in 0..8_u32 {
        let mut token = |more| guest.token(slot * 8 + more);
        let entries = [
            never(token(0)),
            op::WriteFile {
                file,
                from,
                offset: u64::from(slot) << 20,
            }
            .submission(token(1)),
            op::SyncFile {
                file,
                what: op::Sync::All,
            }
            .submission(token(2)),
            op::UdpReceive { socket, into }.submission(token(3)),
            op::ReadStream { stream, into }.submission(token(4)),
            op::WriteConsole {
                stream: op::Stream::Out,
                from,
            }
            .submission(token(5)),
            op::CallHost {
                form: op::CallForm::Plain,
                function,
                input: Buf::default(),
                into,
            }
            .submission(token(6)),
            op::NextCall { into }.submission(token(7)),
        ];
        guest.submit(&entries);
    }
    match how {
        0 => guest.exit(0),
        1 => {
            guest.ring(port::ABORT);
        }
        // SAFETY: ends the guest, as is wanted.
        2 => unsafe { core::arch::asm!("ud2") },
        _ => guest.set(Word::SubmissionTail, u32::MAX),
    }
    guest.ring(port::SUBMIT);
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for before in [0_u64, 1, 10, 63, 64, 100] {
        for (name, by) in [
            ("over", u64::from(RING) + 1),
            ("two-rings", u64::from(RING) * 2),
            ("sign", 1 << 31),
            ("just-behind", u64::from(u32::MAX)),
            ("to-zero", before.wrapping_neg() & 0xFFFF_FFFF),
        ] {
            if by == 0 {
                continue;
            }
            let args = [before, by, 0, 0];
            let violation = End::Violation(Violated::SubmissionRing);
            let detail = format_args!("tail-{name}-after-{before}");
            visit(
                Case::new("rings", detail, tail_moves, violation)
                    .with(args)
                    .modes(Modes::All),
            );
            let detail = format_args!("tail-{name}-after-{before}-and-exit");
            visit(Case::new("rings", detail, tail_moves_and_ends, violation).with(args));
        }
        for (name, by) in [
            ("ahead", 3),
            ("far-ahead", 1000),
            ("sign", 1 << 31),
            ("back", 0xFFFF_FFFE),
        ] {
            let detail = format_args!("head-{name}-after-{before}");
            let violation = End::Violation(Violated::CompletionRing);
            let case = Case::new("rings", detail, head_moves, violation).with([before, by, 0, 0]);
            visit(case.modes(Modes::All));
        }
    }
    let mut fine = |name, act, args| {
        let case = Case::new("rings", name, act, End::Exit(0)).with(args);
        visit(case.modes(Modes::All));
    };
    fine("replay-a-whole-ring", replay as crate::Act, [0; 4]);
    fine("flood-full", flood, [100, RING.into(), 0, 0]);
    fine("flood-odd", flood, [300, 17, 0, 0]);
    fine("flood-single", flood, [1000, 1, 0, 0]);
    fine("same-token", same_token, [0; 4]);
    fine("cancel-nothing", cancel_nothing, [0; 4]);
    fine("cancel-max", cancel_nothing, [u64::MAX, 0, 0, 0]);
    fine("cancel-no-slot", cancel_nothing, [u64::from(RING), 0, 0, 0]);
    fine("cancel-often", cancel_often, [0; 4]);
    fine("cancel-a-stranger", cancel_a_stranger, [0; 4]);
    fine("cancel-all", fill_and_cancel, [0; 4]);
    fine("cancel-and-reuse", reuse_at_once, [0; 4]);
    fine("cancel-what-is-done", cancel_what_is_done, [0; 4]);
    fine("scribble-zeroes", scribble, [0; 4]);
    fine("scribble-ones", scribble, [u64::MAX, 0, 0, 0]);
    fine("scribble-twos", scribble, [0x2222_2222_2222_2222, 0, 0, 0]);
    fine("exit-in-flight", end_in_flight, [0; 4]);
    for batch in [1, 13, RING] {
        let detail = format_args!("never-read-in-{batch}s");
        let case = Case::new(
            "rings",
            detail,
            never_read,
            End::Violation(Violated::TooManyInFlight),
        );
        visit(case.with([batch.into(), 0, 0, 0]).modes(Modes::All));
    }
    let case = Case::new(
        "rings",
        "too-many-in-flight",
        too_many_in_flight,
        End::Violation(Violated::TooManyInFlight),
    );
    visit(case.modes(Modes::All));
    for slot in [0, RING - 1] {
        let detail = format_args!("slot-{slot}-taken");
        let case = Case::new(
            "rings",
            detail,
            slot_taken,
            End::Violation(Violated::SlotTaken),
        );
        visit(case.with([slot.into(), 0, 0, 0]).modes(Modes::All));
    }
    // As an operation unknown, as a token slot 7.
    for (name, value) in [("small", 1 << 40 | 7), ("sign", 1 << 63 | 7)] {
        let detail = format_args!("full-of-{name}");
        let case = Case::new("rings", detail, ring_of, Status::Unsupported);
        visit(case.with([value, 0, 0, 0]).modes(Modes::All));
    }
    let case = Case::new(
        "rings",
        "full-of-ones",
        ring_of,
        End::Violation(Violated::NoSuchSlot),
    );
    visit(case.with([u64::MAX, 0, 0, 0]).modes(Modes::All));
    for (how, name, end) in [
        (1, "abort", End::Panic("")),
        (2, "fault", crate::Trap::Illegal.into()),
        (3, "violate", End::Violation(Violated::SubmissionRing)),
    ] {
        let detail = format_args!("{name}-in-flight");
        visit(
            Case::new("rings", detail, end_in_flight, end)
                .with([how, 0, 0, 0])
                .modes(Modes::All),
        );
    }
}
