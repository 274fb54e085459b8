//! A virtual machine: its memory and its processors.
//!
//! A machine knows nothing of the sandbox that it runs. All that a guest has changed in one beside its
//! memory is its [state](MachineState), which can be set as a whole: nothing of what was there before
//! is left.

use std::sync::{Arc, OnceLock};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use crate::backing::Backing;
use crate::detached::Pages;
use crate::error::{Error, Result};
use crate::frozen::Frozen;
use crate::memory::GuestMemory;
use crate::plan::Plan;
use crate::process;
use crate::signal::VcpuKick;
use crate::system::System;
use crate::ticker::Ticker;
use crate::vcpu::{Vcpu, VcpuState, root_table};
use crate::x86_64::user::UserState;

/// A virtual machine with memory and its processors.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the memory stays mapped as long as the machine.
    first: Vcpu,
    /// The other processors, unless they are [elsewhere](Self::take_others).
    others: Vec<Vcpu>,
    _vm: VmFd,
    memory: Arc<GuestMemory>,
    /// The process that made it.
    process: u32,
    /// Whether its processors have been in no guest yet, and hold nothing of one.
    is_new: bool,
    /// Whether its memory is just what it was made of, since its last guest ended.
    is_reset: bool,
}

/// All that the processors of a machine hold.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineState {
    vcpus: Vec<VcpuState>,
}

/// A guest without a machine.
#[derive(Debug)]
pub(crate) struct Detached {
    pub(crate) state: MachineState,
    pub(crate) pages: Pages,
    /// What others kick each of its processors by: it goes where the guest goes.
    pub(crate) kicks: Vec<Arc<VcpuKick>>,
}

/// What a processor of a machine holds when it is switched on. Read off a machine that is made for
/// it, once.
fn switched_on(plan: &Plan) -> Result<&'static VcpuState> {
    static STATE: OnceLock<VcpuState> = OnceLock::new();
    if let Some(state) = STATE.get() {
        return Ok(state);
    }
    let memory = GuestMemory::new(plan.clone())?;
    let state = Machine::new(&memory)?.first.state()?;
    Ok(STATE.get_or_init(|| state))
}

impl Machine {
    /// Creates a machine with `memory` and the processors that are planned there, which are in the state in
    /// which processors are switched on: [`start`](Self::start) it, or [`restore`](Self::restore) another.
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
            first: Vcpu::new(&vm, 0, memory, ticker)?,
            others: (1..memory.plan().processors())
                .map(|number| Vcpu::new(&vm, number, memory, ticker))
                .collect::<Result<_>>()?,
            _vm: vm,
            memory: memory.clone(),
            process: process::generation(),
            is_new: true,
            is_reset: false,
        })
    }

    /// The same machine for another guest, whose memory is made of this where the former guest's lay.
    /// Nothing of that is left, nor can who could kick it kick this one; the processors hold what they
    /// held until they are [started](Self::start) or [restored](Self::restore).
    ///
    /// `None` if somebody else still has the former memory, if this wants another size, or if it cannot
    /// be mapped: then there is no machine any more.
    #[must_use]
    pub(crate) fn renewed(self, backing: &Backing, plan: Plan) -> Option<Self> {
        let Self {
            mut first,
            mut others,
            _vm,
            memory,
            process,
            is_new,
            is_reset,
        } = self;
        let mut memory = Arc::try_unwrap(memory).ok()?;
        // Where page tables are other ones, a KVM that shadows them must hear of it: pages that are mapped
        // anew, or given back, it looks up again.
        if !(is_reset && memory.is_made_of(backing, &plan)) {
            memory.remake(backing, plan).ok()?;
        }
        let memory = Arc::new(memory);
        first.renew(&memory);
        for vcpu in &mut others {
            vcpu.renew(&memory);
        }
        Some(Self {
            first,
            others,
            _vm,
            memory,
            process,
            is_new,
            is_reset: false,
        })
    }

    /// Takes out the guest that sleeps in it and whose memory this is. The machine is then left with
    /// memory that is just what that was made of. `None`, and nothing has changed, if the guest has more memory
    /// of its own than is kept, or other windows, or somebody else uses it, or a processor is [elsewhere](Self::take_others).
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(crate) fn detach(&mut self) -> Result<Option<Detached>> {
        if !self.has_all(self.memory.plan()) || self.memory.is_edited() {
            return Ok(None);
        }
        let state = self.state()?;
        let Some(left) = self.memory.leave() else {
            return Ok(None);
        };
        let Some(pages) = left.unload() else {
            self.memory.enter(left);
            return Ok(None);
        };
        self.memory = Arc::new(left);
        let memory = self.memory.clone();
        let kicks = self.vcpus_mut().map(|vcpu| vcpu.detach(&memory)).collect();
        self.is_reset = true;
        Ok(Some(Detached {
            state,
            pages,
            kicks,
        }))
    }

    /// A guest that was [taken out](Self::detach) of another machine goes on in this, whose memory is
    /// made of the same as its memory and is nobody's: that lies here from now on.
    ///
    /// # Errors
    ///
    /// As [`Self::restore`].
    ///
    /// # Panics
    ///
    /// If somebody else has this machine's memory.
    pub(crate) fn attach(&mut self, detached: &Detached, memory: &Arc<GuestMemory>) -> Result<()> {
        let there = std::mem::replace(&mut self.memory, memory.clone());
        let there = Arc::into_inner(there).expect("nobody else has it");
        there.load(&detached.pages);
        memory.enter(there);
        self.is_reset = false;
        for (vcpu, kick) in self.vcpus_mut().zip(&detached.kicks) {
            vcpu.attach(kick.clone(), memory);
        }
        self.restore(&detached.state)
    }

    /// Whether its memory is just what it was made of.
    pub(crate) fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Makes its memory again what it was made of. Returns whether it is; it is not if somebody else still
    /// has it, or if it was not made of a template.
    pub(crate) fn reset(&mut self) -> bool {
        self.is_reset |= Arc::strong_count(&self.memory) == 1 && self.memory.reset().is_ok();
        self.is_reset
    }

    /// The same, if at most so many bytes may differ, for a caller that holds the memory once more itself.
    pub(crate) fn reset_at_most(&mut self, bytes: u64) -> bool {
        const HOLDERS: usize = 2;
        self.is_reset |=
            Arc::strong_count(&self.memory) == HOLDERS && self.memory.reset_at_most(bytes);
        self.is_reset
    }

    /// Whether as many processors as are planned are here.
    #[must_use]
    pub fn has_all(&self, plan: &Plan) -> bool {
        self.others.len() as u32 + 1 == plan.processors()
    }

    /// Whether nobody else has its memory any more, and what is planned could lie there.
    pub(crate) fn is_free_for(&self, plan: &Plan) -> bool {
        self.has_all(plan) && self.memory.fits(plan) && Arc::strong_count(&self.memory) == 1
    }

    /// Has the first processor start at `entry`, in ring 3, with its stack pointer at `stack`, when it is
    /// entered. The others are switched on.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn start(&mut self, entry: u64, stack: u64) -> Result<()> {
        if !self.is_new {
            let state = switched_on(self.memory.plan())?;
            for vcpu in self.vcpus_mut() {
                vcpu.restore(state)?;
            }
        }
        self.first.start(entry, stack)
    }

    /// The processors.
    fn vcpus_mut(&mut self) -> impl Iterator<Item = &mut Vcpu> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// Takes out all processors but the first, so that each can be entered by a thread of its own. Whoever
    /// has them keeps the machine's memory as long as one is in its guest, and
    /// [gives them back](Self::give_back), if the machine is to serve another guest.
    #[must_use]
    pub fn take_others(&mut self) -> Vec<Vcpu> {
        self.is_new = false;
        std::mem::take(&mut self.others)
    }

    /// The processors that were [taken out](Self::take_others), in their order.
    pub fn give_back(&mut self, others: Vec<Vcpu>) {
        self.others = others;
    }

    /// All processors, but those that are [elsewhere](Self::take_others).
    pub fn vcpus(&self) -> impl Iterator<Item = &Vcpu> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// A processor, by its number; the first, if there is none of this number here.
    #[must_use]
    pub fn vcpu_of(&self, processor: u32) -> &Vcpu {
        let other = processor.checked_sub(1);
        let other = other.and_then(|other| self.others.get(other as usize));
        other.unwrap_or(&self.first)
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
        &self.first
    }

    /// The first processor, to be entered.
    pub fn vcpu_mut(&mut self) -> &mut Vcpu {
        self.is_new = false;
        &mut self.first
    }

    /// All that its processors hold, with the guest where it stands. It can go on.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn state(&mut self) -> Result<MachineState> {
        let vcpus = self.vcpus_mut().map(Vcpu::state);
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
        let processors = self.others.len() + 1;
        assert_eq!(processors, state.vcpus.len(), "as many processors");
        self.is_new = false;
        for (vcpu, state) in self.vcpus_mut().zip(&state.vcpus) {
            vcpu.restore(state)?;
        }
        Ok(())
    }
}

impl MachineState {
    /// What of a processor another process can go on from. `memory` is what lay in the machine's memory then.
    ///
    /// # Errors
    ///
    /// The memory cannot be read.
    ///
    /// # Panics
    ///
    /// If there is no such processor.
    pub fn user(&self, processor: u32, memory: &Frozen) -> Result<UserState> {
        let vcpu = &self.vcpus[processor as usize];
        vcpu.user(processor, memory, &System::get()?.cpuid)
    }

    /// The state of a machine whose guest, with memory of this plan, goes on in ring 3 from states that
    /// were [checked](UserState::check) and [fit](UserState::fits), one of each processor; those without one have
    /// not begun. All else is as in a machine that begins here.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn of_users(plan: &Plan, users: &[Option<UserState>]) -> Result<Self> {
        let system = System::get()?;
        let switched_on = switched_on(plan)?;
        let vcpus = (0..).zip(users).map(|(processor, user)| match user {
            Some(user) => {
                let tables = root_table(plan, processor);
                switched_on.clone().entered(tables, user, system)
            }
            None => switched_on.clone(),
        });
        Ok(Self {
            vcpus: vcpus.collect(),
        })
    }
}
