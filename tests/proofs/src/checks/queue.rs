//! The host's ends of both rings, for any bytes in them.

use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::op::Opcode;
use wakebox_abi::queue::{MOST_DEFERRED, Queue};
use wakebox_abi::status::Status;

use crate::any::Any;
use crate::memory::{Geometry, Liar};

/// An operation or a cancellation. What else stands in an entry does not matter here.
fn forge<A: Any>(any: &mut A) -> [u64; Submission::WORDS] {
    let deferrable = 1 << 16;
    let nop = Opcode::Nop as u64;
    let head = any.one_of(&[nop, nop | deferrable, Opcode::Cancel as u64]);
    [head, 0, 0, 0, 0, 0, 0, 0]
}

/// All that a queue's future depends on, once a turn is over: its indices, each told from the
/// others, and how many operations are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    waiting: u32,
    unread: u32,
    in_flight: u32,
    deferred: u32,
}

/// Takes `turns` turns over rings of any content, with operations that end whenever the source
/// says. Returns the state after the last one, or `None` if the guest broke its rings before.
///
/// # Panics
///
/// If the host does what it must not: besides what [`Liar`] notices, if more operations are in
/// flight than were granted, if a turn reads more than twice as much as the rings can hold, or
/// anything overflows.
pub fn turns<A: Any>(liar: &Liar<A>, geometry: Geometry, turns: usize) -> Option<State> {
    let mut queue = Queue::starting_at(
        liar.clone(),
        liar.submissions(),
        liar.completions(),
        geometry.start,
    );
    let slots = geometry.completions;
    let mut in_flight = 0;
    for _ in 0..turns {
        let reads = liar.reads();
        turn(liar, &mut queue, &mut in_flight)?;
        let unread = liar.unread();
        assert!(
            in_flight + unread <= slots,
            "{in_flight} in flight and {unread} unread in {slots} slots"
        );
        // For each submission: the entry, the tail, and the head twice.
        assert!(liar.reads() - reads <= 4 + 4 * u64::from(slots));
    }
    Some(State {
        waiting: liar.waiting(queue.taken()),
        unread: liar.unread(),
        in_flight,
        deferred: queue.unpublished(),
    })
}

type HostQueue<A> = Queue<Liar<A>, crate::memory::Submissions<A>, crate::memory::Completions<A>>;

fn turn<A: Any>(liar: &Liar<A>, queue: &mut HostQueue<A>, in_flight: &mut u32) -> Option<()> {
    let completion = Completion {
        token: Token::from_word(0),
        status: Status::Ok,
        value: 0,
    };
    queue.begin(*in_flight).ok()?;
    while let Some(submission) = queue.take(*in_flight).ok()? {
        if submission.opcode == Opcode::Cancel as u16 {
            // Of an operation in flight, or of none.
            if *in_flight > 0 && liar.ask(Any::bool) {
                *in_flight -= 1;
                queue.complete(completion).ok()?;
            }
        } else if liar.ask(Any::bool) {
            match submission.deferrable {
                true => queue.defer(completion).ok()?,
                false => queue.complete(completion).ok()?,
            }
        } else {
            *in_flight += 1;
        }
    }
    for _ in 0..liar.ask(|any| any.below(*in_flight + 1)) {
        *in_flight -= 1;
        queue.complete(completion).ok()?;
    }
    queue.finish(*in_flight);
    // What is put off is bounded, and waits for something.
    let put_off = queue.unpublished();
    assert!(put_off == 0 || put_off < MOST_DEFERRED && *in_flight > 0);
    Some(())
}

/// Turns over rings of any content, of sizes and for as long as the source says.
pub fn the_rings_are_served_within_bounds<A: Any>(any: A) {
    let mut any = any;
    let geometry = Geometry {
        submissions: 1 << any.below(11),
        completions: 1 << any.below(19),
        start: any.u32(&[0, u32::MAX, u32::MAX - 100]),
    };
    let liar = Liar::new(any, geometry, forge);
    let mut rounds = 1;
    while liar.ask(|any| any.goes_on()) && rounds < 64 {
        rounds += 1;
    }
    turns(&liar, geometry, rounds);
}

/// Under Kani: two turns over rings of two slots.
#[cfg(kani)]
mod kani_proofs {
    use super::*;

    #[kani::proof]
    #[kani::unwind(7)]
    fn the_rings_are_served_within_bounds() {
        let geometry = Geometry {
            submissions: 2,
            completions: 2,
            start: kani::any(),
        };
        turns(&Liar::new(crate::Symbolic, geometry, forge), geometry, 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::any::{Bytes, Choices, Reached, reach};

    /// Every state that rings of these sizes can get into, and every turn from each.
    fn explore(submissions: u32, completions: u32, start: u32) -> Reached {
        let geometry = Geometry {
            submissions,
            completions,
            start,
        };
        reach(|choices, length| {
            let liar = Liar::new(std::mem::take(choices), geometry, forge::<Choices>);
            let state = turns(&liar, geometry, length);
            *choices = liar.into_source();
            state
        })
    }

    fn explore_all(sizes: &[(u32, u32)]) {
        for &(submissions, completions) in sizes {
            for start in [0, u32::MAX] {
                let reached = explore(submissions, completions, start);
                println!("rings, {submissions} and {completions} slots from {start}: {reached}");
                assert!(reached.states > 1, "{reached:?}");
            }
        }
    }

    #[test]
    fn every_turn_from_every_state_of_small_rings() {
        explore_all(&[(1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (2, 4)]);
    }

    #[test]
    #[ignore = "takes minutes without optimization: cargo xtask model"]
    fn every_turn_from_every_state_of_larger_rings() {
        explore_all(&[(4, 4), (8, 4)]);
    }

    proptest! {
        #[test]
        fn rings_of_full_size(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            the_rings_are_served_within_bounds(Bytes::new(&bytes));
        }
    }
}
