//! All that a processor holds, to be set in another.

use kvm_bindings::CpuId;

use crate::error::Result;
use crate::frozen::Frozen;
use crate::system::System;
use crate::x86_64::RING0_STACK;
use crate::x86_64::state::CpuState;
use crate::x86_64::user::UserState;

/// All that a processor holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VcpuState {
    pub(super) cpu: CpuState,
    pub(super) interrupt_wanted: bool,
}

impl VcpuState {
    /// What ring 3 sees of it, as the processor of this number in a machine in whose memory that lay.
    ///
    /// # Errors
    ///
    /// The memory cannot be read.
    pub(crate) fn user(&self, number: u32, memory: &Frozen, cpuid: &CpuId) -> Result<UserState> {
        let mut frame = None;
        if self.cpu.is_in_ring0() {
            // What the processor pushed when it came from ring 3.
            let mut bytes = [0; 5 * 8];
            let at =
                memory.plan().own(number).ring0_stack.offset + RING0_STACK - bytes.len() as u64;
            memory.read(at, &mut bytes)?;
            let (words, _) = bytes.as_chunks::<8>();
            let [rip, _cs, rflags, rsp, _ss] =
                std::array::from_fn(|word| u64::from_le_bytes(words[word]));
            frame = Some((rip, rflags, rsp));
        }
        Ok(self.cpu.user(frame, cpuid))
    }

    /// This, which is how a processor is switched on, in ring 3 with the page tables at `tables`, where a
    /// state goes on.
    pub(crate) fn entered(self, tables: u64, user: &UserState, system: &System) -> Self {
        Self {
            cpu: self
                .cpu
                .entered(tables, user, (&system.cpuid, system.is_qemu)),
            interrupt_wanted: false,
        }
    }
}
