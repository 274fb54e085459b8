//! A model of the threads that poll, for more of them and more sandboxes than a machine at hand can run.
//!
//! Of the real thing it has where sandboxes go ([`next`]), how many threads there are ([`threads_for`]), how long a ring is watched
//! ([`looks_a_visit`]), and what a step costs, which is measured on real rings ([`Costs::measured`]). The rest is a copy in words:
//! a thread visits the rings that it looks at by turns, a quiet one leaves the round after a while and costs nothing until its
//! guest rings, and a thread without a round sleeps.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use wakebox_abi::entry::Token;
use wakebox_abi::op::{self, Operation};

use super::{ARENA, Ends};
use crate::driver::pollers::{looks_a_visit, next, threads_for};
use crate::policy::Policy;

/// Nanoseconds of a thread.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// A turn in which there is nothing, and one with an operation.
    vain: u64,
    turn: u64,
    /// A look between two turns.
    look: u64,
    /// To go on to the next in the round, with a look at the reactor now and then.
    next: u64,
    /// To be woken, if it sleeps. Not measured here.
    wake: u64,
}

impl Costs {
    /// As they might be: what is said of the model with these holds on any machine.
    const FIXED: Self = Self {
        vain: 60,
        turn: 300,
        look: 30,
        next: 400,
        wake: 40_000,
    };

    /// What they are here.
    fn measured() -> Self {
        const ROUNDS: u32 = 20_000;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(4)
            .build()
            .unwrap();
        let _context = runtime.enter();
        let (memory, mut driver) = super::driver(ARENA as u64, &Policy::new());
        let mut ends = Ends::of(&memory);
        let each = |step: &mut dyn FnMut(u32)| {
            let began = Instant::now();
            (0..ROUNDS).for_each(step);
            began.elapsed().as_nanos() as u64 / u64::from(ROUNDS)
        };
        let vain = each(&mut |_| {
            let _ = black_box(driver.turn(None));
        });
        let turn = each(&mut |generation| {
            let token = Token {
                slot: 0,
                generation,
            };
            let _ = ends.submissions.push(op::Nop {}.submission(token));
            ends.submissions.publish();
            let _ = black_box(driver.turn(None));
            while let Ok(Some(_)) = ends.completions.pop() {}
            ends.completions.release();
        });
        let driver = Mutex::new(driver);
        let look = each(&mut |_| {
            black_box(driver.try_lock().unwrap().wants_turn());
        });
        // Two tasks, so that each goes on to the other.
        let began = Instant::now();
        let round = async || {
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
        };
        let both = async { tokio::join!(tokio::spawn(round()), tokio::spawn(round())) };
        let _ = runtime.block_on(both);
        let next = began.elapsed().as_nanos() as u64 / u64::from(2 * ROUNDS);
        Self {
            vain,
            turn,
            look,
            next,
            ..Self::FIXED
        }
    }
}

/// What guests do: bursts of operations, one after the other, and nothing in between.
const BURST: u32 = 20;
/// Nanoseconds from a completion to the next operation of a burst, from one burst to the next on an average, and those for which
/// a thread looks in vain.
const THINKS: u64 = 1_000;
const SLEEPS: u64 = 200_000_000;
const PATIENCE: u64 = 200_000;
/// Nanoseconds that are simulated.
const TIME: u64 = 400_000_000;

/// A sandbox that is looked at.
struct Busy {
    /// When it has its next operation in the ring, and how many follow.
    submits: u64,
    left: u32,
    active: u64,
}

/// What became of the operations of one thread, or of all.
#[derive(Default)]
struct Seen {
    /// How long each took, in nanoseconds.
    took: Vec<u64>,
    /// Nanoseconds in which threads did not sleep.
    awake: u64,
}

/// A random number that is the same each time: xorshift64*.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// When the next burst begins.
fn sleeps(from: u64, seed: &mut u64) -> u64 {
    from + random(seed) % (2 * SLEEPS)
}

/// One thread with so many sandboxes. `looks` says how often it looks at one of so many.
fn thread(costs: Costs, sandboxes: usize, looks: fn(usize) -> u32, seed: &mut u64) -> Seen {
    let mut asleep: BinaryHeap<_> = (0..sandboxes).map(|_| Reverse(sleeps(0, seed))).collect();
    let mut round: VecDeque<Busy> = VecDeque::new();
    let (mut seen, mut now) = (Seen::default(), 0);
    while now < TIME {
        while let Some(Reverse(at)) = asleep.peek().copied()
            && (at <= now || round.is_empty())
        {
            asleep.pop();
            if at > now {
                now = at + costs.wake;
            }
            round.push_back(Busy {
                submits: at,
                left: BURST,
                active: now,
            });
        }
        let looked_at = round.len();
        let Some(mut one) = round.pop_front() else {
            break;
        };
        let began = now;
        if one.left > 0 && one.submits <= now {
            now += costs.turn;
            seen.took.push(now - one.submits);
            one.left -= 1;
            one.submits = now + THINKS;
            one.active = now;
        } else {
            now += costs.vain;
        }
        // Watches for what comes next, and goes on when it has come.
        let watch = u64::from(looks(looked_at)) * costs.look;
        let comes = if one.left > 0 {
            one.submits.max(now)
        } else {
            u64::MAX
        };
        now = comes.min(now + watch) + costs.next;
        if one.left > 0 || now - one.active <= PATIENCE {
            round.push_back(one);
        } else {
            asleep.push(Reverse(sleeps(now, seed)));
        }
        seen.awake += now - began;
    }
    seen
}

/// So many threads with so many sandboxes, each of which was placed as in a process.
fn simulated(
    costs: Costs,
    threads: usize,
    sandboxes: usize,
    looks: fn(usize) -> u32,
) -> (u64, u64, f64) {
    let mut loads = vec![0; threads];
    for _ in 0..sandboxes {
        let thread = next(loads.iter().copied());
        loads[thread] += 1;
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut all = Seen::default();
    for load in loads {
        let seen = thread(costs, load, looks, &mut seed);
        all.took.extend(seen.took);
        all.awake += seen.awake;
    }
    all.took.sort_unstable();
    let of = |part: usize| all.took[(all.took.len() - 1) * part / 100];
    let awake = all.awake as f64 / (threads as u64 * TIME) as f64;
    (of(50), of(99), awake)
}

#[test]
fn sandboxes_that_sleep_cost_those_that_are_busy_nothing_however_many_they_are() {
    let (alone, _, _) = simulated(Costs::FIXED, 1, 10, looks_a_visit);
    // As many for each thread, and 64 times the threads.
    let (many, ..) = simulated(Costs::FIXED, 64, 640, looks_a_visit);
    assert!(many.abs_diff(alone) * 10 <= alone, "{alone} and {many} ns");
    // A hundred times the sandboxes on as many threads: what is busy at a time is about one in a thousand of them.
    let (crowd, ..) = simulated(Costs::FIXED, 64, 64_000, looks_a_visit);
    assert!(crowd < 5 * alone, "{alone} and {crowd} ns");
}

#[test]
fn with_more_threads_operations_wait_for_less() {
    let half = |threads| simulated(Costs::FIXED, threads, 20_000, looks_a_visit).0;
    let each = [1, 4, 16, 64].map(half);
    assert!(each.is_sorted_by(|more, less| more >= less), "{each:?}");
    // One alone has more to do than it can.
    assert!(each[0] > 10 * each[1], "{each:?}");
}

#[test]
fn a_round_is_about_as_long_however_many_are_looked_at() {
    // As many bursts at a time as would watch one after the other, each as long as if it were alone.
    let shared = simulated(Costs::FIXED, 1, 3_000, looks_a_visit);
    let each_alone = simulated(Costs::FIXED, 1, 3_000, |_| looks_a_visit(1));
    assert!(2 * shared.0 < each_alone.0, "{shared:?} and {each_alone:?}");
}

/// The table of docs/performance.md: `cargo test --release -p wakebox --lib model_of_pollers -- --nocapture --ignored`.
#[test]
#[ignore = "it prints, and takes its time"]
fn model_of_pollers() {
    let costs = Costs::measured();
    println!("{costs:?}");
    println!("| threads (processors) | sandboxes | half within | 99 of 100 within | of a thread |");
    for processors in [4, 16, 64, 256] {
        let threads = threads_for(processors);
        for sandboxes in [100, 1_000, 10_000, 100_000] {
            let (half, most, awake) = simulated(costs, threads, sandboxes, looks_a_visit);
            let us = |ns: u64| ns as f64 / 1e3;
            println!(
                "| {threads} ({processors}) | {sandboxes} | {:.1} us | {:.1} us | {:.1} % |",
                us(half),
                us(most),
                awake * 100.0
            );
        }
    }
}
