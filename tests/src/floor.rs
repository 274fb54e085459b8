//! The raw floor: what this machine's KVM costs when nobody is in the way.
//!
//! A bare KVM loop without a line of Wakebox in it. One region of 2 MiB, mapped one to
//! one by a single large page, in which ring 3 executes `out` for ever. There is no IDT:
//! whatever goes wrong ends in a shutdown exit, which is an error here.

use std::io;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, bail};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_regs, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

const MEMORY: usize = 2 << 20;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const GDT: usize = 0x4000;
const TSS: usize = 0x5000;
const CODE: usize = 0x6000;

/// I/O bitmap right after the 104 bytes of the TSS, for ports up to 0xFF.
const BITMAP: usize = TSS + 104;
const TSS_LEN: usize = 104 + 32 + 1;

const PORT: u16 = 0x80;
const RING3_DATA: u16 = 0x18 | 3;
const RING3_CODE: u16 = 0x20 | 3;
const TASK: u16 = 0x28;

/// `out dx, al`, then a jump back to it.
const PROGRAM: [u8; 3] = [0xEE, 0xEB, 0xFD];

/// `/dev/kvm`, and what is asked of it once for all machines.
#[derive(Debug)]
pub struct Floor {
    kvm: Kvm,
    cpuid: CpuId,
}

impl Floor {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    ///
    /// If it is missing, forbidden or broken.
    pub fn open() -> Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        Ok(Self { kvm, cpuid })
    }

    /// Creates a VM with its region, its vCPU, CPUID and registers, ready to run.
    ///
    /// # Errors
    ///
    /// If a system call fails.
    pub fn create(&self) -> Result<Machine> {
        let memory = Memory::new()?;
        memory.fill();
        let vm = again(|| self.kvm.create_vm()).context("KVM_CREATE_VM")?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: memory.0.as_ptr() as u64,
        };
        // SAFETY: the mapping is as long as the region says and outlives the VM, for
        // `Machine` drops its fields in order.
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
        let vcpu = again(|| vm.create_vcpu(0)).context("KVM_CREATE_VCPU")?;
        vcpu.set_cpuid2(&self.cpuid).context("KVM_SET_CPUID2")?;
        set_registers(&vcpu)?;
        Ok(Machine {
            vcpu,
            _vm: vm,
            _memory: memory,
        })
    }
}

/// A VM whose vCPU executes nothing but `out`.
#[derive(Debug)]
pub struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Memory,
}

impl Machine {
    /// Enters the guest and returns at its next `out`.
    ///
    /// # Errors
    ///
    /// If the guest does anything else.
    #[inline]
    pub fn exit(&mut self) -> Result<()> {
        match self.vcpu.run().context("KVM_RUN")? {
            VcpuExit::IoOut(PORT, _) => Ok(()),
            other => bail!("the guest should execute `out`, and did {other:?}"),
        }
    }
}

/// Retries what KVM gives up when a signal arrives.
fn again<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            other => return other,
        }
    }
}

/// 64-bit mode, ring 3, at [`CODE`] (Intel SDM vol. 3A, 4.5 and 9.8.5).
fn set_registers(vcpu: &VcpuFd) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        dpl: 3,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: RING3_DATA,
        type_: 3,
        db: 1,
        ..flat
    };
    sregs.cs = kvm_segment {
        selector: RING3_CODE,
        type_: 11,
        l: 1,
        ..flat
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS as u64,
        limit: TSS_LEN as u32 - 1,
        selector: TASK,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    sregs.gdt = kvm_dtable {
        base: GDT as u64,
        limit: 7 * 8 - 1,
        ..Default::default()
    };
    sregs.cr3 = PML4 as u64;
    sregs.cr4 = 1 << 5; // PAE
    sregs.cr0 = 1 << 31 | 1 << 16 | 1 << 5 | 1; // PG, WP, NE, PE
    sregs.efer = 1 << 10 | 1 << 8; // LMA, LME
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
    vcpu.set_regs(&kvm_regs {
        rip: CODE as u64,
        rdx: PORT.into(),
        rflags: 3 << 12 | 2, // IOPL 3
        ..Default::default()
    })
    .context("KVM_SET_REGS")
}

/// The guest's memory, zeroed.
#[derive(Debug)]
struct Memory(NonNull<u8>);

impl Memory {
    fn new() -> Result<Self> {
        // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                MEMORY,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap");
        }
        NonNull::new(base.cast())
            .map(Self)
            .context("mmap returned null")
    }

    /// Writes page tables, descriptors and program. No vCPU runs yet.
    fn fill(&self) {
        const TABLE: u64 = 0b111; // present, writable, user
        const LARGE: u64 = 1 << 7;
        self.put(PML4, &(PDPT as u64 | TABLE).to_le_bytes());
        self.put(PDPT, &(DIRECTORY as u64 | TABLE).to_le_bytes());
        self.put(DIRECTORY, &(LARGE | TABLE).to_le_bytes());

        let tss = TSS as u64;
        let descriptors = [
            0,
            0x00AF_9B00_0000_FFFF, // ring 0, code
            0x00CF_9300_0000_FFFF, // ring 0, data
            0x00CF_F300_0000_FFFF, // ring 3, data
            0x00AF_FB00_0000_FFFF, // ring 3, code
            (TSS_LEN as u64 - 1) | (tss & 0xFF_FFFF) << 16 | 0x8B << 40 | (tss >> 24 & 0xFF) << 56,
            tss >> 32,
        ];
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            self.put(GDT + 8 * index, &u64::to_le_bytes(descriptor));
        }

        let mut bitmap = [0xFF; TSS_LEN - 104];
        bitmap[usize::from(PORT) / 8] &= !(1 << (PORT % 8));
        self.put(TSS + 102, &104_u16.to_le_bytes());
        self.put(BITMAP, &bitmap);
        self.put(CODE, &PROGRAM);
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= MEMORY);
        // SAFETY: the range lies in the mapping, which nobody else has seen yet.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(at), bytes.len());
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; the VM that used it is gone.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), MEMORY);
        }
    }
}
