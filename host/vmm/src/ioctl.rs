//! The KVM calls that `kvm-ioctls` has no x86 method for, and one about pages.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;

use kvm_bindings::{Msrs, kvm_device_attr, kvm_interrupt, kvm_msr_entry, kvm_signal_mask};
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

/// Has the processor forget what it has learned of branches: writes `IBPB` to `IA32_PRED_CMD` (Intel SDM
/// vol. 4; AMD APM vol. 2, 3.2.9).
///
/// # Errors
///
/// What the kernel says; `Unsupported` if KVM does not know the register.
pub(crate) fn branch_barrier(vcpu: &VcpuFd) -> io::Result<()> {
    const IA32_PRED_CMD: u32 = 0x49;
    const IBPB: u64 = 1;
    let entry = kvm_msr_entry {
        index: IA32_PRED_CMD,
        data: IBPB,
        ..Default::default()
    };
    let entries = Msrs::from_entries(&[entry]).map_err(|_| io::ErrorKind::OutOfMemory)?;
    match vcpu.set_msrs(&entries) {
        Ok(1) => Ok(()),
        Ok(_) => Err(io::ErrorKind::Unsupported.into()),
        Err(error) => Err(io::Error::from_raw_os_error(error.errno())),
    }
}

/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`, in `include/uapi/linux/fs.h`.
const PAGEMAP_SCAN: u64 = 3 << 30 | (size_of::<ScanPages<'_>>() as u64) << 16 | 0x66 << 8 | 16;

/// `struct page_region`: pages that are alike, from one address to another.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct PageRegion {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`, and the regions that it points to.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ScanPages<'a> {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
    regions: PhantomData<&'a mut [PageRegion]>,
}

impl<'a> ScanPages<'a> {
    /// Asks for the pages from `start` to `end` that are neither a file's nor the one of zeroes, and
    /// that are there or swapped out.
    pub(crate) fn own(start: u64, end: u64, regions: &'a mut [PageRegion]) -> Self {
        const FILE: u64 = 1 << 2;
        const PRESENT: u64 = 1 << 3;
        const SWAPPED: u64 = 1 << 4;
        const ZERO: u64 = 1 << 5;
        Self {
            size: size_of::<Self>() as u64,
            flags: 0,
            start,
            end,
            walk_end: start,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: FILE | ZERO,
            category_mask: FILE | ZERO,
            category_anyof_mask: PRESENT | SWAPPED,
            // Which of both it is would part what lies side by side.
            return_mask: FILE,
            regions: PhantomData,
        }
    }

    /// How far the kernel has come.
    pub(crate) fn walk_end(&self) -> u64 {
        self.walk_end
    }
}

/// Has the kernel look at pages. Returns how many regions it has told of.
///
/// # Errors
///
/// What the kernel says; `ENOTTY` if it is older than the call.
pub(crate) fn scan_pages(pagemap: &File, scan: &mut ScanPages<'_>) -> io::Result<usize> {
    // SAFETY: the call reads and writes a `pm_scan_arg`, and writes as many regions as it says
    // where it says, which is a slice that is borrowed for as long as `scan` lives.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut *scan) };
    check(found)?;
    Ok(found as usize)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const _: () = assert!(
    PAGEMAP_SCAN == 0xc060_6610
        && INTERRUPT == 0x4004_ae86
        && SET_DEVICE_ATTR == 0x4018_aee1
        && SET_SIGNAL_MASK == 0x4004_ae8b
);
