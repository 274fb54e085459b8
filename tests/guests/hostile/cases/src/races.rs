//! What the host reads changes while it reads it: another thread looks at the rings while the guest
//! runs, and the guest turns words over as fast as it can.
//!
//! Which of two values the host sees is chance; that it sees one of them and acts on that one alone
//! is not. The cases check that every operation ends once, with a status of either value.

use wakebox_abi::entry::{Entry, Submission, Token};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Buf, Operation, SocketAddress};
use wakebox_abi::status::Status;
use wakebox_abi::{layout, port};

use crate::case::{Args, Case, End, Modes, Violated};
use crate::guest::Guest;
use crate::machine;

const ROUNDS: u32 = 200;
/// Turns of a word before the guest rings, in case that nobody looks.
const TURNS: u32 = 400;

/// Publishes an entry of which one word turns between two values until it has completed.
fn turn(
    guest: &mut Guest,
    words: [u64; Submission::WORDS],
    word: usize,
    other: u64,
) -> (Token, Status) {
    let place = guest.submitted();
    let at = (layout::SUBMISSIONS + u64::from(place % Guest::RING) * 64) as *mut u64;
    guest.publish_quietly(words);
    for _ in 0..TURNS {
        // SAFETY: the place lies in the ring, which is mapped for ever.
        unsafe {
            at.add(word).write_volatile(other);
            at.add(word).write_volatile(words[word]);
        }
    }
    guest.ring_if_needed();
    let completion = guest.wait();
    (completion.token, completion.status)
}

/// Turns a word of an entry.
fn entry(guest: &mut Guest, [which, ..]: Args) {
    let room = |offset, len| op::Param::to_word(Buf { offset, len });
    let outside = room(machine::ARENA as u32, 64);
    for _ in 0..ROUNDS {
        let token = guest.token(2);
        let entropy = |into| {
            let entry = op::Entropy {
                into: Buf {
                    offset: 0x1000,
                    len: 64,
                },
            }
            .submission(token);
            let mut words = entry.to_words();
            words[2] = into;
            words
        };
        let good = entropy(room(0x1000, 64));
        let elsewhere = Token {
            slot: 3,
            generation: token.generation,
        };
        let (word, other, tokens, statuses) = match which {
            0 => (
                0,
                u64::from(op::Nop::OPCODE as u16),
                [token; 2],
                [Status::Ok; 2],
            ),
            1 => (0, 0xFFFF, [token; 2], [Status::Ok, Status::Unsupported]),
            2 => (0, 1 << 63, [token; 2], [Status::Ok, Status::Unsupported]),
            3 => (1, elsewhere.to_word(), [token, elsewhere], [Status::Ok; 2]),
            4 => (2, outside, [token; 2], [Status::Ok, Status::InvalidInput]),
            5 => (2, u64::MAX, [token; 2], [Status::Ok, Status::InvalidInput]),
            _ => (2, room(0x2000, 32), [token; 2], [Status::Ok; 2]),
        };
        let (ended, status) = turn(guest, good, word, other);
        assert!(tokens.contains(&ended), "{ended:?}");
        assert!(statuses.contains(&status), "{status}");
    }
    // Nothing but the two buffers was written to.
    for offset in (0..0x1000).chain(0x1040..0x2000).chain(0x2040..0x4000) {
        assert_eq!(guest.peek(offset), 0, "offset {offset:#x}");
    }
}

/// Turns the deadline of a timer, and the handle of a socket.
fn parameter(guest: &mut Guest, [which, ..]: Args) {
    let socket = crate::handles::Kind::Udp.open(guest);
    let into = Buf {
        offset: 0x1000,
        len: 24,
    };
    for _ in 0..ROUNDS {
        let token = guest.token(2);
        let (words, other, statuses) = match which {
            0 => {
                let entry = op::Deadline { at_ns: 0 }.submission(token);
                (entry.to_words(), 1_000, [Status::Ok; 2])
            }
            _ => {
                let end = op::End::Local;
                let entry = op::SocketName { socket, end, into }.submission(token);
                (entry.to_words(), 0x77, [Status::Ok, Status::BadHandle])
            }
        };
        let (ended, status) = turn(guest, words, 2, other);
        assert_eq!(ended, token);
        assert!(statuses.contains(&status), "{status}");
    }
}

/// Turns a byte of the arena while an operation that reads it is under way.
fn argument(guest: &mut Guest, [which, ..]: Args) {
    let socket = crate::handles::Kind::Udp.open(guest);
    let granted = SocketAddress(core::net::SocketAddr::from(([127, 0, 0, 1], 9)));
    for _ in 0..ROUNDS {
        let token = guest.token(2);
        let into = Buf {
            offset: 0x2000,
            len: 64,
        };
        // The entry, the byte that turns and its other value, and the statuses.
        let (entry, at, byte, statuses): (_, u32, u8, &[Status]) = match which {
            0 => {
                let path = guest.arena(0x1000, b"/data/file");
                let follow = op::Follow::Yes;
                let entry = op::StatPath { path, follow, into }.submission(token);
                // `/datX/file`: not granted, or not there.
                (
                    entry,
                    0x1004,
                    b'X',
                    &[Status::Ok, Status::PermissionDenied, Status::NotFound],
                )
            }
            1 => {
                let path = guest.arena(0x1000, b"/data/../data/file");
                let follow = op::Follow::Yes;
                let entry = op::StatPath { path, follow, into }.submission(token);
                let all: &[Status] = &[
                    Status::Ok,
                    Status::PermissionDenied,
                    Status::NotFound,
                    Status::InvalidInput,
                ];
                (entry, 0x1007, 0, all)
            }
            2 => {
                let from = guest.arena(0x1000, &[b'a'; 64]);
                let stream = op::Stream::Out;
                let entry = op::WriteConsole { stream, from }.submission(token);
                (entry, 0x1010, 0xFF, &[Status::Ok])
            }
            3 => {
                let from = guest.arena(0x1800, b"text");
                let to = guest.arena(0x1000, &granted.to_bytes());
                let entry = op::UdpSend { socket, from, to }.submission(token);
                // 9.0.0.1 is nobody's to reach.
                let all: &[Status] = &[
                    Status::Ok,
                    Status::PermissionDenied,
                    Status::ConnectionRefused,
                ];
                (entry, 0x1008, 9, all)
            }
            4 => {
                let function = guest.arena(0x1000, b"echo");
                let input = guest.arena(0x1800, b"\x03abc");
                let entry = op::CallHost {
                    form: op::CallForm::Plain,
                    function,
                    input,
                    into,
                }
                .submission(token);
                // The length of what follows.
                (entry, 0x1800, 0x7F, &[Status::Ok, Status::InvalidData])
            }
            _ => {
                let address = guest.arena(0x1000, b"127.0.0.1:1");
                let entry = op::TcpConnect { address }.submission(token);
                // 927.0.0.1 is a name, which may not be resolved.
                let all: &[Status] = &[
                    Status::ConnectionRefused,
                    Status::PermissionDenied,
                    Status::InvalidInput,
                ];
                (entry, 0x1000, b'9', all)
            }
        };
        let right = guest.peek(at);
        guest.publish_quietly(entry.to_words());
        for _ in 0..TURNS {
            guest.poke(at, byte);
            guest.poke(at, right);
        }
        guest.ring_if_needed();
        let completion = guest.wait();
        assert_eq!(completion.token, token);
        assert!(
            statuses.contains(&completion.status),
            "{}",
            completion.status
        );
    }
}

/// Turns the submission tail between what is and what cannot be, until somebody sees it.
fn tail(guest: &mut Guest, [wrong, ..]: Args) {
    loop {
        guest.set(Word::SubmissionTail, wrong as u32);
        guest.set(Word::SubmissionTail, 0);
    }
}

/// Turns the completion head while submitting, until somebody sees it.
fn head(guest: &mut Guest, [wrong, ..]: Args) {
    loop {
        let token = guest.token(0);
        guest.submit(&[op::Nop {}.submission(token)]);
        for _ in 0..TURNS {
            guest.set(Word::CompletionHead, wrong as u32);
            guest.set(Word::CompletionHead, guest.consumed());
        }
        guest.wait();
    }
}

/// Turns what it says of its sleep while operations complete.
fn sleep(guest: &mut Guest, _: Args) {
    for _ in 0..ROUNDS {
        let token = guest.token(0);
        guest.publish_quietly(op::Nop {}.submission(token).to_words());
        for how in 0..TURNS {
            guest.set(Word::Sleep, how % 5);
            guest.set(Word::Seen, how);
        }
        guest.ring_if_needed();
        assert_eq!(guest.wait().status, Status::Ok);
    }
}

/// Turns what the driver says of itself while it submits.
fn driver_polls(guest: &mut Guest, _: Args) {
    for _ in 0..ROUNDS {
        let token = guest.token(0);
        guest.publish_quietly(op::Nop {}.submission(token).to_words());
        for _ in 0..TURNS {
            guest.set(Word::DriverPolls, 1);
            guest.set(Word::DriverPolls, 0);
        }
        guest.ring(port::SUBMIT);
        assert_eq!(guest.wait().status, Status::Ok);
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let mut case = |name, act, which, end| {
        let case = Case::new("races", name, act, end).with([which, 0, 0, 0]);
        visit(case.modes(Modes::Exitless));
    };
    let fine = End::Exit(0);
    case("entry-operation", entry as crate::Act, 0, fine);
    case("entry-unknown-operation", entry, 1, fine);
    case("entry-reserved-bit", entry, 2, fine);
    case("entry-slot", entry, 3, fine);
    case("entry-buffer-outside", entry, 4, fine);
    case("entry-buffer-max", entry, 5, fine);
    case("entry-buffer-elsewhere", entry, 6, fine);
    case("deadline", parameter, 0, fine);
    case("handle", parameter, 1, fine);
    case("path", argument, 0, fine);
    case("path-with-nul", argument, 1, fine);
    case("console", argument, 2, fine);
    case("datagram-address", argument, 3, fine);
    case("call-input", argument, 4, fine);
    case("address", argument, 5, fine);
    case("sleep", sleep, 0, fine);
    case("driver-polls", driver_polls, 0, fine);
    for wrong in [65, 1 << 31, u64::from(u32::MAX)] {
        let name = format_args!("tail-{wrong:#x}");
        let violation = End::Violation(Violated::SubmissionRing);
        visit(
            Case::new("races", name, tail, violation)
                .with([wrong, 0, 0, 0])
                .modes(Modes::All),
        );
        let name = format_args!("head-{wrong:#x}");
        let violation = End::Violation(Violated::CompletionRing);
        let wrong = [wrong + 0x1000, 0, 0, 0];
        visit(
            Case::new("races", name, head, violation)
                .with(wrong)
                .modes(Modes::Exitless),
        );
    }
}
