//! Where an upcall begins and ends: all that the interrupted code uses is kept on its own stack.
//!
//! ```text
//! what was interrupted
//! 128 bytes that it may use below its stack pointer (System V ABI, AMD64 supplement, 3.2.2)
//! where it goes on | flags | rax | fourteen registers
//! x87, SSE and AVX state, as XSAVE or FXSAVE writes it
//! the urgent executor
//! ```
//!
//! The way back is in ring 3: everything is popped, the mask is lifted, and `ret 128` steps over the red
//! zone. Between lifting the mask and that, another upcall may come; it finds three words on the stack,
//! so upcalls that come as fast as they can do not pile up frames.

use core::arch::naked_asm;
use core::arch::x86_64::{__cpuid, _xgetbv};
use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_abi::layout::CONTROL;
use wakebox_abi::memory::Word;

use super::serve;
use crate::mask;

/// State components by their bits in XCR0 (Intel SDM vol. 1, 13.1): x87, SSE, AVX, and the three parts of
/// AVX-512. What else there may be, such as tiles, a guest's compiler does not use unasked.
const COMPONENTS: u32 = 0b1110_0111;
const AVX512: u32 = 0b1110_0000;
/// Bytes of a save area up to AVX, in the one layout that all processors have.
const AREA: u32 = 832;
/// Bytes of one with AVX-512, whose place is the processor's to choose: the larger of those known, of
/// Intel's, and of AMD's 2,432. A template may go on on another processor than it began on.
const AREA_AVX512: u32 = 2_688;
/// What MXCSR is at the start of a program: all exceptions masked, rounding to nearest.
static MXCSR: u32 = 0x1f80;

/// The components that are saved; zero without XSAVE, for FXSAVE.
static SAVED: AtomicU32 = AtomicU32::new(0);
/// Bytes of the save area.
static AREA_SIZE: AtomicU32 = AtomicU32::new(AREA);

/// Finds out what there is to save.
pub(crate) fn prepare() {
    const OSXSAVE: u32 = 1 << 27;
    let has_xsave = __cpuid(1).ecx & OSXSAVE != 0;
    // SAFETY: the bit says that the instruction is there and switched on.
    let enabled = if has_xsave { unsafe { xcr0() } } else { 0 };
    let saved = enabled as u32 & COMPONENTS;
    let size = if saved & AVX512 == 0 {
        AREA
    } else {
        AREA_AVX512
    };
    AREA_SIZE.store(size, Ordering::Relaxed);
    SAVED.store(saved, Ordering::Relaxed);
}

/// # Safety
///
/// The processor has XSAVE switched on.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise; register zero is there then.
    unsafe { _xgetbv(0) }
}

/// Where upcalls go on.
#[inline(always)]
pub(crate) fn entry() -> usize {
    upcall as *const () as usize
}

/// The upcall. Entered by the ring-0 stub, with upcalls masked, between any two instructions.
///
/// # Safety
///
/// Not to be called: what it returns to is in the control page.
#[unsafe(naked)]
unsafe extern "C" fn upcall() {
    naked_asm!(
        // For backtraces: the caller's frame begins at rbp + 264, and goes on at any instruction.
        ".cfi_startproc",
        ".cfi_signal_frame",
        ".cfi_def_cfa rbp, 264",
        ".cfi_offset rip, -136",
        ".cfi_offset rbx, -176",
        ".cfi_offset rbp, -184",
        ".cfi_offset r12, -240",
        ".cfi_offset r13, -248",
        ".cfi_offset r14, -256",
        ".cfi_offset r15, -264",
        "lea rsp, [rsp - 128]",
        "push qword ptr [{interrupted}]",
        "pushfq",
        "push rax",
        "2:",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rbp, rsp",
        "mov ecx, dword ptr [rip + {size}]",
        "sub rsp, rcx",
        "and rsp, -64",
        "mov eax, dword ptr [rip + {saved}]",
        "test eax, eax",
        "jz 3f",
        // The header, of which XSAVE writes a part and XRSTOR looks at all.
        "xor edx, edx",
        "mov qword ptr [rsp + 512], rdx",
        "mov qword ptr [rsp + 520], rdx",
        "mov qword ptr [rsp + 528], rdx",
        "mov qword ptr [rsp + 536], rdx",
        "mov qword ptr [rsp + 544], rdx",
        "mov qword ptr [rsp + 552], rdx",
        "mov qword ptr [rsp + 560], rdx",
        "mov qword ptr [rsp + 568], rdx",
        "xsave64 [rsp]",
        "jmp 4f",
        "3:",
        "fxsave64 [rsp]",
        "4:",
        // As a function expects it.
        "fninit",
        "ldmxcsr dword ptr [rip + {mxcsr}]",
        "call {take}",
        "mov eax, dword ptr [rip + {saved}]",
        "test eax, eax",
        "jz 5f",
        "xor edx, edx",
        "xrstor64 [rsp]",
        "jmp 6f",
        "5:",
        "fxrstor64 [rsp]",
        "6:",
        "mov rsp, rbp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        // M3 to M5 of wakebox_abi::upcall.
        "lea rax, [rip + {upcall}]",
        "mov dword ptr [{word}], eax",
        "mov eax, dword ptr [rip + {noted}]",
        "cmp eax, dword ptr [{interrupts}]",
        "jne 7f",
        "pop rax",
        "popfq",
        "ret 128",
        "7:",
        "mov dword ptr [{word}], 0",
        "jmp 2b",
        ".cfi_endproc",
        interrupted = const CONTROL as i32 + Word::UpcallReturn.offset() as i32,
        word = const CONTROL as i32 + Word::Upcall.offset() as i32,
        interrupts = const CONTROL as i32 + Word::Interrupts.offset() as i32,
        size = sym AREA_SIZE,
        saved = sym SAVED,
        mxcsr = sym MXCSR,
        noted = sym mask::NOTED,
        upcall = sym upcall,
        take = sym take,
    );
}

/// What is done in an upcall.
extern "C" fn take() {
    serve(true);
}
