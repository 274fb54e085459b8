//! The only code in ring 0: one stub for each vector, a few instructions long.
//!
//! On KVM-PVM a ring-0 instruction is emulated at about a microsecond, and many are
//! refused (SSE, `int3`, `popcnt`, ...): a stub is made of `cli`, `sti`, `hlt`, `push`, `pop`, `add`,
//! `cmp`, `jne`, `out` and `iretq`.
//!
//! An exception stub pushes its vector, rings [`port::FAULT`] and is not entered again.
//! The host finds on the ring-0 stack, from the stack pointer up:
//!
//! ```text
//! vector | error code (0 where there is none) | rip | cs | rflags | rsp | ss
//! ```

use std::arch::global_asm;

use wakebox_abi::layout::CONTROL;
use wakebox_abi::memory::Word;
use wakebox_abi::port;

use super::stubs_at;

/// Bytes between two stubs.
const STRIDE: usize = 32;
/// Stubs in the page: exceptions, the interrupt, and the upcall.
const COUNT: usize = 34;

global_asm!(
    ".pushsection .rodata.wakebox_stubs,\"a\",@progbits",
    ".balign 32",
    ".globl wakebox_stubs, wakebox_stubs_end",
    ".hidden wakebox_stubs, wakebox_stubs_end",
    "wakebox_stubs:",
    ".set vector, 0",
    ".rept 32",
    "  .balign 32",
    "  .if vector == 3",
    // The way into ring 0 to halt (wakebox_abi::port::halt): `eax` is the completion tail
    // that the guest has seen. With interrupts off, look once more; `sti` takes effect
    // after `hlt` has begun, so an interrupt cannot slip in between and be missed.
    "    cli",
    "    cmp dword ptr [{tail}], eax",
    "    jne 2f",
    "    sti",
    "    hlt",
    "  2: iretq",
    "  .else",
    // Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code by themselves.
    "    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    "    .else",
    "      push 0",
    "    .endif",
    "    push vector",
    "    out {fault}, al",
    "  3: hlt",
    "    jmp 3b",
    "  .endif",
    "  .set vector, vector + 1",
    ".endr",
    ".balign 32",
    // The injected interrupt: mark and return. Whoever was halted goes on.
    "  add dword ptr [{interrupts}], 1",
    "  iretq",
    ".balign 32",
    // The upcall (wakebox_abi::upcall): what was interrupted is kept, and what the host has named
    // takes its place in the frame. The host injects it into ring 3 only. Another processor of the
    // guest may write another address there meanwhile, of all 64 bits: `iretq` goes there in ring 3, or
    // faults if nothing can be there, and the guest has ended by a fault.
    "  pop qword ptr [{interrupted}]",
    "  push qword ptr [{target}]",
    "  iretq",
    ".balign 32",
    "wakebox_stubs_end:",
    ".popsection",
    tail = const CONTROL as i32 + Word::CompletionTail.offset() as i32,
    interrupts = const CONTROL as i32 + Word::Interrupts.offset() as i32,
    interrupted = const CONTROL as i32 + Word::UpcallReturn.offset() as i32,
    target = const CONTROL as i32 + Word::UpcallTarget.offset() as i32,
    fault = const port::FAULT,
);

unsafe extern "C" {
    #[link_name = "wakebox_stubs"]
    static START: [u8; STRIDE * COUNT];
}

/// The stubs, as they are copied into the guest.
pub(crate) fn code() -> &'static [u8] {
    // SAFETY: the assembly above defines this symbol in read-only data, `COUNT` stubs of
    // `STRIDE` bytes each, which the test below checks.
    unsafe { &START }
}

/// Virtual address of a vector's stub in the guest.
pub(crate) const fn address(vector: usize) -> u64 {
    stubs_at() + (vector * STRIDE) as u64
}

/// Whose stub a byte of the code belongs to.
pub(crate) fn name(at: usize) -> String {
    format!("the stub of vector {}", at / STRIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        #[link_name = "wakebox_stubs_end"]
        static END: u8;
    }

    #[test]
    fn there_are_as_many_stubs_as_vectors() {
        let end = &raw const END;
        assert_eq!(end as usize - code().as_ptr() as usize, STRIDE * COUNT);
    }

    #[test]
    fn an_exception_stub_pushes_its_vector_and_rings() {
        let stub = |vector: usize| &code()[vector * STRIDE..(vector + 1) * STRIDE];
        assert_eq!(stub(0)[..6], [0x6a, 0, 0x6a, 0, 0xe6, port::FAULT as u8]);
        assert_eq!(stub(14)[..4], [0x6a, 14, 0xe6, port::FAULT as u8]);
    }

    #[test]
    fn shared_words_are_reached_by_absolute_address() {
        // 39 04 25 disp32: cmp [disp32], eax; 83 04 25 disp32 imm8: add dword [disp32], imm8.
        let tail = (CONTROL as u32 + Word::CompletionTail as u32).to_le_bytes();
        let interrupts = (CONTROL as u32 + Word::Interrupts as u32).to_le_bytes();
        let halt = &code()[3 * STRIDE..];
        assert_eq!(
            (&halt[..4], &halt[4..8]),
            (&[0xfa, 0x39, 0x04, 0x25][..], &tail[..])
        );
        let interrupt = &code()[32 * STRIDE..];
        assert_eq!(
            (&interrupt[..3], &interrupt[3..7]),
            (&[0x83, 0x04, 0x25][..], &interrupts[..])
        );
        // 8f 04 25 disp32: pop [disp32]; ff 34 25 disp32: push [disp32].
        let interrupted = (CONTROL as u32 + Word::UpcallReturn as u32).to_le_bytes();
        let target = (CONTROL as u32 + Word::UpcallTarget as u32).to_le_bytes();
        let upcall = &code()[33 * STRIDE..];
        let expected = [
            &[0x8f, 0x04, 0x25][..],
            &interrupted,
            &[0xff, 0x34, 0x25],
            &target,
            &[0x48, 0xcf],
        ];
        assert_eq!(upcall[..16], expected.concat());
    }
}
