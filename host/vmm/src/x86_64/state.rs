//! All that a processor holds, read and set as a whole.

use std::io;

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_debugregs, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_sync_regs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{SyncReg, VcpuFd};

use crate::error::{Error, Result};
use crate::ioctl;

/// The model-specific registers that are a part of a processor's state (Intel SDM vol. 4; AMD APM vol.
/// 2, appendix A): where system calls lead, bases of segments, types of memory, what hinders
/// speculation. KVM keeps them for each processor, as far as it knows them.
///
/// Ring 3 can write none of them. The counter of time is told by its offset.
pub(crate) const MODEL_SPECIFIC: [u32; 12] = [
    0x48,        // IA32_SPEC_CTRL
    0x174,       // IA32_SYSENTER_CS
    0x175,       // IA32_SYSENTER_ESP
    0x176,       // IA32_SYSENTER_EIP
    0x1a0,       // IA32_MISC_ENABLE
    0x277,       // IA32_PAT
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // FMASK
    0xc000_0102, // KERNEL_GS_BASE
    0xc000_0103, // TSC_AUX
];

const READING: &str = "read the processor's state";
const SETTING: &str = "set the processor's state";

/// All that a processor holds: what a guest of it sees and can change, and what KVM has queued for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CpuState {
    pub(super) regs: kvm_regs,
    pub(super) sregs: kvm_sregs,
    /// x87, SSE and what extends them, as XSAVE writes it.
    pub(super) xsave: Box<[u32; 1024]>,
    pub(super) debug: kvm_debugregs,
    /// Exceptions, interrupts and the shadow in which none comes.
    pub(super) events: kvm_vcpu_events,
    pub(super) lasting: Lasting,
}

impl CpuState {
    /// What a processor holds that has left its guest, and completed what it was about to do there.
    /// `model_specific` are numbers of registers that KVM knows.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(crate) fn read(vcpu: &VcpuFd, model_specific: &[u32]) -> Result<Self> {
        let xsave = vcpu.get_xsave().map_err(Error::kvm(READING))?;
        Ok(Self {
            regs: vcpu.get_regs().map_err(Error::kvm(READING))?,
            sregs: vcpu.get_sregs().map_err(Error::kvm(READING))?,
            xsave: Box::new(xsave.region),
            debug: vcpu.get_debug_regs().map_err(Error::kvm(READING))?,
            events: vcpu.get_vcpu_events().map_err(Error::kvm(READING))?,
            lasting: Lasting::read(vcpu, model_specific)?,
        })
    }

    /// The priority below which no interrupt comes.
    pub(crate) fn cr8(&self) -> u64 {
        self.sregs.cr8
    }

    /// What of it no guest changes.
    pub(crate) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// Sets all of it, but for what [lasts](Self::lasting) if the processor `holds` that.
    ///
    /// Where KVM `takes` registers at the next entry (KVM API, 5, `KVM_CAP_SYNC_REGS`), general and special ones, and
    /// what is queued, are laid ready for it, which saves calls that each have the processor loaded.
    ///
    /// # Errors
    ///
    /// What KVM could not do. The processor then holds some of this and some of what it held.
    pub(crate) fn set(&self, vcpu: &mut VcpuFd, takes: bool, holds: bool) -> Result<()> {
        if takes {
            *vcpu.sync_regs_mut() = kvm_sync_regs {
                regs: self.regs,
                sregs: self.sregs,
                events: self.events,
            };
            for part in [
                SyncReg::Register,
                SyncReg::SystemRegister,
                SyncReg::VcpuEvents,
            ] {
                vcpu.set_sync_dirty_reg(part);
            }
        } else {
            vcpu.set_sregs(&self.sregs).map_err(Error::kvm(SETTING))?;
            vcpu.set_regs(&self.regs).map_err(Error::kvm(SETTING))?;
        }
        if !holds {
            self.lasting.set(vcpu)?;
        }
        let xsave = kvm_xsave {
            region: *self.xsave,
            ..Default::default()
        };
        // SAFETY: KVM reads more than the structure only of processors whose programs have been
        // permitted state that is larger (KVM API, 4.43, arch_prctl(2)), which this library is not.
        unsafe { vcpu.set_xsave(&xsave) }.map_err(Error::kvm(SETTING))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(Error::kvm(SETTING))?;
        if takes {
            return Ok(());
        }
        // Last: setting the special registers may queue an interrupt, and this takes it back.
        vcpu.set_vcpu_events(&self.events)
            .map_err(Error::kvm(SETTING))
    }
}

/// What of a processor's state a guest in ring 3 cannot change, and the stubs in ring 0 do not: which parts of the state
/// of vectors are on, [`MODEL_SPECIFIC`], the counter's offset, and whether it is one that runs. A processor that has
/// shut down may have been reset, and is not used again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lasting {
    pub(super) xcrs: kvm_xcrs,
    /// Numbers and values of [`MODEL_SPECIFIC`], as far as KVM has them.
    pub(super) model_specific: Vec<(u32, u64)>,
    /// What is added to the host's counter of time; none if KVM does not say.
    pub(super) counter_offset: Option<u64>,
    pub(super) mp: kvm_mp_state,
}

impl Lasting {
    fn read(vcpu: &VcpuFd, model_specific: &[u32]) -> Result<Self> {
        Ok(Self {
            xcrs: vcpu.get_xcrs().map_err(Error::kvm(READING))?,
            model_specific: read_model_specific(vcpu, model_specific)?,
            counter_offset: ioctl::attribute(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET).ok(),
            mp: vcpu.get_mp_state().map_err(Error::kvm(READING))?,
        })
    }

    fn set(&self, vcpu: &VcpuFd) -> Result<()> {
        if self.xcrs.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.xcrs).map_err(Error::kvm(SETTING))?;
        }
        set_model_specific(vcpu, &self.model_specific)?;
        if let Some(offset) = self.counter_offset {
            ioctl::set_attribute(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, offset).map_err(
                |source| Error::Kvm {
                    action: SETTING,
                    source,
                },
            )?;
        }
        vcpu.set_mp_state(self.mp).map_err(Error::kvm(SETTING))
    }

    /// Whether a processor that was given this once holds it still. Not if its counter had an offset: a guest that tells the
    /// time by itself has the host's.
    pub(crate) fn stays(&self) -> bool {
        !matches!(self.counter_offset, Some(1..))
    }

    /// Whether the guest has the host's counter as it is.
    pub(crate) fn has_hosts_counter(&self) -> bool {
        self.counter_offset == Some(0)
    }
}

fn read_model_specific(vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<(u32, u64)>> {
    let zeroes: Vec<_> = numbers.iter().map(|number| (*number, 0)).collect();
    let mut entries = entries(&zeroes)?;
    let count = vcpu.get_msrs(&mut entries).map_err(Error::kvm(READING))?;
    if count != numbers.len() {
        return Err(unknown(READING));
    }
    let values = entries.as_slice().iter();
    Ok(values.map(|entry| (entry.index, entry.data)).collect())
}

fn set_model_specific(vcpu: &VcpuFd, values: &[(u32, u64)]) -> Result<()> {
    let count = vcpu
        .set_msrs(&entries(values)?)
        .map_err(Error::kvm(SETTING))?;
    if count != values.len() {
        return Err(unknown(SETTING));
    }
    Ok(())
}

fn entries(values: &[(u32, u64)]) -> Result<Msrs> {
    let entry = |(index, data): &(u32, u64)| kvm_msr_entry {
        index: *index,
        data: *data,
        ..Default::default()
    };
    let entries: Vec<_> = values.iter().map(entry).collect();
    Msrs::from_entries(&entries).map_err(|_| unknown(READING))
}

/// KVM stops at the first register that it does not know.
fn unknown(action: &'static str) -> Error {
    Error::Kvm {
        action,
        source: io::ErrorKind::Unsupported.into(),
    }
}
