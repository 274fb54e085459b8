//! Loom's view of the wake protocol and of the rings: every interleaving, and every
//! reordering that the memory model allows, of the very functions that guest and host
//! call ([`wakebox_abi::wake`], [`wakebox_abi::ring`]).
//!
//! A lost wake-up shows as a deadlock: the sleeper waits for a bell that nobody will
//! ring. A missing Release or Acquire shows as a data race on an entry. For each fence
//! there is a test that runs the same model without it and expects loom to object, so
//! that a model which sees nothing is noticed.
//!
//! The searches are exhaustive up to a number of preemptions, three unless
//! `LOOM_MAX_PREEMPTIONS` says otherwise (`cargo xtask loom` asks for more).

#[path = "wake_model/memory.rs"]
mod memory;
#[path = "wake_model/search.rs"]
mod search;

use loom::thread;
use wakebox_abi::entry::{Completion, Submission, Token};
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::ring::{
    COMPLETION, CompletionConsumer, CompletionProducer, SUBMISSION, SubmissionConsumer,
    SubmissionProducer,
};
use wakebox_abi::status::Status;
use wakebox_abi::wake::{self, Sleep};

use memory::{Bell, Orders, RingSlots, Side, shared};
use search::{DATA_RACE, LOST_WAKE_UP, explore, refuses};

/// Entries of the modelled rings.
const SIZE: u32 = 2;

/// A completion that can be told from others in both of its words.
fn completion(number: u32) -> Completion {
    Completion {
        token: Token {
            slot: number,
            generation: !number,
        },
        status: Status::Ok,
        value: number,
    }
}

/// As [`completion`], in all eight words.
fn submission(number: u32) -> Submission {
    Submission {
        opcode: number as u16,
        deferrable: false,
        token: completion(number).token,
        params: [u64::from(number); Submission::PARAMS],
    }
}

/// The host's thread: publishes completions one by one, and wakes a guest that says
/// that it sleeps.
fn host_completes(control: &Side, slots: RingSlots<2>, count: u32, wake_guest: impl Fn()) {
    let mut ring = CompletionProducer::new(control.clone(), slots, COMPLETION);
    for number in 0..count {
        assert!(ring.push(completion(number)).unwrap());
        assert!(ring.publish());
        if wake::host_must_wake(control) {
            wake_guest();
        }
    }
}

/// The guest: consumes `count` completions; when there is none it looks `watch` times
/// more, announces a sleep and then does what `sleep` does, knowing what it has seen.
fn guest_consumes(
    control: &Side,
    slots: RingSlots<2>,
    count: u32,
    watch: u32,
    how: Sleep,
    sleep: impl Fn(u32),
) {
    let mut ring = CompletionConsumer::new(control.clone(), slots, COMPLETION);
    let mut expected = 0;
    while expected < count {
        if let Some(entry) = ring.pop().unwrap() {
            assert_eq!(entry, completion(expected), "torn, stale or out of order");
            expected += 1;
            continue;
        }
        ring.release();
        if (0..watch).any(|_| ring.has_news()) {
            continue;
        }
        if wake::guest_may_sleep(control, how, ring.taken()) {
            sleep(ring.taken());
            wake::guest_is_awake(control);
        }
    }
}

/// Which full fences are there.
#[derive(Clone, Copy)]
struct Fences {
    sleeper: bool,
    waker: bool,
}

const BOTH: Fences = Fences {
    sleeper: true,
    waker: true,
};
const NO_SLEEPER: Fences = Fences {
    sleeper: false,
    ..BOTH
};
const NO_WAKER: Fences = Fences {
    waker: false,
    ..BOTH
};

impl Fences {
    /// The orders of the sleeper's and of the waker's side.
    fn orders(self) -> (Orders, Orders) {
        let side = |full_fence| Orders {
            full_fence,
            ..Orders::default()
        };
        (side(self.sleeper), side(self.waker))
    }
}

/// Mode `out`, and with `watch` mode `poll`: the guest leaves with `out WAIT`, and
/// nothing but the host's wake brings it back.
fn out_model(fences: Fences, watch: u32, count: u32) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (guest_orders, host_orders) = fences.orders();
        let (guest, host) = shared(0, guest_orders, host_orders);
        let slots = RingSlots::new(SIZE);
        let exit = Bell::new();
        let host_thread = thread::spawn({
            let (slots, exit) = (slots.clone(), exit.clone());
            move || host_completes(&host, slots, count, || exit.ring())
        });
        guest_consumes(&guest, slots, count, watch, Sleep::Out, |_| exit.wait());
        host_thread.join().unwrap();
    }
}

/// What the halt stub does in ring 0.
#[derive(Clone, Copy, PartialEq)]
enum Stub {
    LooksOnce,
    /// A stub that halts on the word of ring 3 alone.
    Trusts,
}

/// Mode `irq`: the guest halts in ring 0 until an interrupt. The host's interrupt may
/// also be taken in ring 3, after the announcement and before the stub: then it is
/// spent, and only the stub's own look at the tail keeps the guest from halting.
fn irq_model(fences: Fences, stub: Stub, count: u32) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (guest_orders, host_orders) = fences.orders();
        let (guest, host) = shared(0, guest_orders, host_orders);
        let slots = RingSlots::new(SIZE);
        let line = Bell::new();
        let host_thread = thread::spawn({
            let (slots, line) = (slots.clone(), line.clone());
            move || host_completes(&host, slots, count, || line.ring())
        });
        guest_consumes(&guest, slots, count, 0, Sleep::Halt, |seen| {
            // Ring 3, interrupts on.
            line.take();
            // Ring 0 after `cli`: what is injected from here on stays pending.
            let tail = guest.load(Word::CompletionTail, memory::RELAXED);
            if stub == Stub::LooksOnce && tail != seen {
                return;
            }
            // `sti; hlt`: ends with a pending interrupt, or with the next one.
            line.wait();
        });
        host_thread.join().unwrap();
    }
}

/// The driver on its own thread takes `count` submissions and stops looking whenever
/// there is none; the guest publishes them one by one and rings when it has to.
fn doorbell_model(fences: Fences, watch: u32, count: u32) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (driver_orders, guest_orders) = fences.orders();
        let (guest, driver) = shared(0, guest_orders, driver_orders);
        let slots = RingSlots::new(SIZE);
        let doorbell = Bell::new();
        let guest_thread = thread::spawn({
            let (slots, doorbell) = (slots.clone(), doorbell.clone());
            move || {
                let mut ring = SubmissionProducer::new(guest.clone(), slots, SUBMISSION);
                for number in 0..count {
                    assert!(ring.push(submission(number)).unwrap());
                    assert!(ring.publish());
                    if wake::guest_must_ring(&guest) {
                        doorbell.ring();
                    }
                }
            }
        });
        let mut ring = SubmissionConsumer::new(driver.clone(), slots, SUBMISSION);
        wake::driver_polls(&driver);
        let mut expected = 0;
        while expected < count {
            if let Some(entry) = ring.pop().unwrap() {
                assert_eq!(entry, submission(expected), "torn, stale or out of order");
                expected += 1;
                continue;
            }
            if (0..watch).any(|_| ring.has_news()) {
                continue;
            }
            if wake::driver_may_sleep(&driver, ring.taken()) {
                doorbell.wait();
                wake::driver_polls(&driver);
            }
        }
        guest_thread.join().unwrap();
    }
}

/// Both pairs at once: the guest submits and sleeps, the driver sleeps until it is rung
/// for, completes, and wakes. Either may be the one that is too late.
fn round_trip() {
    let (guest, host) = shared(0, Orders::default(), Orders::default());
    let (submissions, completions) = (RingSlots::new(SIZE), RingSlots::new(SIZE));
    let (doorbell, exit) = (Bell::new(), Bell::new());
    let driver = thread::spawn({
        let (submissions, completions) = (submissions.clone(), completions.clone());
        let (doorbell, exit) = (doorbell.clone(), exit.clone());
        move || {
            let mut ring = SubmissionConsumer::new(host.clone(), submissions, SUBMISSION);
            wake::driver_polls(&host);
            while ring.pop().unwrap().is_none() {
                if wake::driver_may_sleep(&host, ring.taken()) {
                    doorbell.wait();
                    wake::driver_polls(&host);
                }
            }
            host_completes(&host, completions, 1, || exit.ring());
        }
    });
    let mut ring = SubmissionProducer::new(guest.clone(), submissions, SUBMISSION);
    assert!(ring.push(submission(0)).unwrap());
    ring.publish();
    if wake::guest_must_ring(&guest) {
        doorbell.ring();
    }
    guest_consumes(&guest, completions, 1, 1, Sleep::Out, |_| exit.wait());
    driver.join().unwrap();
}

/// Three entries through a ring of two, over the wrap-around of the 32-bit indices: the
/// third takes the place of the first. Who finds the ring full or empty lets the other run.
fn ring_model(producer: Orders, consumer: Orders) -> impl Fn() + Sync + Send + 'static {
    move || {
        let start = u32::MAX - 1;
        let (host, guest) = shared(start, producer, consumer);
        let slots = RingSlots::new(SIZE);
        let host_thread = thread::spawn({
            let slots = slots.clone();
            move || {
                let mut ring = CompletionProducer::starting_at(host, slots, COMPLETION, start);
                for number in 0..3 {
                    while !ring.push(completion(number)).unwrap() {
                        thread::yield_now();
                    }
                    assert!(ring.publish());
                }
            }
        });
        let mut ring = CompletionConsumer::starting_at(guest, slots, COMPLETION, start);
        for number in 0..3 {
            let entry = loop {
                match ring.pop().unwrap() {
                    Some(entry) => break entry,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(entry, completion(number), "torn, stale or out of order");
            assert!(ring.release());
        }
        assert_eq!(ring.pop(), Ok(None));
        host_thread.join().unwrap();
    }
}

const NO_ORDER: Orders = Orders {
    release_acquire: false,
    full_fence: true,
};

#[test]
fn out_loses_no_wake_up() {
    explore(out_model(BOTH, 0, 2));
}

#[test]
fn out_without_the_guests_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, out_model(NO_SLEEPER, 0, 1));
}

#[test]
fn out_without_the_hosts_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, out_model(NO_WAKER, 0, 1));
}

#[test]
fn poll_loses_no_wake_up() {
    explore(out_model(BOTH, 2, 2));
}

#[test]
fn poll_without_the_guests_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, out_model(NO_SLEEPER, 2, 1));
}

#[test]
fn poll_without_the_hosts_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, out_model(NO_WAKER, 2, 1));
}

#[test]
fn irq_loses_no_wake_up() {
    explore(irq_model(BOTH, Stub::LooksOnce, 2));
}

#[test]
fn irq_without_the_guests_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, irq_model(NO_SLEEPER, Stub::LooksOnce, 1));
}

#[test]
fn irq_without_the_hosts_fence_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, irq_model(NO_WAKER, Stub::LooksOnce, 1));
}

#[test]
fn irq_without_the_stubs_own_look_loses_a_wake_up() {
    refuses(LOST_WAKE_UP, irq_model(BOTH, Stub::Trusts, 1));
}

#[test]
fn the_doorbell_is_never_missed() {
    explore(doorbell_model(BOTH, 0, 2));
}

#[test]
fn the_doorbell_is_never_missed_by_a_driver_that_watches_first() {
    explore(doorbell_model(BOTH, 2, 2));
}

#[test]
fn without_the_drivers_fence_a_doorbell_is_missed() {
    refuses(LOST_WAKE_UP, doorbell_model(NO_SLEEPER, 0, 1));
}

#[test]
fn without_the_guests_fence_a_doorbell_is_missed() {
    refuses(LOST_WAKE_UP, doorbell_model(NO_WAKER, 0, 1));
}

#[test]
fn a_round_trip_ends_whoever_sleeps_first() {
    explore(round_trip);
}

#[test]
fn entries_arrive_whole_and_in_order_across_the_wrap_around() {
    explore(ring_model(Orders::default(), Orders::default()));
}

#[test]
fn without_the_producers_order_an_entry_is_torn() {
    refuses(DATA_RACE, ring_model(NO_ORDER, Orders::default()));
}

#[test]
fn without_the_consumers_order_an_entry_is_torn() {
    refuses(DATA_RACE, ring_model(Orders::default(), NO_ORDER));
}
