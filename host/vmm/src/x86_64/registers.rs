//! The registers of a processor: those of a guest's own code, and those with which it starts.

use std::fmt;

use kvm_bindings::{CpuId, kvm_regs, kvm_sregs};
use serde::Serialize;

use super::descriptors;

/// Control register bits (Intel SDM vol. 3A, 2.5; AMD APM vol. 2, 3.1).
mod bits {
    pub(crate) const CR0_PE: u64 = 1 << 0;
    pub(crate) const CR0_MP: u64 = 1 << 1;
    pub(crate) const CR0_ET: u64 = 1 << 4;
    pub(crate) const CR0_NE: u64 = 1 << 5;
    pub(crate) const CR0_WP: u64 = 1 << 16;
    pub(crate) const CR0_PG: u64 = 1 << 31;
    pub(crate) const CR4_PAE: u64 = 1 << 5;
    pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
    pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(crate) const CR4_UMIP: u64 = 1 << 11;
    pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
    pub(crate) const CR4_SMEP: u64 = 1 << 20;
    pub(crate) const EFER_LME: u64 = 1 << 8;
    pub(crate) const EFER_LMA: u64 = 1 << 10;
    pub(crate) const EFER_NXE: u64 = 1 << 11;
    /// Always one; interrupts on. With I/O privilege level 0, the bitmap in the TSS says which
    /// ports ring 3 may use, and `cli` is a fault.
    pub(crate) const RFLAGS: u64 = 1 << 1 | 1 << 9;
    /// I/O privilege level 3: ring 3 may use any port.
    pub(crate) const RFLAGS_IOPL3: u64 = 3 << 12;
}

/// The general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// All of them, four a line.
impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            [
                ("rip", self.rip),
                ("rsp", self.rsp),
                ("rbp", self.rbp),
                ("flg", self.rflags),
            ],
            [
                ("rax", self.rax),
                ("rbx", self.rbx),
                ("rcx", self.rcx),
                ("rdx", self.rdx),
            ],
            [
                ("rsi", self.rsi),
                ("rdi", self.rdi),
                ("r8 ", self.r8),
                ("r9 ", self.r9),
            ],
            [
                ("r10", self.r10),
                ("r11", self.r11),
                ("r12", self.r12),
                ("r13", self.r13),
            ],
            [("r14", self.r14), ("r15", self.r15), ("", 0), ("", 0)],
        ];
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let words = row.iter().filter(|(name, _)| !name.is_empty());
            for (index, (name, value)) in words.enumerate() {
                let gap = if index > 0 { "  " } else { "" };
                write!(f, "{gap}{name} {value:016x}")?;
            }
        }
        Ok(())
    }
}

impl Registers {
    /// The registers as KVM has them, but for those that the processor kept on a stack.
    pub(crate) fn new(regs: &kvm_regs, rip: u64, rflags: u64, rsp: u64) -> Self {
        Self {
            rip,
            rsp,
            rflags,
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
        }
    }
}

/// Features of the processor that the control registers switch on.
pub(crate) struct Features {
    umip: bool,
    smep: bool,
    /// What `XCR0` gets; zero without XSAVE.
    pub(crate) xcr0: u64,
}

impl Features {
    /// Those that a processor with these leaves has.
    pub(crate) fn of(cpuid: &CpuId) -> Self {
        let leaf = |function: u32, index: u32| {
            cpuid
                .as_slice()
                .iter()
                .find(|entry| entry.function == function && entry.index == index)
        };
        let has_xsave = leaf(1, 0).is_some_and(|leaf| leaf.ecx & 1 << 26 != 0);
        // x87, SSE, AVX and the three parts of AVX-512: what needs no permission and no
        // further set-up.
        let offered =
            leaf(0xd, 0).map_or(0, |leaf| u64::from(leaf.eax) | u64::from(leaf.edx) << 32);
        let avx512 = if offered & 0xe0 == 0xe0 { 0xe0 } else { 0 };
        let xcr0 = (offered & 0b111) | if offered & 0b100 != 0 { avx512 } else { 0 };
        Self {
            umip: leaf(7, 0).is_some_and(|leaf| leaf.ecx & 1 << 2 != 0),
            smep: leaf(7, 0).is_some_and(|leaf| leaf.ebx & 1 << 7 != 0),
            xcr0: if has_xsave { xcr0 } else { 0 },
        }
    }
}

fn flag(on: bool, bit: u64) -> u64 {
    if on { bit } else { 0 }
}

/// The general registers of a guest that is about to begin, in ring 3.
///
/// QEMU's emulation reads the bitmap only of a TSS that is not busy, which no processor accepts in its
/// task register: there (`is_qemu`), the privilege level is the only way to ring.
pub(crate) fn first(entry: u64, stack: u64, is_qemu: bool) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsp: stack,
        rflags: bits::RFLAGS | flag(is_qemu, bits::RFLAGS_IOPL3),
        ..Default::default()
    }
}

/// Long mode, paging on with the root table at the guest-physical address `tables`, ring 3.
pub(crate) fn prepare(sregs: &mut kvm_sregs, tables: u64, features: &Features) {
    sregs.cr3 = tables;
    sregs.cr0 =
        bits::CR0_PE | bits::CR0_MP | bits::CR0_ET | bits::CR0_NE | bits::CR0_WP | bits::CR0_PG;
    sregs.cr4 = bits::CR4_PAE
        | bits::CR4_OSFXSR
        | bits::CR4_OSXMMEXCPT
        | flag(features.umip, bits::CR4_UMIP)
        | flag(features.smep, bits::CR4_SMEP)
        | flag(features.xcr0 != 0, bits::CR4_OSXSAVE);
    sregs.efer = bits::EFER_LME | bits::EFER_LMA | bits::EFER_NXE;
    sregs.gdt = descriptors::gdt();
    sregs.idt = descriptors::idt();
    sregs.tr = descriptors::task();
    sregs.ldt = descriptors::no_local_table();
    sregs.cs = descriptors::ring3_code();
    let data = descriptors::ring3_data();
    for segment in [
        &mut sregs.ss,
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
    ] {
        *segment = data;
    }
}
