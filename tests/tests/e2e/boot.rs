//! The start, the rights of memory, and the ways to end, with guests of a few instructions.

use std::time::Duration;

use wakebox::{FaultKind, Limit, Outcome, Sandbox};
use wakebox_abi::layout;
use wakebox_abi::port;
use wakebox_tests::elf::{CODE, Elf, R, Segment, W, code};
use wakebox_tests::{ample, is_qemu, kvm_test, run};

/// Runs machine code, with a page of data behind it.
fn outcome_of(machine_code: &[u8]) -> Outcome {
    let mut elf = Elf::guest(machine_code);
    elf.segments.push(Segment::new(DATA, R | W, [0x90; 16]));
    elf.segments.push(Segment::new(CONSTANTS, R, [0x90; 16]));
    run(Sandbox::builder().guest(elf.to_bytes())).outcome
}

const DATA: u64 = CODE + 0x1_0000;
const CONSTANTS: u64 = CODE + 0x2_0000;

/// The fault that machine code ends with.
#[track_caller]
fn fault_of(machine_code: &[u8]) -> (FaultKind, Option<u64>) {
    match outcome_of(machine_code) {
        Outcome::Fault(fault) => (fault.kind, fault.address),
        other => panic!("expected a fault: {other}"),
    }
}

#[kvm_test]
fn the_first_instruction_is_that_at_the_entry() {
    let skipped = code::exit(1);
    let mut elf = Elf::guest(&[skipped.clone(), code::exit(42)].concat());
    elf.entry = CODE + skipped.len() as u64;
    let outcome = run(Sandbox::builder().guest(elf.to_bytes())).outcome;
    assert_eq!(outcome, Outcome::Exit(42));
}

#[kvm_test]
fn an_exit_code_has_thirty_two_bits() {
    for value in [0, 255, 256, -1, i32::MIN] {
        assert_eq!(outcome_of(&code::exit(value as u32)), Outcome::Exit(value));
    }
}

#[kvm_test]
fn privileged_instructions_are_faults() {
    const HLT: &[u8] = &[0xF4];
    const LIDT: &[u8] = &[0x0F, 0x01, 0x1C, 0x25, 0, 0, 0x10, 0];
    const MOV_CR3: &[u8] = &[0x0F, 0x22, 0xD8];
    const WRMSR: &[u8] = &[0x0F, 0x30];
    for instruction in [HLT, LIDT, MOV_CR3, WRMSR] {
        assert_eq!(fault_of(instruction), (FaultKind::GeneralProtection, None));
    }
}

#[kvm_test]
fn a_port_that_is_not_a_doorbell_is_a_fault() {
    for other in [
        0,
        0x20,
        0x60,
        port::SUBMIT - 1,
        port::MAP + 1,
        port::FAULT,
        0xCF8,
        0xFFFF,
    ] {
        match outcome_of(&code::out(other)) {
            Outcome::Violation(_) if is_qemu() => {}
            Outcome::Fault(fault) if !is_qemu() => {
                assert_eq!(fault.kind, FaultKind::GeneralProtection, "port {other:#x}");
            }
            end => panic!("port {other:#x}: {end}"),
        }
    }
}

#[kvm_test]
fn writing_what_is_read_only_is_a_fault() {
    let supervisor = layout::SUPERVISOR;
    for address in [
        0,
        8,
        CODE,
        CONSTANTS,
        layout::BOOT,
        layout::CLOCK,
        layout::INSTANCE,
        supervisor,
    ] {
        let kind = (FaultKind::PageWrite, Some(address));
        assert_eq!(fault_of(&code::store(address, 1)), kind, "{address:#x}");
    }
}

#[kvm_test]
fn reading_what_is_not_the_guests_is_a_fault() {
    let below_stack = layout::STACK - 8;
    let page_tables_are_nowhere = [layout::IMAGE_MIN, layout::IMAGE_MAX - 8];
    let places = [
        0,
        layout::SUPERVISOR,
        layout::SUPERVISOR + 0x1000,
        below_stack,
    ];
    for address in places.into_iter().chain(page_tables_are_nowhere) {
        let kind = (FaultKind::PageRead, Some(address));
        assert_eq!(fault_of(&code::load(address)), kind, "{address:#x}");
    }
}

#[kvm_test]
fn executing_what_is_data_is_a_fault() {
    for address in [
        0,
        DATA,
        CONSTANTS,
        layout::STACK,
        layout::ARENA,
        layout::HEAP,
        layout::CONTROL,
    ] {
        let kind = (FaultKind::PageExecute, Some(address));
        assert_eq!(fault_of(&code::jump(address)), kind, "{address:#x}");
    }
}

#[kvm_test]
fn exceptions_have_names() {
    assert_eq!(fault_of(&[0x0F, 0x0B]).0, FaultKind::IllegalInstruction);
    // `xor ecx, ecx; div ecx`.
    assert_eq!(
        fault_of(&[0x31, 0xC9, 0xF7, 0xF1]).0,
        FaultKind::DivideError
    );
    // `mov rsp, 0x8000000000000000; push rax`: not canonical.
    let not_canonical = [0x48, 0xBC, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x50];
    assert!(matches!(outcome_of(&not_canonical), Outcome::Fault(_)));
}

#[kvm_test]
fn a_fault_tells_the_instruction_and_the_place() {
    let Outcome::Fault(fault) = outcome_of(&[vec![0x90; 5], code::load(0)].concat()) else {
        panic!("expected a fault");
    };
    assert_eq!(fault.registers.rip, CODE + 5);
    let sentence = Outcome::Fault(fault).to_string();
    assert!(sentence.contains("null pointer"), "{sentence}");
}

#[kvm_test]
fn a_guest_that_never_ends_is_ended_by_its_time_limit() {
    let limit = Duration::from_millis(50);
    let guest = Elf::guest(&code::spin()).to_bytes();
    let ended = run(Sandbox::builder().guest(guest).timeout(limit));
    assert_eq!(ended.outcome, Outcome::Limit(Limit::WallClock(limit)));
}

#[kvm_test]
fn disabling_interrupts_is_a_fault() {
    const CLI: u8 = 0xFA;
    let limit = ample();
    let guest = Elf::guest(&[vec![CLI], code::spin()].concat()).to_bytes();
    match run(Sandbox::builder().guest(guest).timeout(limit)).outcome {
        Outcome::Fault(fault) => assert_eq!(fault.kind, FaultKind::GeneralProtection),
        // There `cli` is allowed, and hurts nobody.
        other if is_qemu() => assert_eq!(other, Outcome::Limit(Limit::WallClock(limit))),
        other => panic!("expected a fault: {other}"),
    }
}
