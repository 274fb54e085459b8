//! Hostile guests: each case of `tests/guests/hostile` ends as its table says, harms no neighbour, and
//! leaves nothing behind. `cargo xtask hostile NAME` runs a single one.

use std::collections::HashSet;

use wakebox::{Outcome, Sandbox, WakeMode};
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::layout;
use wakebox_abi::op::{self, Buf, Operation};
use wakebox_abi::status::Status;
use wakebox_hostile::GROUPS;
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{alone, hostile, kvm_test, run};

/// A machine that is slow runs every so many-th case of a group.
const EVERY: &str = "WAKEBOX_HOSTILE_EVERY";

/// Runs the cases of a group in a process of their own, and names all that went wrong.
fn group(name: &str) {
    let every = std::env::var(EVERY).map_or(1, |every| every.parse().expect(EVERY));
    alone!(name, || {
        let cases = hostile::cases(|case| case.name.group() == name);
        let cases: Vec<_> = cases.into_iter().step_by(every).collect();
        let report = hostile::run(&cases, |_, _| ());
        assert!(report.cases > 0, "there is no group `{name}`");
        assert!(
            report.failures.is_empty(),
            "{} of {} cases:\n{}",
            report.failures.len(),
            report.cases,
            report.failures.join("\n")
        );
    });
}

/// One test for each group.
macro_rules! groups {
    ($($name:ident)*) => {
        $(
            #[kvm_test]
            fn $name() {
                group(stringify!($name));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name),)*];
    };
}

groups! {
    processor memory ports words entries rings races handles calls embedder kept reports told traces state lies upcalls
    windows loops turns
}

#[test]
fn every_group_has_its_test() {
    let groups: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
    assert_eq!(groups, TESTED);
}

#[test]
fn every_case_has_a_name_of_its_own_and_can_be_found_by_it() {
    let cases = hostile::cases(|_| true);
    let names: HashSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() > 2_500, "there are {} cases", cases.len());
    for group in GROUPS {
        let mut of_group = cases.iter().filter(|case| case.name.group() == group.name);
        let last = of_group.next_back().expect("a group has cases");
        let found = wakebox_hostile::find(last.name.as_str()).expect("the case");
        assert_eq!(found.args, last.args);
    }
}

fn outcome_of(mode: WakeMode, parts: &[Vec<u8>]) -> Outcome {
    let guest = Elf::guest(&parts.concat()).to_bytes();
    run(Sandbox::builder().guest(guest).wake(mode)).outcome
}

/// The cases are granted what they abuse; this one is granted nothing.
#[kvm_test]
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
    let token = Token {
        slot: 0,
        generation: 1,
    };
    let entries: [Submission; 3] = [
        op::TcpConnect { address: buf }.submission(token),
        op::TcpListen {
            address: buf,
            backlog: 1,
        }
        .submission(token),
        op::UdpBind { address: buf }.submission(token),
    ];
    for entry in entries {
        for mode in WakeMode::ALL {
            let parts = [
                text(address),
                code::submit(&[entry]),
                code::wait(0),
                code::exit_with_status_of(0),
            ];
            let denied = Outcome::Exit(Status::PermissionDenied.code() as i32);
            assert_eq!(outcome_of(mode, &parts), denied, "{entry:?}");
        }
    }
}
