//! Guests of the tests, and what lies in their memory.

#![allow(dead_code, reason = "not each of the tests uses all of it")]

use std::time::Duration;

use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::{Pages, Plan, Sizes};
use wakebox_vmm::vcpu::Exit;
use wakebox_vmm::x86_64::paging::Rights;

/// Where a guest's code lies.
pub(crate) const START: u64 = layout::IMAGE_PIE_BASE;

/// Where a guest lies that is a page of code at [`START`] and has so much memory.
pub(crate) fn plan(memory: u64) -> Plan {
    let pages = Pages {
        start: START,
        len: PAGE_SIZE,
        rights: Rights::EXECUTE,
    };
    let sizes = Sizes {
        memory,
        arena: PAGE_SIZE,
        stack: PAGE_SIZE,
        in_flight: 64,
        instance: PAGE_SIZE,
        trace_records: 0,
        windows: 0,
        processors: 1,
    };
    Plan::new(&[pages], &sizes).unwrap()
}

/// What a memory holds.
pub(crate) fn content(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.plan().ram as usize];
    memory.read(0, &mut bytes);
    bytes
}

/// Enters the guest until it leaves by itself.
pub(crate) fn left(machine: &mut Machine) -> Exit {
    loop {
        match machine.vcpu_mut().enter(Duration::from_secs(1)).unwrap() {
            Exit::Interrupted(_) => {}
            exit => return exit,
        }
    }
}

/// `out PORT, al`.
pub(crate) fn ring(port: u16) -> [u8; 2] {
    [0xe6, port as u8]
}
