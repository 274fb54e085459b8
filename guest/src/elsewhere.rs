//! A guest that somebody starts as a program of Linux, with plain `cargo run` for instance, says what it
//! is instead of dying of the first address that is not there.

use core::arch::asm;

use wakebox_abi::layout;

const WORDS: &str = "\
wakebox: this program is a guest of Wakebox and runs in its micro-VM only: start it with `wakebox run FILE`\n";

/// Ends the program with a sentence if this is no machine of a Wakebox host.
///
/// A host has the stack below the arena; Linux gives a program one at the upper end of its addresses
/// (`STACK_TOP` in its sources, 128 TiB).
pub(crate) fn end_if_so() {
    let here = 0_u8;
    if ((&raw const here).addr() as u64) < layout::ARENA {
        return;
    }
    const WRITE: usize = 1;
    const EXIT_GROUP: usize = 231;
    // SAFETY: on Linux, these calls read the words and end the program.
    unsafe {
        call(WRITE, 2, WORDS.as_ptr().addr(), WORDS.len());
        call(EXIT_GROUP, 1, 0, 0);
    }
}

/// # Safety
///
/// This is a process of Linux, and the call and its arguments are sound (syscall(2)).
unsafe fn call(number: usize, first: usize, second: usize, third: usize) {
    // SAFETY: the kernel keeps all but these three registers; the rest is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inout("rax") number => _,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
}
