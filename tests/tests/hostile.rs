//! Guests that break the interface: each ends, or is told so, and nothing else happens.

use wakebox::{Outcome, Sandbox, WakeMode};
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Buf, Handle, Operation};
use wakebox_abi::status::Status;
use wakebox_abi::{layout, port};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::run;

fn outcome_of(mode: WakeMode, parts: &[Vec<u8>]) -> Outcome {
    let guest = Elf::guest(&parts.concat()).to_bytes();
    run(Sandbox::builder().guest(guest).wake(mode)).outcome
}

/// Runs it in every mode and expects a violation whose sentence contains `what`.
#[track_caller]
fn violates(what: &str, parts: &[Vec<u8>]) {
    for mode in WakeMode::ALL {
        match outcome_of(mode, parts) {
            Outcome::Violation(sentence) => {
                assert!(
                    sentence.contains(what),
                    "mode {mode}: expected `{what}` in: {sentence}"
                );
            }
            other => panic!("mode {mode}: expected a violation: {other}"),
        }
    }
}

fn token(slot: u32) -> Token {
    Token {
        slot,
        generation: 1,
    }
}

fn nop(slot: u32) -> Submission {
    op::Nop {}.submission(token(slot))
}

/// An operation that ends in half a millennium.
fn never(slot: u32) -> Submission {
    op::Deadline { at_ns: u64::MAX }.submission(token(slot))
}

/// The status with which an entry completes.
#[track_caller]
fn status_of(entry: Submission) -> Status {
    let parts = [
        code::submit(&[entry]),
        code::wait(0),
        code::exit_with_status_of(0),
    ];
    match outcome_of(WakeMode::Out, &parts) {
        Outcome::Exit(code) => Status::from_code(code as u32),
        other => panic!("expected a completion: {other}"),
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_well_behaved_one_is_served_in_every_mode() {
    for mode in WakeMode::ALL {
        let parts = [
            code::submit(&[nop(0)]),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        assert_eq!(outcome_of(mode, &parts), Outcome::Exit(0), "mode {mode}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_submission_tail_beyond_the_ring() {
    for tail in [layout::SUBMISSIONS_MAX + 1, u32::MAX, 1 << 31] {
        violates(
            "submission ring",
            &[
                code::set(Word::SubmissionTail, tail),
                code::out(port::SUBMIT),
                code::wait(0),
            ],
        );
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_submission_tail_that_goes_back() {
    violates(
        "submission ring",
        &[
            code::submit(&[nop(0), nop(1)]),
            code::wait(0),
            code::set(Word::SubmissionTail, 1),
            code::out(port::SUBMIT),
            code::wait(2),
        ],
    );
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn two_operations_in_one_slot() {
    violates(
        "slot 5",
        &[code::submit(&[never(5), never(5)]), code::wait(0)],
    );
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_slot_that_does_not_exist() {
    for slot in [layout::COMPLETIONS_MAX, u32::MAX] {
        violates(
            &format!("slot {slot}"),
            &[code::submit(&[never(slot)]), code::wait(0)],
        );
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn more_operations_in_flight_than_granted() {
    let flood: Vec<_> = (0..65).map(|slot| nop(slot % 64)).collect();
    // Two batches into a ring of 64, of whose completions none is consumed.
    let guest = Elf::guest(
        &[
            code::submit(&flood[..64]),
            code::out(port::SUBMIT),
            code::set(Word::SubmissionTail, 65),
            code::wait(64),
        ]
        .concat(),
    );
    for mode in WakeMode::ALL {
        let builder = Sandbox::builder()
            .guest(guest.to_bytes())
            .wake(mode)
            .in_flight(64);
        match run(builder).outcome {
            Outcome::Violation(sentence) => assert!(sentence.contains("64"), "{sentence}"),
            other => panic!("mode {mode}: expected a violation: {other}"),
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn waiting_for_nothing_is_a_deadlock_and_is_called_one() {
    for mode in WakeMode::ALL {
        assert_eq!(
            outcome_of(mode, &[code::wait(0)]),
            Outcome::Deadlock,
            "mode {mode}"
        );
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn an_unknown_operation_is_unsupported() {
    let first_unknown = (0..).find(|code| op::Opcode::from_code(*code).is_none());
    for opcode in first_unknown.into_iter().chain([0x7FFF, u16::MAX]) {
        let entry = Submission { opcode, ..nop(0) };
        assert_eq!(status_of(entry), Status::Unsupported, "opcode {opcode}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_buffer_outside_the_arena_is_invalid() {
    let outside = [
        Buf {
            offset: u32::MAX,
            len: 1,
        },
        Buf {
            offset: 0,
            len: u32::MAX,
        },
        Buf {
            offset: u32::MAX,
            len: u32::MAX,
        },
        Buf {
            offset: layout::ARENA_MAX as u32,
            len: 16,
        },
    ];
    for into in outside {
        for entry in [
            op::Entropy { into }.submission(token(0)),
            op::ReadClock { into }.submission(token(0)),
            op::ReadStdin { into }.submission(token(0)),
            op::TcpConnect { address: into }.submission(token(0)),
            op::WriteConsole {
                stream: op::Stream::Out,
                from: into,
            }
            .submission(token(0)),
        ] {
            assert_eq!(status_of(entry), Status::InvalidInput, "{entry:?}");
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_handle_that_was_never_given_out_is_bad() {
    let into = Buf { offset: 0, len: 64 };
    for number in [0, 1, 77, u32::MAX] {
        let handle = Handle(number);
        for entry in [
            op::Close { handle }.submission(token(0)),
            op::ReadStream {
                stream: handle,
                into,
            }
            .submission(token(0)),
            op::WriteStream {
                stream: handle,
                from: into,
            }
            .submission(token(0)),
            op::TcpAccept { listener: handle }.submission(token(0)),
            op::ShutdownStream {
                stream: handle,
                how: op::Shutdown::Both,
            }
            .submission(token(0)),
            op::SocketName {
                socket: handle,
                end: op::End::Local,
                into,
            }
            .submission(token(0)),
        ] {
            assert_eq!(status_of(entry), Status::BadHandle, "{entry:?}");
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn cancelling_what_is_not_in_flight_changes_nothing() {
    let cancel = |slot| {
        op::Cancel {
            target: token(slot),
        }
        .submission(token(slot + 100))
    };
    for mode in WakeMode::ALL {
        let parts = [
            code::submit(&[cancel(0), cancel(3), cancel(u32::MAX - 200), nop(1)]),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        assert_eq!(outcome_of(mode, &parts), Outcome::Exit(0), "mode {mode}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn a_deadline_that_is_cancelled_says_so() {
    for mode in WakeMode::ALL {
        let parts = [
            code::submit(&[
                op::Deadline { at_ns: u64::MAX }.submission(token(0)),
                op::Cancel { target: token(0) }.submission(token(1)),
            ]),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        let cancelled = Outcome::Exit(Status::Cancelled.code() as i32);
        assert_eq!(outcome_of(mode, &parts), cancelled, "mode {mode}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn nothing_can_be_reached_that_was_not_granted() {
    let address = b"127.0.0.1:80";
    let text = |address: &[u8]| -> Vec<u8> {
        let words = address.chunks(4).zip((layout::ARENA..).step_by(4));
        words
            .flat_map(|(chunk, at)| {
                let mut bytes = [0; 4];
                bytes[..chunk.len()].copy_from_slice(chunk);
                code::store(at, u32::from_le_bytes(bytes))
            })
            .collect()
    };
    let buf = Buf {
        offset: 0,
        len: address.len() as u32,
    };
    for entry in [
        op::TcpConnect { address: buf }.submission(token(0)),
        op::TcpListen {
            address: buf,
            backlog: 1,
        }
        .submission(token(0)),
    ] {
        let parts = [
            text(address),
            code::submit(&[entry]),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        let denied = Outcome::Exit(Status::PermissionDenied.code() as i32);
        assert_eq!(outcome_of(WakeMode::Out, &parts), denied, "{entry:?}");
    }
}
