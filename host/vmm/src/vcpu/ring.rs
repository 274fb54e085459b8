//! The ring in which a processor was left.

use kvm_ioctls::{SyncReg, VcpuFd};

use crate::error::{Error, Result};
use crate::system::System;

/// In which ring a processor was left, for those who have to know it at each interrupt. A call that asks
/// costs more than the rest of an upcall on some machines: after the first, KVM tells at each exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ring {
    /// Nobody has asked since the processor's state was set.
    #[default]
    Unasked,
    /// The page that is shared with KVM has it (KVM API, 5, `KVM_CAP_SYNC_REGS`).
    Told,
}

impl Ring {
    /// Whether the processor is in ring 3.
    pub(super) fn is_user(&mut self, vcpu: &mut VcpuFd) -> Result<bool> {
        let selector = match self {
            Self::Told => vcpu.sync_regs().sregs.cs.selector,
            Self::Unasked => {
                let sregs = vcpu.get_sregs();
                let sregs = sregs.map_err(Error::kvm("read the ring of a guest"))?;
                if System::get()?.tells_registers {
                    vcpu.set_sync_valid_reg(SyncReg::SystemRegister);
                    *self = Self::Told;
                }
                sregs.cs.selector
            }
        };
        Ok(selector & 3 == 3)
    }

    /// What was told is no longer so.
    pub(super) fn forget(&mut self, vcpu: &mut VcpuFd) {
        vcpu.clear_sync_valid_reg(SyncReg::SystemRegister);
        *self = Self::Unasked;
    }
}
