//! What of a processor's state another process, or another machine, can go on from: that of ring 3.
//!
//! All else (control registers, descriptor tables, model-specific registers, what KVM has queued) the
//! host makes anew, as for a guest that begins. So whoever gives such a state has no say in what ring 3
//! may do. A guest that has halted stands in a stub of ring 0: it is taken as if that had returned,
//! which it does when the guest is interrupted, as it must be anyway.

use kvm_bindings::{CpuId, kvm_regs, kvm_xcr, kvm_xcrs};

use super::registers::{self, Features, Registers};
use super::state::CpuState;

/// Flags that programs set: carry, parity, adjust, zero, sign, direction, overflow, alignment check,
/// identification (Intel SDM vol. 1, 3.4.3).
const FLAGS: u64 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 18 | 1 << 21;

/// Bytes of the state of x87 and SSE (Intel SDM vol. 1, 10.5.1); behind them nothing is kept.
pub const LEGACY: usize = 416;
/// Where of them the control register of SSE lies, and its bits.
const CONTROL: usize = 24;
const CONTROL_BITS: u32 = 0xffff;
/// The XSAVE header, which says in its first word which parts are not as they are initially.
const HEADER: usize = 512;
/// Parts that are told by the legacy bytes.
const LEGACY_PARTS: u64 = 0b11;
/// Bytes of the state as KVM has it.
const AREA: usize = 4096;

/// What ring 3 sees of a processor and can change.
#[derive(Clone, Debug, PartialEq)]
pub struct UserState {
    /// The general registers. Of the flags those that programs set.
    pub registers: Registers,
    /// x87 and SSE, as FXSAVE writes them.
    pub legacy: Box<[u8; LEGACY]>,
    /// Other parts of the extended state that are not as they are initially: numbers of bits in `XCR0`,
    /// in their order, and bytes.
    pub extended: Vec<(u32, Vec<u8>)>,
}

/// Why a guest cannot go on from a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The next instruction is not the guest's own.
    #[error("its next instruction does not lie in its own code")]
    Elsewhere,
    /// Flags that no program sets.
    #[error("its flags are not those of a program")]
    Flags,
    /// The control register of SSE has bits that it does not have.
    #[error("its vector unit is in no state that there is")]
    Control,
    /// This processor has no such part, or one of another size.
    #[error("part {0} of its extended state is not one that this processor has")]
    Part(u32),
}

/// Where a part of the extended state lies in the area, in bytes.
fn part(cpuid: &CpuId, number: u32) -> Option<std::ops::Range<usize>> {
    let entries = cpuid.as_slice().iter();
    let mut leaves = entries.filter(|entry| entry.function == 0xd && number >= 2);
    let leaf = leaves.find(|entry| entry.index == number)?;
    let (start, len) = (leaf.ebx as usize, leaf.eax as usize);
    let end = start.checked_add(len)?;
    (start >= HEADER + 64 && end <= AREA).then_some(start..end)
}

/// The bits of a word, in their order.
fn bits(word: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| word >> bit & 1 != 0)
}

impl UserState {
    /// Sees that it is one in which a guest can be. `is_code` says whether at an address lies code of that
    /// guest.
    ///
    /// # Errors
    ///
    /// [`Unfit`].
    pub fn check(&self, is_code: impl FnOnce(u64) -> bool) -> Result<(), Unfit> {
        if !is_code(self.registers.rip) {
            return Err(Unfit::Elsewhere);
        }
        if self.registers.rflags & !FLAGS != 0 {
            return Err(Unfit::Flags);
        }
        let (words, _) = self.legacy.as_chunks::<4>();
        if u32::from_le_bytes(words[CONTROL / 4]) & !CONTROL_BITS != 0 {
            return Err(Unfit::Control);
        }
        Ok(())
    }

    /// Sees that a processor with these leaves has all parts of it.
    ///
    /// # Errors
    ///
    /// [`Unfit::Part`].
    pub fn fits(&self, cpuid: &CpuId) -> Result<(), Unfit> {
        let xcr0 = Features::of(cpuid).xcr0;
        for (number, bytes) in &self.extended {
            let known = bits(xcr0).any(|bit| bit == *number);
            let found = part(cpuid, *number).filter(|part| known && part.len() == bytes.len());
            found.ok_or(Unfit::Part(*number))?;
        }
        Ok(())
    }
}

/// The registers with which ring 3 goes on there. Of the flags it has those that programs set.
pub(crate) fn in_ring3(of: &Registers, is_qemu: bool) -> kvm_regs {
    let first = registers::first(of.rip, of.rsp, is_qemu);
    kvm_regs {
        rflags: first.rflags | of.rflags & FLAGS,
        rax: of.rax,
        rbx: of.rbx,
        rcx: of.rcx,
        rdx: of.rdx,
        rsi: of.rsi,
        rdi: of.rdi,
        rbp: of.rbp,
        r8: of.r8,
        r9: of.r9,
        r10: of.r10,
        r11: of.r11,
        r12: of.r12,
        r13: of.r13,
        r14: of.r14,
        r15: of.r15,
        ..first
    }
}

impl CpuState {
    /// Whether it stands in ring 0, on whose stack the registers are of where ring 3 goes on.
    pub(crate) fn is_in_ring0(&self) -> bool {
        self.sregs.cs.selector & 3 == 0
    }

    /// What ring 3 sees of it. `frame` is where ring 3 goes on, with its flags and stack pointer, if
    /// that is not where it stands.
    pub(crate) fn user(&self, frame: Option<(u64, u64, u64)>, cpuid: &CpuId) -> UserState {
        let own = (self.regs.rip, self.regs.rflags, self.regs.rsp);
        let (rip, rflags, rsp) = frame.unwrap_or(own);
        let bytes: Vec<u8> = self
            .xsave
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let mut legacy = Box::new([0; LEGACY]);
        legacy.copy_from_slice(&bytes[..LEGACY]);
        let (words, _) = bytes[HEADER..].as_chunks::<8>();
        // KVM tells of parts that the guest was not given.
        let given = self
            .lasting
            .xcrs
            .xcrs
            .iter()
            .take(self.lasting.xcrs.nr_xcrs as usize);
        let given = given.filter(|register| register.xcr == 0);
        let given = given.fold(0, |all, register| all | register.value);
        let used = u64::from_le_bytes(words[0]) & given & !LEGACY_PARTS;
        let extended = bits(used).filter_map(|number| {
            let part = part(cpuid, number)?;
            Some((number, bytes[part].to_vec()))
        });
        UserState {
            registers: Registers::new(&self.regs, rip, rflags & FLAGS, rsp),
            legacy,
            extended: extended.collect(),
        }
    }

    /// This, which is how a processor is switched on, in ring 3 with the page tables at `tables`, where a
    /// state that was [checked](UserState::check), and [fits](UserState::fits), goes on.
    /// `host` are the features of its processors, and whether they are QEMU's.
    pub(crate) fn entered(mut self, tables: u64, user: &UserState, host: (&CpuId, bool)) -> Self {
        let (cpuid, is_qemu) = host;
        let features = Features::of(cpuid);
        registers::prepare(&mut self.sregs, tables, &features);
        self.regs = in_ring3(&user.registers, is_qemu);
        let mut area = vec![0; AREA];
        area[..LEGACY].copy_from_slice(&user.legacy[..]);
        let mut used = LEGACY_PARTS;
        for (number, bytes) in &user.extended {
            if let Some(part) = part(cpuid, *number) {
                area[part].copy_from_slice(bytes);
                used |= 1 << number;
            }
        }
        area[HEADER..HEADER + 8].copy_from_slice(&used.to_le_bytes());
        let (words, _) = area.as_chunks::<4>();
        for (into, word) in self.xsave.iter_mut().zip(words) {
            *into = u32::from_le_bytes(*word);
        }
        if features.xcr0 != 0 {
            self.lasting.xcrs = kvm_xcrs {
                nr_xcrs: 1,
                ..Default::default()
            };
            self.lasting.xcrs.xcrs[0] = kvm_xcr {
                xcr: 0,
                value: features.xcr0,
                ..Default::default()
            };
        }
        // The clocks line it up.
        self.lasting.counter_offset = None;
        self
    }
}
