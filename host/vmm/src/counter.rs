//! The counter that a guest reads by itself.

use std::arch::x86_64::_rdtsc;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use crate::ioctl;

const MSR_IA32_TSC: u32 = 0x10;

/// Gives the guest the host's counter. Returns whether it now has it.
pub(crate) fn line_up(vcpu: &VcpuFd) -> bool {
    if ioctl::set_attribute(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, 0).is_ok() {
        return true;
    }
    // Older kernels, and KVM-PVM, whose guests see the raw counter anyway: believe what the
    // vCPU itself shows, if it lies between two readings of ours.
    let entry = kvm_msr_entry {
        index: MSR_IA32_TSC,
        ..Default::default()
    };
    let Ok(mut msrs) = kvm_bindings::Msrs::from_entries(&[entry]) else {
        return false;
    };
    // SAFETY: `rdtsc` has no precondition on x86-64.
    let before = unsafe { _rdtsc() };
    let read = vcpu.get_msrs(&mut msrs);
    // SAFETY: as above.
    let after = unsafe { _rdtsc() };
    matches!(read, Ok(1)) && (before..=after).contains(&msrs.as_slice()[0].data)
}
