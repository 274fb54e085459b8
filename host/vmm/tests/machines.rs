//! Machines that serve one guest after another, and memory that is frozen and reset.

mod common;

use std::sync::Arc;

use wakebox_abi::layout::PAGE_SIZE;
use wakebox_vmm::backing::Backing;
use wakebox_vmm::frozen::Frozen;
use wakebox_vmm::machines::Machines;
use wakebox_vmm::memory::GuestMemory;

use common::{content, plan};

/// Memory with something in its first, in some and in its last page.
fn written() -> Arc<GuestMemory> {
    let memory = GuestMemory::new(plan(4 << 20)).unwrap();
    let last = memory.plan().ram - 1;
    memory.write(0, b"first");
    memory.write(3 * PAGE_SIZE - 2, b"over the edge");
    memory.write(last, b"l");
    memory
}

#[test]
fn what_is_frozen_holds_all_and_takes_room_for_what_is_no_zero() {
    let memory = written();
    // A page that holds nothing was touched, too.
    memory.write(9 * PAGE_SIZE, &[0]);
    let frozen = memory.freeze().unwrap();
    assert_eq!(frozen.kept(), 4 * PAGE_SIZE);
    let copy = GuestMemory::on(&frozen.backing(), frozen.plan().clone()).unwrap();
    assert_eq!(content(&copy), content(&memory));
    // What is made of it is frozen with what it has written and what it has not.
    copy.write(5 * PAGE_SIZE, b"more");
    let again = copy.freeze().unwrap();
    let second = GuestMemory::on(&again.backing(), again.plan().clone()).unwrap();
    assert_eq!(content(&second), content(&copy));
    assert_ne!(content(&second), content(&memory));
    // The kernel may keep more than was written, but nothing lies elsewhere.
    let ranges = frozen.ranges().unwrap();
    let mut rest = content(&memory);
    for range in ranges {
        rest[range.offset as usize..(range.offset + range.len) as usize].fill(0);
    }
    assert!(rest.iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_sealed_cannot_be_written_any_more() {
    let mut frozen = Frozen::new(plan(4 << 20)).unwrap();
    frozen.write(0, &[1; PAGE_SIZE as usize]).unwrap();
    frozen.seal().unwrap();
    assert!(frozen.write(0, &[2; PAGE_SIZE as usize]).is_err());
}

#[test]
fn memory_is_reset_to_what_it_was_made_of_and_tells_how_much_differed() {
    let frozen = written().freeze().unwrap();
    let copy = GuestMemory::on(&frozen.backing(), frozen.plan().clone()).unwrap();
    let before = content(&copy);
    for at in [0, 7 * PAGE_SIZE, copy.plan().ram - PAGE_SIZE] {
        copy.write(at, &[9; PAGE_SIZE as usize]);
    }
    assert_eq!(copy.reset().unwrap(), 3 * PAGE_SIZE);
    assert_eq!(content(&copy), before);
    // Memory that was made of nothing else is not reset.
    assert!(written().reset().is_err());
}

#[test]
fn a_machine_serves_the_next_guest_and_nothing_of_the_former_is_in_its_memory() {
    let machines = Machines::new(2);
    let first = machines.take(&Backing::Anonymous, plan(4 << 20)).unwrap();
    let place = first.memory().host_range();
    first.memory().write(0, b"a secret");
    let kick = first.vcpu().kick().clone();
    drop(first);
    assert_eq!(machines.waiting(), 1);
    // One of another size is made anew.
    let other = machines.take(&Backing::Anonymous, plan(6 << 20)).unwrap();
    assert_eq!(machines.waiting(), 1);
    drop(other);
    let second = machines.take(&Backing::Anonymous, plan(4 << 20)).unwrap();
    assert_eq!(second.memory().host_range(), place, "it is the same");
    assert!(content(second.memory()).iter().all(|byte| *byte == 0));
    assert!(!Arc::ptr_eq(&kick, second.vcpu().kick()));
    // Of a template, where the former was of none.
    drop(second);
    let frozen = written().freeze().unwrap();
    let third = machines
        .take(&frozen.backing(), frozen.plan().clone())
        .unwrap();
    assert_eq!(third.memory().host_range(), place);
    assert_eq!(content(third.memory()), content(&written()));
    machines.clear();
    assert_eq!(machines.waiting(), 0);
}

#[test]
fn memory_that_somebody_else_still_has_and_a_machine_that_failed_are_not_used_again() {
    let machines = Machines::new(2);
    let first = machines.take(&Backing::Anonymous, plan(4 << 20)).unwrap();
    let held = first.memory().clone();
    drop(first);
    let second = machines.take(&Backing::Anonymous, plan(4 << 20)).unwrap();
    assert_ne!(second.memory().host_range(), held.host_range());
    drop((second, held));
    assert_eq!(machines.waiting(), 2);
    let mut third = machines.take(&Backing::Anonymous, plan(4 << 20)).unwrap();
    third.spoil();
    drop(third);
    assert_eq!(machines.waiting(), 1);
}

#[test]
fn no_more_wait_than_may_and_what_a_guest_wrote_is_kept_where_it_is_asked_for() {
    let machines = Machines::keeping(1, u64::MAX);
    let frozen = written().freeze().unwrap();
    let take = || {
        machines
            .take(&frozen.backing(), frozen.plan().clone())
            .unwrap()
    };
    let (one, two) = (take(), take());
    one.memory().write(0, &[9; PAGE_SIZE as usize]);
    drop(two);
    drop(one);
    assert_eq!(machines.waiting(), 1);
    machines.tidy_up();
    let next = take();
    assert_eq!(content(next.memory()), content(&written()));
}

#[test]
fn what_a_guest_wrote_is_written_again_when_it_has_ended_and_its_pages_stay() {
    let machines = Machines::new(1);
    let frozen = written().freeze().unwrap();
    let take = || {
        machines
            .take(&frozen.backing(), frozen.plan().clone())
            .unwrap()
    };
    // Pages in the middle, and the most and one more that are written again.
    for (pages, stay) in [(2, true), (64, true), (65, false)] {
        machines.clear();
        let one = take();
        one.memory().write(0, &vec![9; pages * PAGE_SIZE as usize]);
        drop(one);
        let next = take();
        assert_eq!(content(next.memory()), content(&written()), "{pages} pages");
        // What lies in a page of its own counts, also if it is what it was.
        let own = next.memory().reset().unwrap();
        assert_eq!(
            own == pages as u64 * PAGE_SIZE,
            stay,
            "{pages} pages: {own}"
        );
    }
    // One that somebody else still holds is given back at once, and not used again.
    machines.clear();
    let one = take();
    let held = one.memory().clone();
    held.write(0, &[9]);
    drop(one);
    assert_eq!(content(&held), content(&written()));
    let _next = take();
    assert_eq!(machines.waiting(), 1, "the machine of the one that is held");
}

#[test]
fn memory_may_have_a_trace_ring_that_what_it_was_made_of_had_not() {
    let frozen = written().freeze().unwrap();
    let plan = frozen.plan().with_trace(64).unwrap();
    let copy = GuestMemory::on(&frozen.backing(), plan.clone()).unwrap();
    let (all, before) = (content(&copy), content(&written()));
    assert!(all.len() > before.len() && all[..before.len()] == before);
    assert!(all[before.len()..].iter().all(|byte| *byte == 0));
    copy.write(plan.trace.offset, b"a record");
    let again = copy.freeze().unwrap();
    let second = GuestMemory::on(&again.backing(), again.plan().clone()).unwrap();
    assert!(content(&second) == content(&copy));
    // It is laid out as one that had it from the first.
    assert!(plan.with_trace(64).is_none());
    assert!(frozen.plan().with_trace(0).is_none());
}

#[test]
fn what_the_first_guests_of_a_template_write_is_there_for_the_next() {
    let frozen = written().freeze().unwrap();
    let guest = || GuestMemory::on(&frozen.backing(), frozen.plan().clone()).unwrap();
    let hot = [2 * PAGE_SIZE, 40 * PAGE_SIZE];
    for other in 60..63 {
        let first = guest();
        assert_eq!(first.reset().unwrap(), 0, "nothing is copied for the first");
        for page in hot.into_iter().chain([other * PAGE_SIZE]) {
            first.write(page, &[9]);
        }
        first.learn();
    }
    let next = guest();
    assert!(
        content(&next) == content(&written()),
        "it holds what the template does"
    );
    assert_eq!(
        next.reset().unwrap(),
        2 * PAGE_SIZE,
        "those that all have written"
    );
}
