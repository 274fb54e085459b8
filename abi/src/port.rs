//! Doorbells: an `out` to a port is a verb, its operand means nothing.
//!
//! Arguments lie in shared memory, so the host serves a doorbell without reading a
//! register. A guest in ring 3 is allowed these ports and no other by the I/O
//! permission bitmap in its TSS (Intel SDM vol. 1, 19.5.2; AMD APM vol. 2, 12.2.4).

/// "There are submissions; go on with me meanwhile."
pub const SUBMIT: u16 = 0xB0;

/// "Nothing to do until a completion arrives": returns once there is one that the
/// guest has not seen.
pub const WAIT: u16 = 0xB1;

/// "I am done": the code is in [`crate::memory::Word::ExitCode`].
pub const EXIT: u16 = 0xB2;

/// "I panicked": the words are in the report page ([`crate::report`]).
pub const ABORT: u16 = 0xB3;

/// "Let another processor begin": the one whose number is in [`crate::memory::Word::Target`], at the address
/// that is in [`crate::memory::Word::StartEntry`] of its control page, with its stack pointer 64 bytes below the end
/// of its stack. There is one of that number, and it has not begun.
pub const START: u16 = 0xB4;

/// "I have left something for another processor, which sleeps, or computes": the one whose number is in
/// [`crate::memory::Word::Target`]. There is one of that number; if it has not begun, or is awake by itself, nothing
/// happens. "I wait for what another does", if it is the own one: others have their turn first, where processors take
/// turns.
pub const NUDGE: u16 = 0xB5;

/// "Let pages of my heap appear in a window, or no longer" ([`crate::window`]): which ones is in
/// [`crate::memory::Word::WindowPage`] and the two words behind it; it returns when it is done, and
/// [`crate::memory::Word::WindowAnswer`] says how.
pub const MAP: u16 = 0xB6;

/// Rung by the ring-0 exception stubs, never by the guest itself.
pub const FAULT: u16 = 0xBF;

/// The ports that ring 3 may use.
pub const ALLOWED: [u16; 7] = [SUBMIT, WAIT, EXIT, ABORT, START, NUDGE, MAP];

/// Interrupt vector that the host injects in wake mode `irq`.
pub const IRQ_VECTOR: u8 = 0x20;

/// Interrupt vector that the host injects for an upcall ([`crate::upcall`]).
pub const UPCALL_VECTOR: u8 = 0x21;

/// Rings a doorbell.
///
/// # Safety
///
/// The code runs as a Wakebox guest. For [`WAIT`] the caller has announced its
/// sleep ([`crate::wake`]), else it may sleep for ever.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn ring(port: u16) {
    // SAFETY: `out` touches no register or flag. The host may read and write shared
    // memory before it returns, so the default memory clobber stays on.
    unsafe {
        core::arch::asm!("out dx, al", in("dx") port, in("al") 0u8, options(nostack, preserves_flags));
    }
}

/// Enters ring 0 through `int3` and halts there until an interrupt, unless the
/// completion ring's tail already differs from `seen`.
///
/// # Safety
///
/// As for [`ring`] with [`WAIT`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn halt(seen: u32) {
    // SAFETY: the breakpoint stub reads `eax`, changes no register, and runs on its
    // own stack; the flags come back with `iretq`.
    unsafe {
        core::arch::asm!("int3", in("eax") seen, options(nostack));
    }
}
