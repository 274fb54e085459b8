//! Every state of a driver over small rings of any content.
//!
//! The whole driver runs: queue, decoding, operations, the table of those in flight. Its memory is
//! [`Liar`], in which each read of the guest's words and entries gives any of the values that can
//! make a difference. From each state that differs, every turn is taken; the search ends when no
//! turn leads to a new state. Turns of two allowances are taken: one that is enough for all that there
//! is, and one that is spent by any operation.

use std::time::Duration;

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::op::{self, Buf, Handle, Operation};
use wakebox_abi::queue::Queue;
use wakebox_proofs::memory::{Geometry, Liar};
use wakebox_proofs::{Any, Choices, reach};

use super::{Bench, driver_over};
use crate::allowance::Quota;
use crate::driver::Ended;
use crate::policy::Policy;

const SLOTS: u32 = 2;

/// As much time as it takes, so that the search does not depend on the machine.
const ENOUGH: Quota = Quota {
    bytes: u64::MAX,
    time: Duration::MAX,
};
const ONE_OPERATION: Quota = Quota {
    bytes: 1,
    time: Duration::MAX,
};

/// Turns of one operation that do the work of one turn, at most: what was submitted and all rounds
/// over what is ready.
const PIECES: u32 = SLOTS + 8 * SLOTS + 1;

fn token(slot: u32, generation: u32) -> Token {
    Token { slot, generation }
}

/// Entries that differ in what the driver does with them.
fn forge(any: &mut Choices) -> [u64; Submission::WORDS] {
    use wakebox_abi::entry::Entry;

    let nowhere = Buf { offset: 0, len: 0 };
    let waits = op::NextCall { into: nowhere };
    let cancel = |target| op::Cancel { target }.submission(token(0, 0));
    let unknown = Submission {
        opcode: u16::MAX,
        deferrable: true,
        token: token(u32::MAX, 0),
        params: [u64::MAX; Submission::PARAMS],
    };
    let beyond = Buf {
        offset: u32::MAX,
        len: u32::MAX,
    };
    any.one_of(&[
        op::Nop {}.submission(token(0, 0)),
        Submission {
            deferrable: true,
            ..op::Nop {}.submission(token(1, 0))
        },
        waits.submission(token(0, 0)),
        waits.submission(token(0, 1)),
        waits.submission(token(1, 0)),
        waits.submission(token(SLOTS, 0)),
        cancel(token(0, 0)),
        cancel(token(1, 0)),
        cancel(token(u32::MAX, u32::MAX)),
        op::Close { handle: Handle(0) }.submission(token(1, 0)),
        op::Entropy { into: beyond }.submission(token(1, 0)),
        unknown,
    ])
    .to_words()
}

fn explore(sizes: &[(u32, u32)]) {
    for &(submissions, start) in sizes {
        for quota in [ENOUGH, ONE_OPERATION] {
            explore_turns(submissions, start, quota);
        }
    }
}

fn explore_turns(submissions: u32, start: u32, quota: Quota) {
    let policy = Policy::new();
    let bench = Bench::new(policy.clone());
    let geometry = Geometry {
        submissions,
        completions: SLOTS,
        start,
    };
    let reached = reach(|choices, turns| {
        let liar = Liar::new(std::mem::take(choices), geometry, forge);
        let queue = Queue::starting_at(liar.clone(), liar.submissions(), liar.completions(), start);
        let mut driver = driver_over(queue, bench.memory(), &policy);
        driver.quota = quota;
        let mut broken = false;
        let mut early = 0;
        for _ in 0..turns {
            let turn = driver.turn(None);
            broken = turn.is_err();
            let Ok(turn) = turn else {
                // It is said again, and nothing more is read.
                let reads = liar.reads();
                assert!(driver.turn(None).is_err());
                assert_eq!(liar.reads(), reads);
                break;
            };
            assert!(driver.in_flight() + liar.unread() <= SLOTS);
            // What is put off waits for something.
            assert!(driver.deferred() == 0 || driver.in_flight() > 0);
            // Who ends early has something left, says so, and does not do so for ever.
            assert_eq!(turn.ended == Ended::Spent, driver.is_unfinished());
            early = if turn.ended == Ended::Spent {
                early + 1
            } else {
                0
            };
            assert!(early <= PIECES && (early == 0 || quota == ONE_OPERATION));
            if quota == ONE_OPERATION {
                assert!(turn.submitted <= 1);
            }
        }
        let state = (
            liar.waiting(driver.taken()),
            liar.unread(),
            driver.inflight.tokens(),
            driver.is_unfinished(),
            driver.deferred(),
        );
        driver.close();
        drop(driver);
        *choices = liar.into_source();
        (!broken).then_some(state)
    });
    println!("driver, {submissions} and {SLOTS} slots from {start}, {quota:?}: {reached}");
    assert!(reached.states > 10, "{reached:?}");
}

#[test]
fn every_turn_of_the_driver_from_every_state_of_small_rings() {
    explore(&[(1, 0), (2, u32::MAX)]);
}

#[test]
#[ignore = "takes minutes without optimization: cargo xtask model"]
fn every_turn_of_the_driver_from_every_state_of_a_larger_ring() {
    explore(&[(4, 0), (4, u32::MAX)]);
}
