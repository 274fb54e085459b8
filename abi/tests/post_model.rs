//! Loom's view of waking between processors: every interleaving, and every reordering that the memory model
//! allows, of the functions that a guest's processors call ([`wakebox_abi::wake`]).
//!
//! What others leave is one plain cell for each of them, so that a missing Release or Acquire shows as a data
//! race or as something that was left and not seen; a lost wake-up shows as a deadlock. As in `wake_model.rs`,
//! for each fence there is a test without it, and the searches are exhaustive up to three preemptions unless
//! `LOOM_MAX_PREEMPTIONS` says otherwise.

#[allow(dead_code, reason = "these models have no rings")]
#[path = "wake_model/memory.rs"]
mod memory;
#[allow(dead_code, reason = "these models have no data races")]
#[path = "wake_model/search.rs"]
mod search;

use std::rc::Rc;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::wake::{self, Sleep};

use memory::{Bell, Orders, Side, shared};
use search::{LOST_WAKE_UP, explore, refuses};

/// Where others leave what they have: a bit for each.
type Left = Rc<AtomicU32>;

/// What is done, and what is left out.
#[derive(Clone, Copy)]
struct Rules {
    sleepers_fence: bool,
    posters_fence: bool,
    /// The count is read before the look at what others have left.
    count_first: bool,
    /// The host looks at the count when it parks the processor.
    host_looks: bool,
}

const ALL: Rules = Rules {
    sleepers_fence: true,
    posters_fence: true,
    count_first: true,
    host_looks: true,
};

/// Another processor: leaves its bit and posts.
fn leave(target: &Side, left: &Left, bit: u32, nudge: &Bell) {
    // Relaxed: what orders it is the post.
    left.fetch_or(bit, Ordering::Relaxed);
    if wake::post(target) {
        nudge.ring();
    }
}

/// The processor: takes what others leave until it has all of `wanted`; when there is nothing, it looks `watch` times at
/// the count, announces a sleep and does what `park` does.
fn take(
    own: &Side,
    left: &Left,
    wanted: u32,
    watch: u32,
    rules: Rules,
    how: Sleep,
    park: impl Fn(),
) {
    let mut taken = 0;
    while taken != wanted {
        let look = || left.swap(0, Ordering::Relaxed);
        let (posts, more) = if rules.count_first {
            let posts = wake::posts(own);
            (posts, look())
        } else {
            let more = look();
            (wake::posts(own), more)
        };
        taken |= more;
        if more != 0 || (0..watch).any(|_| wake::posts(own) != posts) {
            continue;
        }
        if wake::guest_may_sleep_after(own, how, 0, posts) {
            park();
            wake::guest_is_awake(own);
        }
    }
}

fn side(full_fence: bool) -> Orders {
    Orders {
        full_fence,
        ..Orders::default()
    }
}

/// Mode `out`, or with `watch` mode `poll`: the processor parks, the host looks at the count and waits for a nudge.
fn out_model(rules: Rules, watch: u32, posters: u32) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (own, others) = shared(0, side(rules.sleepers_fence), side(rules.posters_fence));
        let (left, nudge) = (Left::new(AtomicU32::new(0)), Bell::new());
        let threads: Vec<_> = (0..posters)
            .map(|number| {
                let (target, left, nudge) = (others.clone(), left.clone(), nudge.clone());
                thread::spawn(move || leave(&target, &left, 1 << number, &nudge))
            })
            .collect();
        take(
            &own,
            &left,
            (1 << posters) - 1,
            watch,
            rules,
            Sleep::Out,
            || {
                if !(rules.host_looks && wake::guest_has_posts(&own)) {
                    nudge.wait();
                }
            },
        );
        threads.into_iter().for_each(|one| one.join().unwrap());
    }
}

/// Mode `irq`: the interrupt of a nudge may be spent in ring 3, before the halt; then the host's own look at the exit
/// is what keeps the processor from being parked.
fn irq_model(rules: Rules, posters: u32) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (own, others) = shared(0, side(rules.sleepers_fence), side(rules.posters_fence));
        let (left, line) = (Left::new(AtomicU32::new(0)), Bell::new());
        let threads: Vec<_> = (0..posters)
            .map(|number| {
                let (target, left, line) = (others.clone(), left.clone(), line.clone());
                thread::spawn(move || leave(&target, &left, 1 << number, &line))
            })
            .collect();
        take(
            &own,
            &left,
            (1 << posters) - 1,
            0,
            rules,
            Sleep::Halt,
            || {
                // Ring 3, interrupts on.
                line.take();
                // The stub in ring 0 looks at the tail, where nothing is; `hlt` leads to the host.
                assert_eq!(own.load(Word::CompletionTail, memory::RELAXED), 0);
                if !(rules.host_looks && wake::guest_has_posts(&own)) {
                    line.wait();
                }
            },
        );
        threads.into_iter().for_each(|one| one.join().unwrap());
    }
}

#[test]
fn a_post_wakes_a_processor_that_leaves() {
    explore(out_model(ALL, 0, 2));
}

#[test]
fn a_post_is_seen_by_a_processor_that_watches() {
    explore(out_model(ALL, 1, 2));
}

#[test]
fn a_post_wakes_a_processor_that_halts() {
    explore(irq_model(ALL, 2));
}

#[test]
fn without_the_sleepers_fence_a_post_is_lost() {
    let rules = Rules {
        sleepers_fence: false,
        host_looks: false,
        ..ALL
    };
    refuses(LOST_WAKE_UP, out_model(rules, 0, 1));
}

#[test]
fn without_the_posters_fence_a_post_is_lost() {
    let rules = Rules {
        posters_fence: false,
        host_looks: false,
        ..ALL
    };
    refuses(LOST_WAKE_UP, out_model(rules, 0, 1));
}

#[test]
fn with_the_count_read_after_the_look_a_post_is_lost() {
    let rules = Rules {
        count_first: false,
        ..ALL
    };
    refuses(LOST_WAKE_UP, out_model(rules, 0, 1));
}

#[test]
fn without_the_hosts_look_a_halting_processor_loses_a_post() {
    let rules = Rules {
        host_looks: false,
        ..ALL
    };
    refuses(LOST_WAKE_UP, irq_model(rules, 1));
}
