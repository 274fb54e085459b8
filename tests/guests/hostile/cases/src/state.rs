//! What a guest leaves in the processor and in memory, what the next one finds, and what it keeps
//! while the host runs.

use core::arch::asm;

use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::op;
use wakebox_abi::port;
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Modes};
use crate::guest::Guest;

/// Leaves x87 with another precision and rounding, and a full stack.
fn dirty_x87(guest: &mut Guest, _: Args) {
    // SAFETY: nothing here computes with x87.
    unsafe {
        asm!("fninit", "push 0x0C3F", "fldcw [rsp]", "pop rax", "fldpi", "fldpi", "fldpi", "fldl2e",
            "fldpi", "fldpi", "fldpi", "fldpi", out("rax") _);
    }
    assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
}

/// Leaves SSE flushing to zero and rounding up.
fn dirty_mxcsr(guest: &mut Guest, _: Args) {
    // SAFETY: nothing here computes with SSE's floats.
    unsafe { asm!("push 0xDFC0", "ldmxcsr [rsp]", "pop rax", out("rax") _) };
    assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
}

/// Whether the vector units beyond SSE are switched on.
fn has_avx() -> bool {
    let leaf = core::arch::x86_64::__cpuid(1);
    // AVX and OSXSAVE.
    leaf.ecx & (1 << 28 | 1 << 27) == 1 << 28 | 1 << 27
}

/// Leaves all registers full of ones, and leaves the machine right then.
fn dirty_registers(_: &mut Guest, [wide, ..]: Args) {
    // SAFETY: never comes back.
    unsafe {
        if wide == 1 && has_avx() {
            asm!(
                "vpcmpeqd xmm0, xmm0, xmm0",
                "vinsertf128 ymm0, ymm0, xmm0, 1",
                "vmovaps ymm1, ymm0",
                "vmovaps ymm2, ymm0",
                "vmovaps ymm7, ymm0",
                "vmovaps ymm15, ymm0",
            );
        }
        asm!(
            "pcmpeqd xmm3, xmm3", "pcmpeqd xmm4, xmm4", "pcmpeqd xmm8, xmm8", "pcmpeqd xmm14, xmm14",
            "mov rbx, -1", "mov rcx, -1", "mov rsi, -1", "mov rdi, -1", "mov rbp, -1", "mov r8, -1",
            "mov r9, -1", "mov r10, -1", "mov r11, -1", "mov r12, -1", "mov r13, -1", "mov r14, -1",
            "mov r15, -1",
            "mov dword ptr [{code}], 0",
            "out {exit}, al",
            "ud2",
            code = const layout::CONTROL + wakebox_abi::memory::Word::ExitCode as u64,
            exit = const port::EXIT,
            options(noreturn),
        );
    }
}

/// Leaves a pattern in all of the arena and the heap.
fn dirty_memory(guest: &mut Guest, _: Args) {
    for range in [guest.boot.arena, guest.boot.heap] {
        for at in (range.start..range.end()).step_by(512) {
            // SAFETY: both are the guest's, and nothing uses them.
            unsafe { (at as *mut u64).write_volatile(0x5EC2_E75E_C2E7) };
        }
    }
}

/// The control words that the processor starts with, and empty registers.
fn clean_floats(guest: &mut Guest, _: Args) {
    let saved = &guest.entered.legacy;
    let half = |at: usize| u16::from_le_bytes([saved[at], saved[at + 1]]);
    // SDM vol. 1, 10.5.1.1: FCW, FSW, abridged FTW, MXCSR.
    assert_eq!((half(0), half(2), saved[4]), (0x37F, 0, 0));
    assert_eq!((half(24), half(26)), (0x1F80, 0));
    for (at, byte) in saved[32..416].iter().enumerate() {
        assert_eq!(*byte, 0, "byte {at} of the registers");
    }
}

fn clean_registers(guest: &mut Guest, _: Args) {
    assert_eq!(guest.entered.registers, [0; 8]);
}

/// The upper halves of the vector registers, which no `fxsave` shows.
fn clean_wide(_: &mut Guest, _: Args) {
    if !has_avx() {
        return;
    }
    let mut any = 0_u64;
    // SAFETY: AVX is there.
    unsafe {
        asm!(
            "vextractf128 xmm0, ymm1, 1", "vextractf128 xmm3, ymm2, 1", "por xmm0, xmm3",
            "vextractf128 xmm3, ymm7, 1", "por xmm0, xmm3",
            "vextractf128 xmm3, ymm15, 1", "por xmm0, xmm3",
            "movq {any}, xmm0", "psrldq xmm0, 8", "movq {more}, xmm0", "or {any}, {more}",
            any = inout(reg) any, more = out(reg) _,
            out("xmm0") _, out("xmm3") _,
        );
    }
    assert_eq!(any, 0);
}

fn clean_memory(guest: &mut Guest, _: Args) {
    let stack = guest.boot.stack;
    let lower_half = wakebox_abi::boot::Range {
        start: stack.start,
        len: stack.len / 2,
    };
    let report = wakebox_abi::boot::Range {
        start: layout::REPORT,
        len: PAGE_SIZE,
    };
    for range in [guest.boot.arena, guest.boot.heap, lower_half, report] {
        for at in (range.start..range.end()).step_by(8) {
            // SAFETY: all are mapped for ever.
            let word = unsafe { (at as *const u64).read_volatile() };
            assert_eq!(word, 0, "address {at:#x}");
        }
    }
}

/// What the guest has in its registers is there when the host comes back, however it left.
fn keeps_registers(guest: &mut Guest, [how, ..]: Args) {
    let boot_mode = guest.boot.mode();
    core::hint::black_box(boot_mode);
    for round in 1..100_u64 {
        let (mut sse, mut x87) = (0_u64, 0_u64);
        // SAFETY: rings or halts, without anything in flight that could be waited for: `eax` is no
        // tail of the completion ring.
        unsafe {
            asm!(
                "movq xmm5, {value}",
                "movq xmm13, {value}",
                "fninit",
                "push {value}",
                "fild qword ptr [rsp]",
                "mov eax, -1",
                "test {how}, {how}",
                "jz 2f",
                "int3",
                "jmp 3f",
                "2: out {submit}, al",
                "3:",
                "fistp qword ptr [rsp]",
                "pop {x87}",
                "paddq xmm13, xmm5",
                "movq {sse}, xmm13",
                value = in(reg) round << 20,
                how = in(reg) how,
                sse = inout(reg) sse,
                x87 = inout(reg) x87,
                submit = const port::SUBMIT,
                out("rax") _,
                out("xmm5") _,
                out("xmm13") _,
            );
        }
        assert_eq!((sse, x87), (round << 21, round << 20));
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let mut case = |name, act, args| {
        let case = Case::new("state", name, act, End::Exit(0)).with(args);
        visit(case.modes(Modes::All));
    };
    for round in ["first", "second"] {
        let mut case = |name: &str, act, args| {
            case(crate::Name::new(format_args!("{name}-{round}")), act, args)
        };
        case("dirty-x87", dirty_x87 as crate::Act, [0; 4]);
        case("dirty-mxcsr", dirty_mxcsr, [0; 4]);
        case("clean-floats", clean_floats, [0; 4]);
        case("dirty-registers", dirty_registers, [0; 4]);
        case("dirty-wide-registers", dirty_registers, [1, 0, 0, 0]);
        case("clean-registers", clean_registers, [0; 4]);
        case("clean-wide-registers", clean_wide, [0; 4]);
        case("dirty-memory", dirty_memory, [0; 4]);
        case("clean-memory", clean_memory, [0; 4]);
    }
    case(
        crate::Name::new(format_args!("kept-over-a-doorbell")),
        keeps_registers,
        [0; 4],
    );
    case(
        crate::Name::new(format_args!("kept-over-a-halt")),
        keeps_registers,
        [1, 0, 0, 0],
    );
}
