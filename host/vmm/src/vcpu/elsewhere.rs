//! A processor whose guest goes on elsewhere than where it stands.

use wakebox_abi::window::Fault;

use super::{Vcpu, root_table};
use crate::error::{Error, Result};
use crate::system::System;
use crate::x86_64::exception::Exception;
use crate::x86_64::registers::{self, Features, Registers};
use crate::x86_64::user::in_ring3;

/// Of RFLAGS: a debug exception behind each instruction (Intel SDM vol. 1, 3.4.3.3).
const TRAP_FLAG: u64 = 1 << 8;

impl Vcpu {
    /// Has the guest's own code go on with these registers when it is entered next: with `steps` for one instruction,
    /// behind which the processor raises a debug exception. To be called after [`Self::complete`]. Vector registers
    /// stay as they are, and of the flags those count that programs set.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn go_on(&mut self, registers: &Registers, steps: bool) -> Result<()> {
        let setting = "set the registers of a guest that is debugged";
        let is_qemu = System::get()?.is_qemu;
        let mut sregs = self.vcpu.get_sregs().map_err(Error::kvm(setting))?;
        let features = Features::of(&System::get()?.cpuid);
        let tables = root_table(self.memory().plan(), self.number);
        registers::prepare(&mut sregs, tables, &features);
        self.vcpu.set_sregs(&sregs).map_err(Error::kvm(setting))?;
        let mut regs = in_ring3(registers, is_qemu);
        if steps {
            regs.rflags |= TRAP_FLAG;
        }
        self.vcpu.set_regs(&regs).map_err(Error::kvm(setting))?;
        self.ring.forget(&mut self.vcpu);
        Ok(())
    }

    /// Has the guest go on in ring 3 with an exception of its own, where it has said, if it has.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(super) fn goes_on(&mut self, exception: &Exception) -> Result<bool> {
        let memory = self.memory();
        let fault = Fault {
            at: exception.registers.rip,
            kind: exception.vector,
            address: exception.address.unwrap_or_default(),
        };
        if !exception.is_of_ring3 || !fault.may_go_on(memory.plan().window_count) {
            return Ok(false);
        }
        let Some(entry) = fault.begin(&memory.control_of(self.number)) else {
            return Ok(false);
        };
        self.complete()?;
        let registers = Registers {
            rip: entry.into(),
            ..exception.registers
        };
        self.go_on(&registers, false)?;
        Ok(true)
    }
}
