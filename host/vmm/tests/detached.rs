//! Guests that give their machine away and go on in another.

mod common;

use std::sync::Arc;

use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::port;
use wakebox_vmm::backing::Backing;
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::machines::{Lent, Machines};
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::vcpu::Exit;

use common::{START, content, left, plan, ring};

/// What a guest may use, in bytes.
const MEMORY: u64 = 4 << 20;

/// Counts in RBX and in the first word of the heap, and waits, for ever.
fn counts() -> Vec<u8> {
    // inc rbx; mov rax, HEAP; add dword ptr [rax], 1; out WAIT, al; jmp to the beginning
    let count = [
        &[0x48, 0xff, 0xc3, 0x48, 0xb8][..],
        &layout::HEAP.to_le_bytes(),
        &[0x83, 0x00, 1],
    ];
    let once = [&count.concat()[..], &ring(port::WAIT)].concat();
    let back = -(once.len() as i8 + 2);
    [&once[..], &[0xeb, back.cast_unsigned()]].concat()
}

/// A guest that counts, in a machine of these.
fn counter(machines: &Machines, backing: &Backing) -> Lent {
    let mut guest = machines.take(backing, plan(MEMORY)).unwrap();
    guest.start(START, layout::STACK + PAGE_SIZE - 64).unwrap();
    let memory = guest.memory().clone();
    memory.write_tables();
    memory.write(memory.plan().image_offset(START), &counts());
    guest
}

/// What a guest has counted: in a register and in memory.
fn counted(guest: &Lent) -> (u64, u32) {
    let mut word = [0; 4];
    let memory = guest.memory();
    memory.read(memory.plan().heap.offset, &mut word);
    let registers = guest.vcpu().registers().unwrap();
    (registers.rbx, u32::from_le_bytes(word))
}

/// Backings on which guests are tried.
fn backings() -> [Backing; 2] {
    let memory = GuestMemory::new(plan(MEMORY)).unwrap();
    memory.write(7 * PAGE_SIZE, b"of a template");
    [Backing::Anonymous, memory.freeze().unwrap().backing()]
}

#[test]
fn guests_that_share_a_machine_go_on_where_each_slept() {
    for backing in backings() {
        let machines = Machines::new(1);
        let mut guests = Vec::new();
        for _ in 0..3 {
            let mut guest = counter(&machines, &backing);
            assert!(matches!(left(&mut guest), Exit::Wait));
            assert!(guest.detach().unwrap());
            assert!(guest.is_detached());
            assert_eq!((machines.lent(), machines.waiting()), (0, 1));
            guests.push(guest);
        }
        for round in 2..5 {
            // Each as often as it is its turn, and never another's count.
            for (number, guest) in (1..).zip(&mut guests) {
                for time in 0..number {
                    guest.attach().unwrap();
                    assert_eq!((machines.lent(), machines.waiting()), (1, 0));
                    assert!(matches!(left(guest), Exit::Wait));
                    let expected = 1 + (round - 2) * number + time + 1;
                    assert_eq!(counted(guest), (u64::from(expected), expected));
                    assert!(guest.detach().unwrap());
                }
            }
        }
    }
}

#[test]
fn nothing_of_a_guest_is_left_in_the_machine_that_it_gives_away() {
    for backing in backings() {
        let machines = Machines::new(1);
        let mut guest = counter(&machines, &backing);
        assert!(matches!(left(&mut guest), Exit::Wait));
        let before = content(guest.memory());
        guest.memory().write(9 * PAGE_SIZE, b"a secret");
        let whole = content(guest.memory());
        assert!(guest.detach().unwrap());
        let next = machines.take(&backing, plan(MEMORY)).unwrap();
        let fresh = GuestMemory::on(&backing, plan(MEMORY)).unwrap();
        assert!(content(next.memory()) == content(&fresh), "it is as new");
        // And nothing of what the next has written comes to it.
        next.memory().write(9 * PAGE_SIZE, b"another secret");
        next.memory().write(11 * PAGE_SIZE, b"and more");
        drop(next);
        guest.attach().unwrap();
        assert!(content(guest.memory()) == whole, "all of its own is there");
        assert!(whole != before);
    }
}

#[test]
fn who_uses_the_memory_of_a_guest_keeps_it_where_it_is() {
    let machines = Machines::new(1);
    let mut guest = counter(&machines, &Backing::Anonymous);
    assert!(matches!(left(&mut guest), Exit::Wait));
    let memory = guest.memory().clone();
    let stay = memory.stay().unwrap();
    assert!(!guest.detach().unwrap());
    assert_eq!(counted(&guest), (1, 1));
    drop(stay);
    assert!(guest.detach().unwrap());
    assert!(memory.stay().is_none(), "it lies nowhere");
    guest.attach().unwrap();
    assert!(memory.stay().is_some());
    assert!(matches!(left(&mut guest), Exit::Wait));
    assert_eq!(counted(&guest), (2, 2));
}

#[test]
fn the_control_page_can_be_looked_at_wherever_the_memory_is() {
    use wakebox_abi::memory::{Control, Word};
    let machines = Machines::new(1);
    let mut guest = counter(&machines, &Backing::Anonymous);
    let memory = guest.memory().clone();
    let code = || memory.control_page().word(Word::ExitCode);
    let control = memory.control();
    control.store(Word::ExitCode, 42, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(code(), 42);
    assert!(guest.detach().unwrap());
    assert_eq!(code(), 42);
    guest.attach().unwrap();
    control.store(Word::ExitCode, 43, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(code(), 43);
}

#[test]
fn a_guest_with_much_memory_of_its_own_keeps_its_machine() {
    for backing in backings() {
        let machines = Machines::new(1);
        let mut guest = counter(&machines, &backing);
        let heap = guest.memory().plan().heap;
        let much = vec![1; heap.len as usize];
        guest.memory().write(heap.offset, &much);
        assert!(!guest.detach().unwrap());
        assert!(!guest.is_detached());
        // Zeroes, or what was there before, take no room.
        let fresh = GuestMemory::on(&backing, plan(MEMORY)).unwrap();
        let mut bytes = vec![0; heap.len as usize / 4];
        fresh.read(heap.offset, &mut bytes);
        drop(guest);
        let mut guest = counter(&machines, &backing);
        guest.memory().write(heap.offset, &bytes);
        assert!(guest.detach().unwrap());
    }
}

#[test]
fn a_kick_finds_the_guest_and_not_the_machine_that_it_had() {
    let machines = Machines::new(1);
    let mut first = counter(&machines, &Backing::Anonymous);
    assert!(matches!(left(&mut first), Exit::Wait));
    let kick = first.vcpu().kick().clone();
    assert!(first.detach().unwrap());
    let mut second = counter(&machines, &Backing::Anonymous);
    kick.kick(Reasons::STOP);
    // It is for the first.
    assert!(matches!(
        second.vcpu_mut().enter(std::time::Duration::from_secs(5)),
        Ok(Exit::Wait)
    ));
    assert!(second.detach().unwrap());
    first.attach().unwrap();
    assert!(Arc::ptr_eq(&kick, first.vcpu().kick()));
    let exit = first.vcpu_mut().enter(std::time::Duration::from_secs(5));
    let Ok(Exit::Interrupted(reasons)) = exit else {
        panic!("{exit:?}");
    };
    assert!(reasons.has(Reasons::STOP));
    assert!(matches!(left(&mut first), Exit::Wait));
}

#[test]
fn how_long_a_guest_keeps_its_machine_depends_on_how_many_are_lent() {
    let machines = Machines::new(1);
    let take = || machines.take(&Backing::Anonymous, plan(MEMORY)).unwrap();
    let mut all = vec![take()];
    assert_eq!(machines.patience(), None);
    all.push(take());
    assert!(
        machines
            .patience()
            .is_some_and(|patience| !patience.is_zero())
    );
    all.extend(std::iter::repeat_with(take).take(3));
    assert!(
        machines
            .patience()
            .is_some_and(|patience| patience.is_zero())
    );
    assert_eq!(machines.lent(), 5);
    all.clear();
    assert_eq!((machines.lent(), machines.waiting()), (0, 1));
    // With none that wait, each has its own.
    let own = Machines::new(0);
    let _both = [(); 2].map(|()| own.take(&Backing::Anonymous, plan(MEMORY)).unwrap());
    assert_eq!(own.patience(), None);
}
