//! Upcalls on the real KVM: what is interrupted goes on elsewhere in ring 3, and finds its way back.

mod common;

use std::arch::global_asm;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wakebox_abi::layout::{self, CONTROL, PAGE_SIZE};
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::port;
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::vcpu::{End, Exit};

use common::{START, left, plan};

global_asm!(
    ".pushsection .rodata.wakebox_test_guests,\"a\",@progbits",
    ".balign 16",
    ".globl wakebox_test_upcall, wakebox_test_upcall_end",
    ".hidden wakebox_test_upcall, wakebox_test_upcall_end",
    // Names the upcall, rings, and ends with what the upcall has left in `ecx` as its exit code.
    "wakebox_test_upcall:",
    "  lea rax, [rip + 2f]",
    "  mov dword ptr [{upcall}], eax",
    "  mov qword ptr [rsp - 8], 40",
    "  mov ecx, 1",
    "  stc",
    "  out {submit}, al",
    "  adc rcx, qword ptr [rsp - 8]",
    "  mov dword ptr [{code}], ecx",
    "  out {exit}, al",
    // The upcall: leaves the red zone alone, and spoils what it has saved.
    "2:",
    "  lea rsp, [rsp - 128]",
    "  push qword ptr [{interrupted}]",
    "  pushfq",
    "  push rcx",
    "  xor ecx, ecx",
    "  out {wait}, al",
    "  pop rcx",
    "  popfq",
    "  ret 128",
    "wakebox_test_upcall_end:",
    ".balign 16",
    ".globl wakebox_test_liar, wakebox_test_liar_end",
    ".hidden wakebox_test_liar, wakebox_test_liar_end",
    // Wants upcalls, gets one, wants another, and halts in ring 0.
    "wakebox_test_liar:",
    "  lea rax, [rip + 2f]",
    "  mov dword ptr [{upcall}], eax",
    "  out {submit}, al",
    "  mov dword ptr [{upcall}], eax",
    "  xor eax, eax",
    "  int3",
    "  out {exit}, al",
    "2:",
    "  out {wait}, al",
    "  jmp qword ptr [{interrupted}]",
    "wakebox_test_liar_end:",
    ".popsection",
    upcall = const CONTROL as i32 + Word::Upcall.offset() as i32,
    interrupted = const CONTROL as i32 + Word::UpcallReturn.offset() as i32,
    code = const CONTROL as i32 + Word::ExitCode.offset() as i32,
    submit = const port::SUBMIT,
    wait = const port::WAIT,
    exit = const port::EXIT,
);

unsafe extern "C" {
    static wakebox_test_upcall: u8;
    static wakebox_test_upcall_end: u8;
    static wakebox_test_liar: u8;
    static wakebox_test_liar_end: u8;
}

/// The code between two symbols.
fn code(start: *const u8, end: *const u8) -> &'static [u8] {
    let len = end.addr() - start.addr();
    // SAFETY: the assembly above defines the code, read-only, with its end behind it.
    unsafe { slice::from_raw_parts(start, len) }
}

/// A machine that begins with this code, and its control page.
fn machine(code: &[u8]) -> (Machine, impl Control) {
    let memory: Arc<GuestMemory> = GuestMemory::new(plan(2 << 20)).unwrap();
    memory.write_tables();
    memory.write(memory.plan().image_offset(START), code);
    let mut machine = Machine::new(&memory).unwrap();
    machine
        .start(START, layout::STACK + PAGE_SIZE - 64)
        .unwrap();
    (machine, memory.control())
}

/// Injects an interrupt, which the guest can take.
fn interrupt(machine: &mut Machine) {
    machine.vcpu_mut().interrupt();
    assert!(machine.vcpu_mut().inject().unwrap());
}

fn word(control: &impl Control, word: Word) -> u32 {
    control.load(word, Ordering::Relaxed)
}

fn upcaller() -> (Machine, impl Control) {
    machine(code(
        &raw const wakebox_test_upcall,
        &raw const wakebox_test_upcall_end,
    ))
}

#[test]
fn an_upcall_comes_before_the_next_instruction_and_returns_to_it() {
    let (mut machine, control) = upcaller();
    assert!(matches!(left(&mut machine), Exit::Submit));
    interrupt(&mut machine);
    assert!(matches!(left(&mut machine), Exit::Wait));
    assert_eq!(word(&control, Word::Interrupts), 0);
    assert_eq!(word(&control, Word::Upcall), 0, "it begins masked");
    let interrupted = u64::from(word(&control, Word::UpcallReturn));
    assert!(
        (START..START + 64).contains(&interrupted),
        "{interrupted:#x}"
    );
    let exit = left(&mut machine);
    assert!(matches!(exit, Exit::End(End::Exit)), "{exit:?}");
    // The register, the carry and the red zone.
    assert_eq!(word(&control, Word::ExitCode), 42);
}

#[test]
fn a_masked_one_is_counted_and_changes_nothing() {
    let (mut machine, control) = upcaller();
    assert!(matches!(left(&mut machine), Exit::Submit));
    interrupt(&mut machine);
    assert!(matches!(left(&mut machine), Exit::Wait));
    interrupt(&mut machine);
    assert!(matches!(left(&mut machine), Exit::End(End::Exit)));
    assert_eq!(word(&control, Word::Interrupts), 1);
    assert_eq!(word(&control, Word::ExitCode), 42);
}

#[test]
fn nothing_is_redirected_in_ring_0() {
    let (mut machine, control) = machine(code(
        &raw const wakebox_test_liar,
        &raw const wakebox_test_liar_end,
    ));
    // From the first upcall on, KVM tells in which ring the guest is.
    assert!(matches!(left(&mut machine), Exit::Submit));
    interrupt(&mut machine);
    assert!(matches!(left(&mut machine), Exit::Wait));
    assert!(matches!(left(&mut machine), Exit::Halt));
    assert_ne!(word(&control, Word::Upcall), 0);
    interrupt(&mut machine);
    let exit = left(&mut machine);
    assert!(matches!(exit, Exit::End(End::Exit)), "{exit:?}");
    assert_eq!(word(&control, Word::Interrupts), 1);
}
