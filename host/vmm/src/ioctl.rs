//! The KVM calls that `kvm-ioctls` has no x86 method for.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{kvm_device_attr, kvm_interrupt, kvm_signal_mask};
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

/// `KVM_GET_DEVICE_ATTR` (KVM API, 4.80), on a vCPU.
const GET_DEVICE_ATTR: u64 = write_call::<kvm_device_attr>(0xe2);

/// `KVM_SET_SIGNAL_MASK` (KVM API, 4.21): what a thread holds back while it is in the guest.
const SET_SIGNAL_MASK: u64 = write_call::<kvm_signal_mask>(0x8b);

/// A `kvm_signal_mask` with the set that follows it.
#[repr(C)]
struct SignalMask {
    len: u32,
    /// Eight bytes, as the kernel's sets have.
    set: [u32; 2],
}

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

/// An attribute of a vCPU that is eight bytes long.
///
/// # Errors
///
/// What the kernel says; `ENXIO` if it does not know the attribute.
pub(crate) fn attribute(vcpu: &VcpuFd, group: u32, attribute: u32) -> io::Result<u64> {
    let mut value = 0_u64;
    let attr = kvm_device_attr {
        group,
        attr: u64::from(attribute),
        addr: &raw mut value as u64,
        flags: 0,
    };
    // SAFETY: the call reads a `kvm_device_attr` and writes the eight bytes that it points to, both of
    // which live through it.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), GET_DEVICE_ATTR, &raw const attr) })?;
    Ok(value)
}

/// Says which signals a thread holds back while it is in the guest: bit `n - 1` is signal `n`.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn set_signal_mask(vcpu: &VcpuFd, mask: u64) -> io::Result<()> {
    let mask = SignalMask {
        len: size_of::<u64>() as u32,
        set: [mask as u32, (mask >> 32) as u32],
    };
    // SAFETY: the call reads a `kvm_signal_mask` and the bytes behind it whose number it says; all
    // of them live through it.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SIGNAL_MASK, &raw const mask) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const _: () = assert!(
    INTERRUPT == 0x4004_ae86 && SET_DEVICE_ATTR == 0x4018_aee1 && SET_SIGNAL_MASK == 0x4004_ae8b
);
