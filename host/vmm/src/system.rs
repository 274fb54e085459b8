//! What all machines of this process share: the KVM handle and what it can do.

use std::arch::x86_64::__cpuid;
use std::io;
use std::sync::{Mutex, OnceLock};

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::error::{Error, Result};
use crate::signal;
use crate::x86_64::state::MODEL_SPECIFIC;

/// An open `/dev/kvm`, checked once.
#[derive(Debug)]
pub struct System {
    kvm: Kvm,
    /// Numbers of the model-specific registers that are a part of a processor's state here.
    pub(crate) model_specific: Vec<u32>,
    /// The CPUID leaves that every vCPU gets.
    pub cpuid: CpuId,
    /// Whether this machine is itself emulated by QEMU, instruction by instruction.
    pub is_qemu: bool,
    /// Whether KVM can write a processor's segments to the shared page at each exit.
    pub(crate) tells_registers: bool,
    /// Whether KVM takes a processor's registers, and what is queued for it, at an entry.
    pub(crate) takes_registers: bool,
    /// Processors that this process may use; asked once, because the answer takes system
    /// calls and files.
    pub processors: usize,
}

impl System {
    /// The system, opened at the first call. An error is not remembered, so that a
    /// process may try again.
    ///
    /// # Errors
    ///
    /// [`Error::KvmMissing`], [`Error::KvmForbidden`], [`Error::KvmUnsuitable`], or what KVM said.
    pub fn get() -> Result<&'static Self> {
        static SYSTEM: OnceLock<System> = OnceLock::new();
        static OPENING: Mutex<()> = Mutex::new(());
        if let Some(system) = SYSTEM.get() {
            return Ok(system);
        }
        let _one_at_a_time = OPENING.lock();
        if let Some(system) = SYSTEM.get() {
            return Ok(system);
        }
        let system = Self::open()?;
        Ok(SYSTEM.get_or_init(|| system))
    }

    fn open() -> Result<Self> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::KvmMissing,
            libc::EACCES | libc::EPERM => Error::KvmForbidden,
            errno => Error::Kvm {
                action: "open /dev/kvm",
                source: io::Error::from_raw_os_error(errno),
            },
        })?;
        let version = kvm.get_api_version();
        if version != 12 {
            return Err(Error::KvmUnsuitable(format!(
                "it speaks API version {version}, not 12"
            )));
        }
        for (cap, name) in [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(Error::KvmUnsuitable(format!("it lacks {name}")));
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("list the processor's features"))?;
        let known = kvm
            .get_msr_index_list()
            .map_err(Error::kvm("list the processor's registers"))?;
        let is_known = |number: &u32| known.as_slice().contains(number);
        signal::install().map_err(|source| Error::Kvm {
            action: "have a handler for the signal that interrupts guests",
            source,
        })?;
        let can_sync = kvm.check_extension_int(Cap::SyncRegs);
        let synced = |parts: u32| can_sync & parts as i32 == parts as i32;
        Ok(Self {
            tells_registers: synced(KVM_SYNC_X86_SREGS),
            takes_registers: synced(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS),
            model_specific: MODEL_SPECIFIC.into_iter().filter(is_known).collect(),
            kvm,
            cpuid,
            is_qemu: is_qemu(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// Whether a processor can be told to forget what it has learned of branches: its CPUID has it (leaf
    /// 7, EDX bit 26; on AMD leaf 0x80000008, EBX bit 12).
    #[must_use]
    pub fn has_branch_barrier(&self) -> bool {
        let leaf = |function| {
            let mut leaves = self.cpuid.as_slice().iter();
            leaves.find(|leaf| leaf.function == function && leaf.index == 0)
        };
        leaf(7).is_some_and(|leaf| leaf.edx & 1 << 26 != 0)
            || leaf(0x8000_0008).is_some_and(|leaf| leaf.ebx & 1 << 12 != 0)
    }

    /// Creates a machine without memory, processor or interrupt controller.
    ///
    /// # Errors
    ///
    /// What KVM said.
    pub fn create_vm(&self) -> Result<VmFd> {
        retry(|| self.kvm.create_vm()).map_err(Error::kvm("create a virtual machine"))
    }
}

/// Whether the processor is that of QEMU's Tiny Code Generator. A hypervisor shows itself in
/// a bit and gives its name in the leaves that are reserved for it (Linux,
/// Documentation/virt/kvm/x86/cpuid.rst; QEMU, target/i386/cpu.c).
fn is_qemu() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let leaf = __cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    __cpuid(1).ecx & HYPERVISOR != 0 && name.as_flattened() == b"TCGTCGTCGTCG"
}

/// Calls again what a signal interrupted: the creation of machines and processors returns
/// `EINTR` when one arrives meanwhile.
pub fn retry<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}
