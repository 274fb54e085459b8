//! Two stacks that take turns (System V ABI, AMD64 supplement, 3.2.1: six registers are the callee's).

use core::arch::naked_asm;

/// Bytes at the top of a stack before its code has begun.
pub(crate) const FIRST_FRAME: usize = 128;

/// What [`switch`] takes off a stack, in its order.
#[repr(C)]
struct Frame {
    r15: usize,
    r14: usize,
    r13: usize,
    r12: usize,
    rbx: usize,
    rbp: usize,
    return_to: usize,
    /// Two words, so that the stack is aligned where `begin` calls.
    end: [usize; 2],
}

/// Makes a stack so that the first switch to it calls `entry(argument)`; gives its stack pointer.
///
/// # Safety
///
/// The [`FIRST_FRAME`] bytes below `top`, which is aligned to 16, can be written and are nobody else's.
pub(crate) unsafe fn prepare(
    top: *mut u8,
    entry: extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> *mut u8 {
    let frame = Frame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: argument as usize,
        rbx: entry as usize,
        rbp: 0,
        return_to: begin as *const () as usize,
        end: [0; 2],
    };
    // SAFETY: the caller's; a frame is shorter than `FIRST_FRAME`, and aligned as `top` minus whole words.
    unsafe {
        let at = top.cast::<Frame>().sub(1);
        at.write(frame);
        at.cast()
    }
}

/// Leaves this stack for the one at `*other`, and its own stack pointer there.
///
/// # Safety
///
/// `*other` is from [`prepare`] or from a switch away from that stack, and is switched to once.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn switch(other: *mut *mut u8) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rax, [rdi]",
        "mov [rdi], rsp",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    );
}

/// The outermost function of a fiber: `rbx(r12)`, which does not return.
#[unsafe(naked)]
unsafe extern "C" fn begin() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, r12", "call rbx", "ud2");
}
