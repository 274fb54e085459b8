//! A virtual machine: its memory and its processors.
//!
//! A machine knows nothing of the sandbox that it runs. All that a guest has changed in one beside its
//! memory is its [state](MachineState), which can be set as a whole: nothing of what was there before
//! is left.

use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::plan::Plan;
use crate::process;
use crate::system::System;
use crate::ticker::Ticker;
use crate::vcpu::{Vcpu, VcpuState};

/// A virtual machine with memory and one processor.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the memory stays mapped as long as the machine.
    vcpus: Vec<Vcpu>,
    _vm: VmFd,
    memory: Arc<GuestMemory>,
    /// The process that made it.
    process: u32,
}

/// All that the processors of a machine hold.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineState {
    vcpus: Vec<VcpuState>,
}

impl Machine {
    /// Creates a machine with `memory` and one processor, which is in the state in which processors are
    /// switched on: [`start`](Self::start) it, or [`restore`](Self::restore) another.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn new(memory: &Arc<GuestMemory>) -> Result<Self> {
        let system = System::get()?;
        let ticker = Ticker::get()?;
        let vm = system.create_vm()?;
        let (userspace_addr, memory_size) = memory.host_range();
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: memory.plan().base,
            memory_size,
            userspace_addr,
            flags: 0,
        };
        // SAFETY: the range is the whole mapping that `memory` owns, and `Self` keeps `memory`
        // alive as long as the machine. The guest may change any byte: that is `memory`'s subject.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(Error::kvm("give memory to the virtual machine"))?;
        Ok(Self {
            vcpus: vec![Vcpu::new(&vm, 0, memory, ticker)?],
            _vm: vm,
            memory: memory.clone(),
            process: process::generation(),
        })
    }

    /// The same machine for another guest, whose memory is made of this where the former guest's lay.
    /// Nothing of that is left, nor can who could kick it kick this one; the processors hold what they
    /// held until they are [started](Self::start_anew) or [restored](Self::restore).
    ///
    /// `None` if somebody else still has the former memory, if this wants another size, or if it cannot
    /// be mapped: then there is no machine any more.
    #[must_use]
    pub fn renewed(self, backing: &Backing, plan: Plan) -> Option<Self> {
        let Self {
            mut vcpus,
            _vm,
            memory,
            process,
        } = self;
        let mut memory = Arc::try_unwrap(memory).ok()?;
        memory.remake(backing, plan).ok()?;
        let memory = Arc::new(memory);
        for vcpu in &mut vcpus {
            vcpu.renew(&memory);
        }
        Some(Self {
            vcpus,
            _vm,
            memory,
            process,
        })
    }

    /// Has the first processor start at `entry`, in ring 3, with its stack pointer at `stack`, when it is
    /// entered.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn start(&mut self, entry: u64, stack: u64) -> Result<()> {
        self.vcpu().start(entry, stack)
    }

    /// Whether this process has made it, and not one that this is a child of: KVM serves that alone.
    #[must_use]
    pub fn is_of_this_process(&self) -> bool {
        self.process == process::generation()
    }

    /// What it runs.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The first processor.
    #[must_use]
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpus[0]
    }

    /// The first processor, to be entered.
    pub fn vcpu_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpus[0]
    }

    /// All that its processors hold, with the guest where it stands. It can go on.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn state(&mut self) -> Result<MachineState> {
        let vcpus = self.vcpus.iter_mut().map(Vcpu::state);
        Ok(MachineState {
            vcpus: vcpus.collect::<Result<_>>()?,
        })
    }

    /// Has its processors hold just this, and nothing of what they held. The memory is another matter,
    /// and so are kicks.
    ///
    /// # Errors
    ///
    /// What KVM could not do. The machine is then good for nothing but being dropped or set anew.
    ///
    /// # Panics
    ///
    /// If the state is that of a machine with more or fewer processors.
    pub fn restore(&mut self, state: &MachineState) -> Result<()> {
        assert_eq!(self.vcpus.len(), state.vcpus.len(), "as many processors");
        for (vcpu, state) in self.vcpus.iter_mut().zip(&state.vcpus) {
            vcpu.restore(state)?;
        }
        Ok(())
    }
}
