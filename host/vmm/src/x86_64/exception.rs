//! An exception that a guest has raised.

use super::registers::Registers;

/// The vector of a page fault (Intel SDM vol. 3A, 6.15).
const PAGE_FAULT: u64 = 14;

/// Words that an exception's stub has left on its stack: `vector`, the error code, `rip`, `cs`,
/// `rflags`, `rsp`, `ss`.
pub(crate) const FRAME_WORDS: usize = 7;

/// A processor exception in a guest, as the processor tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which one: 0 to 31.
    pub vector: u8,
    /// What the processor says besides (Intel SDM vol. 3A, 6.13); 0 where it says nothing.
    pub error_code: u64,
    /// The address that could not be reached, for page faults.
    pub address: Option<u64>,
    /// Whether ring 3 has raised it, as it does but for mistakes in the stubs.
    pub is_of_ring3: bool,
    /// The registers of the code that raised it.
    pub registers: Registers,
}

impl Exception {
    /// What a stub's frame says, with the registers that it has not touched and with CR2.
    pub(crate) fn new(frame: [u64; FRAME_WORDS], regs: &kvm_bindings::kvm_regs, cr2: u64) -> Self {
        let [vector, error_code, rip, cs, rflags, rsp, _ss] = frame;
        Self {
            vector: vector as u8,
            error_code,
            is_of_ring3: cs & 3 == 3,
            address: (vector == PAGE_FAULT).then_some(cr2),
            registers: Registers::new(regs, rip, rflags, rsp),
        }
    }
}
