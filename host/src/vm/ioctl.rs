//! The two KVM calls that `kvm-ioctls` has no x86 method for.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{kvm_device_attr, kvm_interrupt};
use kvm_ioctls::VcpuFd;

/// `_IOW(KVMIO, nr, T)`, as in `include/uapi/asm-generic/ioctl.h`.
const fn write_call<T>(number: u64) -> u64 {
    const KVMIO: u64 = 0xAE;
    const WRITE: u64 = 1;
    WRITE << 30 | (size_of::<T>() as u64) << 16 | KVMIO << 8 | number
}

/// `KVM_INTERRUPT` (KVM API, 4.16): queues an external interrupt.
const INTERRUPT: u64 = write_call::<kvm_interrupt>(0x86);
/// `KVM_SET_DEVICE_ATTR` (KVM API, 4.80), on a vCPU.
const SET_DEVICE_ATTR: u64 = write_call::<kvm_device_attr>(0xe1);

/// Queues an interrupt. The guest must be able to take it: `ready_for_interrupt_injection`.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn interrupt(vcpu: &VcpuFd, vector: u8) -> io::Result<()> {
    let interrupt = kvm_interrupt {
        irq: u32::from(vector),
    };
    // SAFETY: the call reads a `kvm_interrupt`, which lives through it.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), INTERRUPT, &raw const interrupt) })
}

/// Sets an attribute of a vCPU that is eight bytes long.
///
/// # Errors
///
/// What the kernel says; `ENXIO` if it does not know the attribute.
pub(crate) fn set_attribute(
    vcpu: &VcpuFd,
    group: u32,
    attribute: u32,
    value: u64,
) -> io::Result<()> {
    let attr = kvm_device_attr {
        group,
        attr: u64::from(attribute),
        addr: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the call reads a `kvm_device_attr` and the value that it points to, both of which
    // live through it.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_DEVICE_ATTR, &raw const attr) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const _: () = assert!(INTERRUPT == 0x4004_ae86 && SET_DEVICE_ATTR == 0x4018_aee1);
