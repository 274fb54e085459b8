//! Instructions that are not for ring 3, or that the processor takes apart in odd ways.
//!
//! What hardware does is in the manuals (Intel SDM vol. 2 and 3A, AMD APM vol. 2 and 3); where
//! vendors differ, both are named. On KVM-PVM ring 3 is the host's own ring 3, so the processor
//! below shows through: what was seen there is written down as such.

use core::arch::{asm, global_asm};

use wakebox_abi::status::Status;
use wakebox_abi::{layout, op};

use crate::case::{Args, Case, End, Expect, Trap};
use crate::guest::Guest;

use End::Exit;
use Trap::{Divide, Illegal, Protection, Vector};

/// One case for each instruction; it need not keep any register that a call may change.
macro_rules! instructions {
    ($visit:ident; $($name:literal [$($asm:literal),* $(,)?] => $expect:expr;)*) => {$(
        $visit(Case::new(
            "processor",
            $name,
            // SAFETY: wrong on purpose: the machine must not let it do any harm. If it goes on, no
            // register is changed but those that a call may change.
            |_, _| unsafe { asm!($($asm),*, clobber_abi("sysv64")) },
            $expect,
        ));
    )*};
}

/// Bytes between two routines in the table below.
const INT_STRIDE: u64 = 4;

global_asm!(
    ".pushsection .text.hostile_ints,\"ax\",@progbits",
    ".globl hostile_ints",
    ".hidden hostile_ints",
    "hostile_ints:",
    ".set hostile_vector, 0",
    ".rept 256",
    "  .byte 0xCD, hostile_vector",
    "  ret",
    "  nop",
    "  .set hostile_vector, hostile_vector + 1",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "hostile_ints"]
    static INTS: [u8; 256 * INT_STRIDE as usize];
}

/// `int` of a vector. `eax` is no tail of the completion ring: the halt stub returns at once.
fn int(_: &mut Guest, [vector, ..]: Args) {
    let routine = (&raw const INTS) as u64 + vector * INT_STRIDE;
    // SAFETY: the routine raises its vector and returns.
    unsafe {
        asm!("call {}", in(reg) routine, in("eax") 1, clobber_abi("sysv64"));
    }
}

fn int_ends(vector: u64) -> Expect {
    match vector {
        // The way into the halt stub is open.
        3 => Exit(0).into(),
        // The host's gate for `into` is open to ring 3, and what comes through is passed on.
        4 => Expect::from(Protection).pvm(Vector(4)),
        // Seen to go on behind the instruction as if it had been none.
        0x1A => Expect::from(Protection).or_pvm(Illegal).or_pvm(Exit(0)),
        // Seen to be passed on as it is.
        0x17 | 0x19 => Expect::from(Protection).or_pvm(Illegal),
        // The protection fault goes to the emulator, which does not know the instruction.
        _ => Expect::from(Protection).pvm(Illegal),
    }
}

/// Loads a data segment register with a selector.
fn load_segment(_: &mut Guest, [selector, register, ..]: Args) {
    // SAFETY: in 64-bit mode no code depends on these registers.
    unsafe {
        match register {
            0 => asm!("mov ds, {0:x}", in(reg) selector),
            1 => asm!("mov es, {0:x}", in(reg) selector),
            2 => asm!("mov fs, {0:x}", in(reg) selector),
            3 => asm!("mov gs, {0:x}", in(reg) selector),
            _ => asm!("mov ss, {0:x}", in(reg) selector),
        }
    }
}

/// A far return to the next instruction, with a selector.
fn far_return(_: &mut Guest, [selector, ..]: Args) {
    // SAFETY: goes on behind it if the selector is that of the code segment.
    unsafe {
        asm!(
            "push {selector}",
            "lea {next}, [rip + 2f]",
            "push {next}",
            "retfq",
            "2:",
            selector = in(reg) selector,
            next = out(reg) _,
        );
    }
}

/// A far jump through memory to the next instruction, with a selector.
fn far_jump(_: &mut Guest, [selector, ..]: Args) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "push {selector}",
            "lea {next}, [rip + 2f]",
            "push {next}",
            "rex64 ljmp [rsp]",
            "2:",
            "add rsp, 16",
            selector = in(reg) selector,
            next = out(reg) _,
        );
    }
}

/// `iretq` to the next instruction, with selectors and flags.
fn interrupt_return(_: &mut Guest, [code, stack, set, ..]: Args) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "mov {old}, rsp",
            "push {stack}",
            "push {old}",
            "pushfq",
            "or [rsp], {set}",
            "push {code}",
            "lea {next}, [rip + 2f]",
            "push {next}",
            "iretq",
            "2:",
            "cld",
            stack = in(reg) stack,
            set = in(reg) set,
            code = in(reg) code,
            old = out(reg) _,
            next = out(reg) _,
        );
    }
}

/// Sets flags by `popf`, runs a few instructions, and has an operation done with them set.
fn set_flags(guest: &mut Guest, [set, ..]: Args) {
    // SAFETY: the direction flag is put back; no other flag matters to the code behind.
    unsafe {
        asm!("pushfq", "or [rsp], {}", "popfq", "nop", "nop", "cld", in(reg) set);
    }
    assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
}

/// Clears flags by `popf`, and has an operation done with them clear.
fn clear_flags(guest: &mut Guest, [clear, ..]: Args) {
    // SAFETY: as above.
    unsafe {
        asm!("pushfq", "and [rsp], {}", "popfq", "nop", in(reg) !clear);
    }
    assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
    assert_eq!(guest.call(op::Deadline { at_ns: 1_000_000 }).0, Status::Ok);
}

/// Disables interrupts, if it may, and has operations done.
fn no_interrupts(guest: &mut Guest, _: Args) {
    // SAFETY: interrupts change nothing that the code sees.
    unsafe { asm!("cli") };
    assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
    assert_eq!(guest.call(op::Deadline { at_ns: 1_000_000 }).0, Status::Ok);
}

/// `mov ss` holds interrupts and debug exceptions back for one instruction: it is followed by
/// something that enters ring 0, with the trap flag set.
fn held_back(_: &mut Guest, [what, ..]: Args) {
    // SAFETY: each is to be caught.
    unsafe {
        asm!(
            "mov {ss:x}, ss",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "cmp {what:e}, 1",
            "je 3f",
            "popfq",
            "mov ss, {ss:x}",
            "int3",
            "jmp 4f",
            "3: popfq",
            "mov ss, {ss:x}",
            "ud2",
            "4:",
            ss = out(reg) _,
            what = in(reg) what,
            in("eax") 1,
        );
    }
}

/// Sets every register to a value and does something that enters ring 0.
fn stack_to_nowhere(_: &mut Guest, [to, what, ..]: Args) {
    // SAFETY: never comes back.
    unsafe {
        match what {
            0 => asm!("mov rsp, {}", "ud2", in(reg) to),
            1 => asm!("mov rsp, {}", "push rax", "ud2", in(reg) to),
            2 => asm!("mov rsp, {}", "xor ecx, ecx", "div ecx", in(reg) to),
            3 => asm!("mov rsp, {}", "mov eax, 1", "int3", "ud2", in(reg) to),
            4 => asm!("mov rsp, {}", "call 2f", "2:", "ud2", in(reg) to),
            _ => asm!("mov rsp, {}", "cli", "hlt", in(reg) to),
        }
    }
}

/// Jumps to an address.
fn jump(_: &mut Guest, [to, ..]: Args) {
    // SAFETY: never comes back.
    unsafe { asm!("jmp {}", in(reg) to) };
}

/// Sets the trap flag and jumps to where an exception waits: one after another.
fn trap_and_fault(_: &mut Guest, _: Args) {
    // SAFETY: never comes back.
    unsafe {
        asm!(
            "xor ecx, ecx",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "div ecx",
            "ud2",
        );
    }
}

/// Executes the same bytes in a page that it has written itself.
fn execute(_: &mut Guest, [at, ..]: Args) {
    // SAFETY: the place is writable, and not executable.
    unsafe {
        (at as *mut u8).write_volatile(0xC3);
        asm!("call {}", in(reg) at, clobber_abi("sysv64"));
    }
}

/// The selectors of the descriptor table, and some that are not in it.
const SELECTORS: [(&str, u64); 10] = [
    ("ring0-code", 0x08),
    ("ring0-data", 0x10),
    ("ring3-data", 0x1B),
    ("ring3-code", 0x23),
    ("task", 0x28),
    ("task-high", 0x30),
    ("past-the-table", 0x3B),
    ("local-table", 0x1F),
    ("null", 0),
    ("last", 0xFFFF),
];

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for vector in 0..256 {
        let name = format_args!("int-{vector:#04x}");
        visit(Case::new("processor", name, int, int_ends(vector)).with([vector, 0, 0, 0]));
    }
    exceptions(visit);
    privileged(visit);
    system_calls(visit);
    virtualization(visit);
    informative(visit);
    encodings(visit);
    segments(visit);
    flags(visit);
    stacks(visit);
}

fn exceptions(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        "int3" ["mov eax, 1", "int3"] => Exit(0);
        "int1" [".byte 0xF1"] => Vector(1);
        "ud0" [".byte 0x0F, 0xFF, 0xC0"] => Illegal;
        "ud1" ["ud1 eax, eax"] => Illegal;
        "ud2" ["ud2"] => Illegal;
        "div-zero" ["xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx"] => Divide;
        "div-overflow" ["mov edx, 2", "mov ecx, 1", "div ecx"] => Divide;
        "idiv-overflow" ["mov rax, 1", "shl rax, 63", "cqo", "mov rcx, -1", "idiv rcx"] => Divide;
        "movaps-unaligned" ["movaps xmm0, [rsp + 1]"] => Protection;
        "cmpxchg16b-unaligned" ["mov r8, rbx", "lock cmpxchg16b [rsp + 8]", "lock cmpxchg16b [rsp]", "mov rbx, r8"] => Protection;
        // PVM's emulator does not know it.
        "ldmxcsr-reserved" ["push -1", "ldmxcsr [rsp]", "pop rax"] => Expect::from(Protection).or_pvm(Illegal).qemu(Exit(0));
        "x87-unmasked-divide" ["fninit", "push 0x37B", "fldcw [rsp]", "pop rax", "fld1", "fldz", "fdivp", "fwait", "fninit"] => Vector(16);
        "x87-stack-overflow" ["fninit", "push 0x37E", "fldcw [rsp]", "pop rax", "fld1", "fld1", "fld1", "fld1", "fld1", "fld1", "fld1", "fld1", "fld1", "fwait", "fninit"] => Expect::from(Vector(16)).qemu(Exit(0));
        "x87-stack-underflow" ["fninit", "push 0x37E", "fldcw [rsp]", "pop rax", "fstp st(0)", "fwait", "fninit"] => Expect::from(Vector(16)).qemu(Exit(0));
        "sse-unmasked-divide" ["push 0x1D80", "ldmxcsr [rsp]", "pop rax", "mov eax, 1", "cvtsi2ss xmm0, eax", "xorps xmm1, xmm1", "divss xmm0, xmm1"] => Expect::from(Vector(19)).qemu(Exit(0));
        "trap-flag" ["pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop"] => Vector(1);
    }
    visit(Case::new(
        "processor",
        "trap-flag-and-divide",
        trap_and_fault,
        Expect::from(Divide).or(Vector(1)),
    ));
    visit(Case::new("processor", "mov-ss-int3", held_back, Vector(1)).with([0, 0, 0, 0]));
    visit(Case::new("processor", "mov-ss-ud2", held_back, Illegal).with([1, 0, 0, 0]));
}

fn privileged(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        "hlt" ["hlt"] => Protection;
        // The I/O privilege level is 0, and 3 in QEMU's emulation.
        "sti" ["sti"] => Expect::from(Protection).qemu(Exit(0));
        "clts" ["clts"] => Protection;
        "invd" ["invd"] => Expect::from(Protection).qemu(Exit(0));
        "wbinvd" ["wbinvd"] => Expect::from(Protection).qemu(Exit(0));
        "wbnoinvd" ["wbnoinvd"] => Expect::from(Protection).qemu(Exit(0));
        "invlpg" ["invlpg [rsp]"] => Protection;
        "invpcid" ["xor eax, eax", "invpcid rax, [rsp]"] => Expect::from(Protection).or(Illegal);
        "lgdt" ["lgdt [rsp]"] => Protection;
        "lidt" ["lidt [rsp]"] => Protection;
        "lldt" ["xor eax, eax", "lldt ax"] => Protection;
        "ltr" ["mov eax, 0x28", "ltr ax"] => Protection;
        "lmsw" ["xor eax, eax", "lmsw ax"] => Protection;
        "mov-from-cr0" ["mov rax, cr0"] => Protection;
        "mov-from-cr2" ["mov rax, cr2"] => Protection;
        "mov-from-cr3" ["mov rax, cr3"] => Protection;
        "mov-from-cr4" ["mov rax, cr4"] => Protection;
        "mov-from-cr8" ["mov rax, cr8"] => Protection;
        "mov-from-cr1" [".byte 0x0F, 0x20, 0xC8"] => Expect::from(Illegal).or(Protection).or_pvm(Protection);
        "mov-to-cr0" ["xor eax, eax", "mov cr0, rax"] => Protection;
        "mov-to-cr2" ["xor eax, eax", "mov cr2, rax"] => Protection;
        "mov-to-cr3" ["xor eax, eax", "mov cr3, rax"] => Protection;
        "mov-to-cr4" ["xor eax, eax", "mov cr4, rax"] => Protection;
        "mov-to-cr8" ["xor eax, eax", "mov cr8, rax"] => Protection;
        "mov-from-dr0" ["mov rax, dr0"] => Protection;
        "mov-from-dr7" ["mov rax, dr7"] => Protection;
        "mov-to-dr0" ["xor eax, eax", "mov dr0, rax"] => Protection;
        "mov-to-dr7" ["xor eax, eax", "mov dr7, rax"] => Protection;
        "rdmsr-efer" ["mov ecx, 0xC0000080", "rdmsr"] => Protection;
        "rdmsr-fs-base" ["mov ecx, 0xC0000100", "rdmsr"] => Protection;
        "rdmsr-none" ["mov ecx, 0xFFFFFFFF", "rdmsr"] => Protection;
        "wrmsr-lstar" ["mov ecx, 0xC0000082", "xor eax, eax", "xor edx, edx", "wrmsr"] => Protection;
        "wrmsr-efer" ["mov ecx, 0xC0000080", "xor eax, eax", "xor edx, edx", "wrmsr"] => Protection;
        "wrmsr-apic-base" ["mov ecx, 0x1B", "xor eax, eax", "xor edx, edx", "wrmsr"] => Protection;
        "wrmsr-none" ["mov ecx, 0xFFFFFFFF", "xor eax, eax", "xor edx, edx", "wrmsr"] => Protection;
        "rdpmc" ["xor ecx, ecx", "rdpmc"] => Protection;
        "swapgs" ["swapgs"] => Protection;
        "xsetbv" ["xor ecx, ecx", "mov eax, 1", "xor edx, edx", "xsetbv"] => Protection;
        "xsaves" ["sub rsp, 4096", "and rsp, -64", "xor eax, eax", "xor edx, edx", "xsaves [rsp]"] => Expect::from(Protection).or(Illegal).qemu(Trap::Execute(0)).or_qemu(Illegal);
        "xrstors" ["sub rsp, 4096", "and rsp, -64", "xor eax, eax", "xor edx, edx", "xrstors [rsp]"] => Expect::from(Protection).or(Illegal).qemu(Trap::Execute(0));
        "clac" ["clac"] => Illegal;
        "stac" ["stac"] => Illegal;
        "monitor" ["lea rax, [rsp]", "xor ecx, ecx", "xor edx, edx", "monitor"] => Expect::from(Illegal).or_pvm(Protection);
        "mwait" ["xor eax, eax", "xor ecx, ecx", "mwait"] => Expect::from(Illegal).or_pvm(Protection);
        "rsm" ["rsm"] => Illegal;
        "getsec" ["xor eax, eax", "getsec"] => Expect::from(Illegal).or(Protection);
        "encls" [".byte 0x0F, 0x01, 0xCF"] => Expect::from(Illegal).or(Protection);
        "enclu" [".byte 0x0F, 0x01, 0xD7"] => Expect::from(Illegal).or(Protection);
        "pconfig" [".byte 0x0F, 0x01, 0xC5"] => Expect::from(Illegal).or(Protection);
        "tlbsync" [".byte 0x0F, 0x01, 0xFF"] => Expect::from(Illegal).or(Protection);
        "invlpgb" [".byte 0x0F, 0x01, 0xFE"] => Expect::from(Illegal).or(Protection);
    }
    let ends = Expect::from(Protection).qemu(Exit(0));
    visit(Case::new("processor", "cli", no_interrupts, ends).modes(crate::Modes::All));
}

fn system_calls(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        // PVM jumps to LSTAR, which is zero, without leaving ring 3.
        "syscall" ["mov eax, 39", "syscall"] => Expect::from(Illegal).pvm(Trap::Execute(0));
        "sysenter" ["mov eax, 20", "sysenter"] => Expect::from(Protection).or(Illegal);
        "sysexit" ["sysexit"] => Expect::from(Protection).or(Illegal);
        "sysret" ["lea rcx, [rip]", "sysret"] => Expect::from(Protection).or(Illegal);
        "sysretq" ["lea rcx, [rip]", ".byte 0x48, 0x0F, 0x07"] => Expect::from(Protection).or(Illegal);
    }
}

fn virtualization(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        "vmxon" [".byte 0xF3, 0x0F, 0xC7, 0x34, 0x24"] => Expect::from(Illegal).or(Protection).qemu(End::Anything);
        "vmxoff" ["vmxoff"] => Expect::from(Illegal).or(Protection);
        "vmlaunch" ["vmlaunch"] => Illegal;
        "vmresume" ["vmresume"] => Illegal;
        "vmread" ["vmread rax, rcx"] => Illegal;
        "vmwrite" ["vmwrite rax, rcx"] => Illegal;
        "vmclear" [".byte 0x66, 0x0F, 0xC7, 0x34, 0x24"] => Expect::from(Illegal).qemu(End::Anything);
        "vmptrld" ["vmptrld [rsp]"] => Expect::from(Illegal).qemu(End::Anything);
        "vmptrst" ["vmptrst [rsp]"] => Expect::from(Illegal).qemu(End::Anything);
        "vmfunc" ["xor eax, eax", "vmfunc"] => Illegal;
        "invept" ["xor eax, eax", "invept rax, [rsp]"] => Illegal;
        "invvpid" ["xor eax, eax", "invvpid rax, [rsp]"] => Illegal;
        "vmrun" ["vmrun"] => Expect::from(Illegal).or(Protection);
        "vmload" ["vmload"] => Expect::from(Illegal).or(Protection);
        "vmsave" ["vmsave"] => Expect::from(Illegal).or(Protection);
        "stgi" ["stgi"] => Expect::from(Illegal).or(Protection);
        "clgi" ["clgi"] => Expect::from(Illegal).or(Protection);
        "invlpga" ["invlpga"] => Expect::from(Illegal).or(Protection);
        "skinit" ["skinit"] => Expect::from(Illegal).or(Protection);
    }
}

fn informative(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        "cpuid" ["mov r8, rbx", "xor eax, eax", "cpuid", "mov eax, 0x40000000", "cpuid", "mov eax, -1", "mov ecx, -1", "cpuid", "mov rbx, r8"] => Exit(0);
        "rdtsc" ["rdtsc"] => Exit(0);
        "rdtscp" ["rdtscp"] => Expect::from(Exit(0)).or(Illegal);
        "rdpid" [".byte 0xF3, 0x0F, 0xC7, 0xF8"] => Expect::from(Exit(0)).or(Illegal);
        "rdrand" ["rdrand rax"] => Expect::from(Exit(0)).or(Illegal);
        "xgetbv" ["xor ecx, ecx", "xgetbv"] => Expect::from(Exit(0)).or(Illegal);
        "xgetbv-none" ["mov ecx, 77", "xgetbv"] => Expect::from(Protection).or(Illegal);
        // Refused where the processor has UMIP.
        "sgdt" ["sub rsp, 16", "sgdt [rsp]", "add rsp, 16"] => Expect::from(Protection).or(Exit(0));
        "sidt" ["sub rsp, 16", "sidt [rsp]", "add rsp, 16"] => Expect::from(Protection).or(Exit(0));
        "sldt" ["sldt ax"] => Expect::from(Protection).or(Exit(0));
        "str" ["str ax"] => Expect::from(Protection).or(Exit(0));
        "smsw" ["smsw ax"] => Expect::from(Protection).or(Exit(0));
        "lar" ["mov ecx, 0x08", "lar eax, ecx"] => Exit(0);
        "lsl" ["mov ecx, 0x28", "lsl eax, ecx"] => Exit(0);
        "verr" ["mov eax, 0x10", "verr ax"] => Exit(0);
        "verw" ["mov eax, 0x10", "verw ax"] => Exit(0);
        "rdfsbase" ["rdfsbase rax"] => Expect::from(Illegal).pvm(Exit(0));
        "wrgsbase" ["xor eax, eax", "wrgsbase rax"] => Expect::from(Illegal).pvm(Exit(0));
        "clflush" ["clflush [rsp]"] => Exit(0);
        "prefetch-nowhere" ["xor eax, eax", "prefetcht0 [rax]"] => Exit(0);
        "pause" ["pause"] => Exit(0);
        "xbegin" [".byte 0xC7, 0xF8, 0, 0, 0, 0"] => Expect::from(Exit(0)).or(Illegal);
        "xend" ["xend"] => Expect::from(Illegal).or(Protection);
    }
}

fn encodings(visit: &mut dyn FnMut(Case)) {
    instructions! { visit;
        "lock-nop" [".byte 0xF0, 0x90"] => Illegal;
        "lock-mov" [".byte 0xF0, 0x89, 0x04, 0x24"] => Illegal;
        // Fifteen prefixes make sixteen bytes.
        "too-long" [".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90"] => Protection;
        "into" [".byte 0xCE"] => Expect::from(Illegal).qemu(Exit(0));
        "aam" [".byte 0xD4, 0x00"] => Expect::from(Illegal).qemu(Divide);
        "aad" [".byte 0xD5, 0x00"] => Expect::from(Illegal).qemu(Exit(0));
        "daa" [".byte 0x27"] => Illegal;
        "aaa" [".byte 0x37"] => Illegal;
        "salc" [".byte 0xD6"] => Expect::from(Illegal).qemu(Exit(0));
        "pusha" [".byte 0x60"] => Illegal;
        "popa" [".byte 0x61"] => Illegal;
        "push-es" [".byte 0x06"] => Illegal;
        "pop-ss" [".byte 0x17"] => Illegal;
        "push-cs" [".byte 0x0E"] => Illegal;
        "far-call-immediate" [".byte 0x9A, 0, 0, 0, 0, 8, 0"] => Illegal;
        "far-jump-immediate" [".byte 0xEA, 0, 0, 0, 0, 8, 0"] => Illegal;
        "mov-cs" ["mov eax, 0x23", ".byte 0x8E, 0xC8"] => Expect::from(Illegal).qemu(Exit(0));
        "mov-segment-none" ["xor eax, eax", ".byte 0x8E, 0xF0"] => Expect::from(Illegal).qemu(Exit(0));
        "map-0f-04" [".byte 0x0F, 0x04"] => Illegal;
        "fxrstor-reserved" ["sub rsp, 520", "and rsp, -16", "fxsave [rsp]", "mov dword ptr [rsp + 24], -1", "fxrstor [rsp]"] => Expect::from(Protection).qemu(Trap::Execute(0));
        "fxsave-unaligned" ["mov r8, rsp", "sub rsp, 1024", "and rsp, -16", "fxsave [rsp + 1]", "mov rsp, r8"] => Expect::from(Protection).or(Exit(0));
    }
}

fn segments(visit: &mut dyn FnMut(Case)) {
    for (register, number) in [("ds", 0), ("es", 1), ("fs", 2), ("gs", 3), ("ss", 4)] {
        for (name, selector) in SELECTORS {
            // Null may be in all but the stack's; the stack's must be the writable one of ring 3.
            let fine = match (register, selector) {
                (_, 0x1B) => true,
                ("ss", _) => false,
                (_, 0x23 | 0) => true,
                _ => false,
            };
            let ends = if fine {
                Exit(0)
            } else {
                End::Fault(Protection)
            };
            let ends = match selector {
                // On PVM these are the host's own selectors of ring 3.
                0x28 | 0x30 if register != "ss" => Expect::from(ends).or_pvm(Exit(0)),
                _ => ends.into(),
            };
            let name = format_args!("mov-{register}-{name}");
            visit(Case::new("processor", name, load_segment, ends).with([selector, number, 0, 0]));
        }
    }
    for (name, selector) in SELECTORS {
        let only = |fine: u64| match selector == fine {
            true => Expect::from(Exit(0)),
            false => Expect::from(Protection),
        };
        let mut case = |way, act, ends, args| {
            let name = format_args!("{way}-{name}");
            visit(Case::new("processor", name, act, ends).with(args));
        };
        case(
            "far-return",
            far_return as crate::Act,
            only(0x23),
            [selector, 0, 0, 0],
        );
        let ends = match selector {
            // The emulator does not know what these are on the host.
            0x28 => only(0x23).or_pvm(Illegal),
            // Intel's processors read a 64-bit offset before the selector, AMD's do not. What is done
            // without the emulator finds 64-bit code of ring 3 there, in the host's own table.
            0x30 => only(0x23).or_pvm(Illegal).or_pvm(Exit(0)),
            _ => only(0x23),
        };
        case("far-jump", far_jump, ends, [selector, 0, 0, 0]);
        let ends = match selector {
            // Seen to be emulated, with nothing on the stack.
            0x1B => only(0x23).or_pvm(Trap::Execute(0)),
            _ => only(0x23),
        };
        case("iretq-code", interrupt_return, ends, [selector, 0x1B, 0, 0]);
        let ends = match selector {
            0x23 => only(0x1B).or_pvm(Exit(0)),
            0x28 | 0x30 => only(0x1B).or_pvm(Vector(12)).or_pvm(Exit(0)),
            _ => only(0x1B),
        };
        case(
            "iretq-stack",
            interrupt_return,
            ends,
            [0x23, selector, 0, 0],
        );
    }
}

fn flags(visit: &mut dyn FnMut(Case)) {
    // Bit and name (SDM vol. 1, 3.4.3).
    let set = [
        ("carry", 0),
        ("direction", 10),
        ("nested-task", 14),
        ("resume", 16),
        ("virtual-8086", 17),
        ("alignment", 18),
        ("virtual-interrupt", 19),
        ("virtual-pending", 20),
        ("id", 21),
        ("reserved-1", 3),
        ("reserved-2", 15),
        ("reserved-3", 63),
    ];
    for (name, bit) in set {
        let ends = match bit {
            // On PVM, CR0.AM is the host's: accesses are checked from here on.
            18 => Expect::from(Exit(0)).or_pvm(Vector(17)),
            _ => Exit(0).into(),
        };
        let mut case = |way, act, args| {
            let name = format_args!("{way}-{name}");
            visit(Case::new("processor", name, act, ends).with(args));
        };
        case("popf", set_flags as crate::Act, [1 << bit, 0, 0, 0]);
        case("iretq", interrupt_return, [0x23, 0x1B, 1 << bit, 0]);
    }
    for (name, bits) in [("interrupts", 1 << 9), ("privilege", 3 << 12), ("all", !2)] {
        let name = format_args!("popf-no-{name}");
        let case = Case::new("processor", name, clear_flags, Exit(0)).with([bits, 0, 0, 0]);
        visit(case.modes(crate::Modes::All));
    }
}

/// The first address of the upper half; below it none is canonical.
const UPPER_HALF: u64 = 0xFFFF_8000_0000_0000;

fn stacks(visit: &mut dyn FnMut(Case)) {
    let places = [
        ("null", 0),
        ("top", u64::MAX),
        ("not-canonical", 1 << 63 >> 8),
        ("below-the-upper-half", UPPER_HALF),
        ("supervisor", layout::SUPERVISOR + 0x1000),
        ("read-only", layout::BOOT + 8),
        ("nothing", 0x3000_0000),
    ];
    for (name, at) in places {
        let name = |what| Name2(what, name);
        let pushed = match at {
            // A stack access at an address that is not canonical is #SS.
            _ if at == 1 << 63 >> 8 || at == UPPER_HALF => {
                Expect::from(Vector(12)).qemu(Protection)
            }
            _ => Expect::from(Trap::Write(at.wrapping_sub(8))),
        };
        for (number, what, expect) in [
            (0, "ud2", Illegal.into()),
            (1, "push", pushed),
            (2, "divide", Divide.into()),
            (3, "int3", Illegal.into()),
            (4, "call", pushed),
            (5, "cli-hlt", Protection.into()),
        ] {
            let case = Case::new(
                "processor",
                format_args!("stack-{}", name(what)),
                stack_to_nowhere,
                expect,
            );
            visit(case.with([at, number, 0, 0]));
        }
    }
    let stubs = layout::SUPERVISOR + 0x1000;
    for (name, to) in [
        ("first-stub", stubs),
        ("halt-stub", stubs + 3 * 32),
        ("interrupt-stub", stubs + 32 * 32),
        ("descriptors", layout::SUPERVISOR),
        ("ring0-stack", layout::SUPERVISOR + 0x3000),
        ("double-fault-stack", layout::SUPERVISOR + 0x5000),
    ] {
        let case = Case::new(
            "processor",
            format_args!("jump-{name}"),
            jump,
            Trap::Execute(to),
        );
        visit(case.with([to, 0, 0, 0]));
    }
    visit(
        Case::new("processor", "jump-not-canonical", jump, Protection).with([
            1 << 63 >> 8,
            0,
            0,
            0,
        ]),
    );
    for (name, at) in [
        ("arena", layout::ARENA),
        ("heap", layout::HEAP),
        ("stack", layout::STACK),
        ("submissions", layout::SUBMISSIONS),
        ("completions", layout::COMPLETIONS),
        ("control", layout::CONTROL + 0x800),
        ("report", layout::REPORT),
    ] {
        let case = Case::new(
            "processor",
            format_args!("execute-written-{name}"),
            execute,
            Trap::Execute(at),
        );
        visit(case.with([at, 0, 0, 0]));
    }
}

/// Two words with a dash between.
struct Name2<'a>(&'a str, &'a str);

impl core::fmt::Display for Name2<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}
