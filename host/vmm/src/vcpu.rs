//! One virtual processor: made ready to start in ring 3, entered, left.

mod elsewhere;
mod exits;
mod ring;
mod state;

use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kvm_bindings::{kvm_regs, kvm_sregs, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use wakebox_abi::{port, upcall};

pub use self::exits::{End, Exit};
use self::ring::Ring;
pub use self::state::VcpuState;
use crate::counter;
use crate::error::{Error, Result};
use crate::ioctl;
use crate::kick::{Kick, Reasons};
use crate::memory::GuestMemory;
use crate::plan::Plan;
use crate::signal::{self, RunPage, VcpuKick, thread_id};
use crate::system::{System, retry};
use crate::ticker::Ticker;
use crate::violation::Violation;
use crate::x86_64::exception::{Exception, FRAME_WORDS};
use crate::x86_64::registers::{self, Features, Registers};
use crate::x86_64::state::{CpuState, Lasting};
use crate::x86_64::{RING0_STACK, fault_stack_at, ring0_stack_at};

/// How often in a row KVM may ask to try again (`EAGAIN`) before that is an error.
const REFUSALS: u32 = 1_000;

/// Most pieces in which KVM completes what a guest was about to do: a vector of 64 bytes, by eight, has
/// as many.
const MOST_PIECES: usize = 8;

/// The page by which a processor is kicked.
fn run_page(vcpu: &mut VcpuFd) -> RunPage {
    let flag = NonNull::from(&mut vcpu.get_kvm_run().immediate_exit);
    // SAFETY: the flag lies in the page that `vcpu` keeps mapped; the processor that owns both
    // disarms before that ends, and before it is about another kick.
    unsafe { RunPage::new(flag) }
}

/// What others kick a processor by.
fn kick_of(vcpu: &mut VcpuFd) -> Arc<VcpuKick> {
    Arc::new(Kick::new(run_page(vcpu)))
}

fn violation(what: Violation) -> Exit {
    Exit::End(End::Violation(what))
}

/// What KVM was told of the signals that a thread holds back.
#[derive(Debug, Default)]
struct HeldBack {
    /// The thread, or 0 if it is to be asked again.
    thread: i32,
    /// What is held back in the guest, once KVM knows.
    mask: Option<u64>,
    /// Whether the thread holds back the kick, once it has left the guest.
    kick: bool,
}

/// A virtual processor of a [machine](crate::machine::Machine).
#[derive(Debug)]
pub struct Vcpu {
    vcpu: VcpuFd,
    /// Its number in the machine, from 0.
    number: u32,
    /// The machine keeps it.
    memory: Weak<GuestMemory>,
    kick: Arc<VcpuKick>,
    ticker: &'static Ticker,
    held_back: HeldBack,
    interrupt_wanted: bool,
    ring: Ring,
    /// Whether registers lie ready for KVM, which it takes at the next entry.
    is_laid_ready: bool,
    /// What it holds that no guest changes, once it was set.
    lasting: Option<Lasting>,
    /// How often KVM has asked to try again, one time after the other.
    refusals: u32,
}

impl Vcpu {
    /// Creates a processor of a machine that has `memory`, in the state in which processors are switched
    /// on.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(crate) fn new(
        vm: &VmFd,
        number: u32,
        memory: &Arc<GuestMemory>,
        ticker: &'static Ticker,
    ) -> Result<Self> {
        let mut vcpu = retry(|| vm.create_vcpu(number.into()))
            .map_err(Error::kvm("create a virtual processor"))?;
        vcpu.set_cpuid2(&System::get()?.cpuid)
            .map_err(Error::kvm("set the processor's features"))?;
        let kick = kick_of(&mut vcpu);
        Ok(Self {
            vcpu,
            number,
            memory: Arc::downgrade(memory),
            kick,
            ticker,
            held_back: HeldBack::default(),
            interrupt_wanted: false,
            ring: Ring::default(),
            is_laid_ready: false,
            lasting: None,
            refusals: 0,
        })
    }

    /// Has it start at `entry`, in ring 3, with its stack pointer at `stack`, when it is entered.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn start(&mut self, entry: u64, stack: u64) -> Result<()> {
        if self.is_laid_ready {
            // It would be taken after this.
            self.complete()?;
        }
        let system = System::get()?;
        let features = Features::of(&system.cpuid);
        let mut sregs = self
            .vcpu
            .get_sregs()
            .map_err(Error::kvm("read the processor's registers"))?;
        registers::prepare(
            &mut sregs,
            root_table(self.memory().plan(), self.number),
            &features,
        );
        self.vcpu
            .set_sregs(&sregs)
            .map_err(Error::kvm("set the processor's registers"))?;
        let regs = registers::first(entry, stack, system.is_qemu);
        self.vcpu
            .set_regs(&regs)
            .map_err(Error::kvm("set the processor's registers"))?;
        if features.xcr0 != 0 {
            let mut xcrs = kvm_xcrs {
                nr_xcrs: 1,
                ..Default::default()
            };
            xcrs.xcrs[0] = kvm_xcr {
                xcr: 0,
                value: features.xcr0,
                ..Default::default()
            };
            self.vcpu
                .set_xcrs(&xcrs)
                .map_err(Error::kvm("switch the processor's vector units on"))?;
        }
        Ok(())
    }

    /// Completes what the guest was about to do when it was left, such as reading a port: until then
    /// KVM holds some of the processor's state back, and would go on with it in any other state that is
    /// set (KVM API, 5, `KVM_EXIT_IO`).
    ///
    /// # Errors
    ///
    /// [`Error::KvmStopped`] if there is always more of it; what KVM could not do.
    pub fn complete(&mut self) -> Result<()> {
        let completing = "complete what the guest was about to do";
        let vcpu = &mut self.vcpu;
        let mut last = None;
        for _ in 0..MOST_PIECES {
            let left = self.kick.without_guest(|| vcpu.run().map(drop));
            self.is_laid_ready = is_laid_ready(vcpu);
            match left {
                Err(error) if error.errno() == libc::EINTR => return Ok(()),
                Err(error) if error.errno() != libc::EAGAIN => {
                    return Err(Error::kvm(completing)(error));
                }
                // What is wide comes in pieces.
                again => last = again.err(),
            }
        }
        if let Some(error) = last {
            // It cannot start the thread that does its housekeeping, for one.
            return Err(Error::kvm(completing)(error));
        }
        Err(Error::KvmStopped(
            "it does not complete what the guest was about to do".into(),
        ))
    }

    /// All that it holds, with the guest where it stands.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(crate) fn state(&mut self) -> Result<VcpuState> {
        self.complete()?;
        Ok(VcpuState {
            cpu: CpuState::read(&self.vcpu, &System::get()?.model_specific)?,
            interrupt_wanted: self.interrupt_wanted,
        })
    }

    /// Has it hold just this, and nothing of what it held. Who is to be woken by its [kick](Self::kick)
    /// is another matter: what it was kicked for it is still kicked for.
    ///
    /// # Errors
    ///
    /// What KVM could not do. It is then not to be entered.
    pub(crate) fn restore(&mut self, state: &VcpuState) -> Result<()> {
        // Without an interrupt controller, KVM takes CR8 from here at each entry (KVM API, 5).
        self.vcpu.get_kvm_run().cr8 = state.cpu.cr8();
        self.complete()?;
        let takes = System::get()?.takes_registers;
        let held = self.lasting.take();
        let held = held.filter(|held| held.stays() && held == state.cpu.lasting());
        state.cpu.set(&mut self.vcpu, takes, held.is_some())?;
        self.lasting = Some(held.unwrap_or_else(|| state.cpu.lasting().clone()));
        self.is_laid_ready = takes;
        self.vcpu.get_kvm_run().request_interrupt_window = 0;
        self.interrupt_wanted = state.interrupt_wanted;
        self.ring.forget(&mut self.vcpu);
        self.refusals = 0;
        Ok(())
    }

    /// Serves another guest from now on, whose memory this is: who could kick it cannot any more.
    pub(crate) fn renew(&mut self, memory: &Arc<GuestMemory>) {
        self.kick.disarm();
        self.vcpu.get_kvm_run().immediate_exit = 0;
        self.ring.forget(&mut self.vcpu);
        // Where there is none, not even the attempt is for nothing.
        if System::get().is_ok_and(System::has_branch_barrier) {
            let _ = ioctl::branch_barrier(&self.vcpu);
        }
        self.kick = kick_of(&mut self.vcpu);
        self.memory = Arc::downgrade(memory);
    }

    /// Its guest goes on elsewhere, in another processor: gives what others kick the guest by. It is left
    /// with this memory, which is nobody's.
    pub(crate) fn detach(&mut self, memory: &Arc<GuestMemory>) -> Arc<VcpuKick> {
        self.kick.disarm();
        self.memory = Arc::downgrade(memory);
        std::mem::replace(&mut self.kick, Arc::new(Kick::idle()))
    }

    /// A guest goes on here, with what others kick it by and its memory.
    pub(crate) fn attach(&mut self, kick: Arc<VcpuKick>, memory: &Arc<GuestMemory>) {
        self.kick.disarm();
        kick.arm(run_page(&mut self.vcpu));
        self.kick = kick;
        self.memory = Arc::downgrade(memory);
    }

    /// The processor itself, with all that was laid ready for it, for tests that leave there what no guest could.
    ///
    /// # Errors
    ///
    /// As [`Self::complete`].
    #[doc(hidden)]
    pub fn opened(&mut self) -> Result<&VcpuFd> {
        if self.is_laid_ready {
            self.complete()?;
        }
        self.lasting = None;
        Ok(&self.vcpu)
    }

    /// Its general registers, wherever they are now.
    pub(crate) fn general(&self) -> std::result::Result<kvm_regs, kvm_ioctls::Error> {
        match self.is_laid_ready {
            true => Ok(self.vcpu.sync_regs().regs),
            false => self.vcpu.get_regs(),
        }
    }

    /// Its special registers, wherever they are now.
    pub(crate) fn special(&self) -> std::result::Result<kvm_sregs, kvm_ioctls::Error> {
        match self.is_laid_ready {
            true => Ok(self.vcpu.sync_regs().sregs),
            false => self.vcpu.get_sregs(),
        }
    }

    /// Whether its guest has the host's counter of time as it is; gives it that, if it can be given.
    pub(crate) fn line_up(&self) -> bool {
        let lasting = self.lasting.as_ref();
        lasting.is_some_and(Lasting::has_hosts_counter) || counter::line_up(&self.vcpu)
    }

    /// How quick the host's counter is, in kHz, if KVM knows.
    pub(crate) fn counter_khz(&self) -> Option<u32> {
        self.vcpu.get_tsc_khz().ok()
    }

    /// What others kick it by.
    pub fn kick(&self) -> &Arc<VcpuKick> {
        &self.kick
    }

    /// Asks for an interrupt as soon as the guest can take one.
    pub fn interrupt(&mut self) {
        self.interrupt_wanted = true;
    }

    /// Injects a wanted interrupt if the guest can take it, else asks KVM to tell when. To be called
    /// before each [entry](Self::enter). Returns whether one was injected.
    ///
    /// Without an interrupt controller in the kernel, an interrupt must not be injected
    /// while the guest has them disabled (KVM API, 4.16, `KVM_INTERRUPT`).
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn inject(&mut self) -> Result<bool> {
        if !self.interrupt_wanted {
            return Ok(false);
        }
        let run = self.vcpu.get_kvm_run();
        let ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0;
        run.request_interrupt_window = u8::from(!ready);
        if ready {
            if self.is_laid_ready {
                // What is laid ready would take the interrupt back.
                self.complete()?;
            }
            let vector = match self.begins_upcall()? {
                true => port::UPCALL_VECTOR,
                false => port::IRQ_VECTOR,
            };
            ioctl::interrupt(&self.vcpu, vector).map_err(|source| Error::Kvm {
                action: "inject an interrupt",
                source,
            })?;
            self.interrupt_wanted = false;
        }
        Ok(ready)
    }

    /// Whether the interrupt that is about to be injected is to be an upcall. In ring 0 none is
    /// redirected, whatever the guest says: a guest that is truthful masks them before it halts.
    fn begins_upcall(&mut self) -> Result<bool> {
        let control = self.memory().control_of(self.number);
        Ok(upcall::is_wanted(&control)
            && self.ring.is_user(&mut self.vcpu)?
            && upcall::host_begins(&control))
    }

    /// Sees to it that a kick reaches the thread, which is the calling one, in the guest, and that
    /// all else is held back there that is held back here.
    ///
    /// A thread is asked when it is a new one, and after each stay that was interrupted: if its mask
    /// has changed meanwhile, a signal ends one stay for nothing, or waits for the end of one.
    fn let_kicks_through(&mut self, thread: i32) -> Result<()> {
        if self.held_back.thread == thread {
            return Ok(());
        }
        let (mask, kick) = signal::held_back();
        if self.held_back.mask != Some(mask) {
            ioctl::set_signal_mask(&self.vcpu, mask).map_err(|source| Error::Kvm {
                action: "set which signals interrupt a guest",
                source,
            })?;
        }
        self.held_back = HeldBack {
            thread,
            mask: Some(mask),
            kick,
        };
        Ok(())
    }

    /// A stay was interrupted, perhaps by a signal that this thread holds back.
    fn interrupted(&mut self, reasons: Reasons) -> Exit {
        if self.held_back.kick {
            signal::swallow();
        }
        self.held_back.thread = 0;
        Exit::Interrupted(reasons)
    }

    /// Enters the guest and returns when it is left, at the latest `most` later, rounded up to
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// What KVM could not do; never because of what the guest did.
    pub fn enter(&mut self, most: Duration) -> Result<Exit> {
        let thread = thread_id();
        self.let_kicks_through(thread)?;
        // KVM takes what is laid ready before anything else, whatever comes of the entry.
        self.is_laid_ready = false;
        self.kick.enter(thread, self.ticker.after(most));
        self.ticker.entered(&self.kick);
        let exit = self.vcpu.run();
        let reasons = self.kick.leave(exit.is_err());
        let exit = match exit {
            Ok(VcpuExit::IoOut(at, _)) => Ok(match at {
                port::SUBMIT => Exit::Submit,
                port::WAIT => Exit::Wait,
                port::START => Exit::Start,
                port::NUDGE => Exit::Nudge,
                port::MAP => Exit::Map,
                port::EXIT => Exit::End(End::Exit),
                port::ABORT => Exit::End(End::Abort),
                port::FAULT => self.exception()?,
                other => violation(Violation::PortWritten(other)),
            }),
            Ok(VcpuExit::IoIn(at, _)) => Ok(violation(Violation::PortRead(at))),
            Ok(VcpuExit::Hlt) => Ok(Exit::Halt),
            Ok(VcpuExit::IrqWindowOpen) => Ok(Exit::Interrupted(reasons)),
            Ok(VcpuExit::Intr) => Ok(self.interrupted(reasons)),
            Ok(VcpuExit::MmioRead(at, _)) => Ok(violation(Violation::AddressRead(at))),
            Ok(VcpuExit::MmioWrite(at, _)) => Ok(violation(Violation::AddressWritten(at))),
            Ok(VcpuExit::Shutdown) => Ok(Exit::End(End::Shutdown)),
            Ok(VcpuExit::FailEntry(reason, cpu)) => Err(Error::KvmStopped(format!(
                "entering the guest failed on processor {cpu} for the hardware's reason {reason:#x}"
            ))),
            Ok(VcpuExit::InternalError) => Err(self.internal_error()),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => Err(Error::KvmStopped(format!(
                "guest memory at {gpa:#x} could not be reached"
            ))),
            Ok(other) => Err(Error::KvmStopped(format!("unexpected exit {other:?}"))),
            Err(error) if error.errno() == libc::EINTR => Ok(self.interrupted(reasons)),
            Err(error) if error.errno() == libc::EAGAIN && self.refusals < REFUSALS => {
                self.refusals += 1;
                self.is_laid_ready = is_laid_ready(&mut self.vcpu);
                return Ok(Exit::Interrupted(reasons));
            }
            Err(error) => Err(Error::kvm("run the virtual processor")(error)),
        };
        self.refusals = 0;
        exit
    }

    fn internal_error(&mut self) -> Error {
        let at = self.instruction_pointer();
        let run = self.vcpu.get_kvm_run();
        // SAFETY: the exit reason says that this is the union's field.
        let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
        Error::KvmStopped(format!(
            "it could not emulate what the guest did at {at:#x} (suberror {suberror})"
        ))
    }

    /// The control registers and descriptor tables with which the guest was started, and with
    /// which it runs: nothing of it changes them.
    ///
    /// # Errors
    ///
    /// As [`System::get`].
    pub(crate) fn start_registers(&self) -> Result<kvm_sregs> {
        let mut sregs = kvm_sregs::default();
        let features = Features::of(&System::get()?.cpuid);
        registers::prepare(
            &mut sregs,
            root_table(self.memory().plan(), self.number),
            &features,
        );
        Ok(sregs)
    }

    /// Its number in the machine, from 0.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// What it runs.
    pub(crate) fn memory(&self) -> Arc<GuestMemory> {
        self.memory.upgrade().expect("a machine keeps its memory")
    }

    /// Reads what an exception stub left on its stack.
    fn exception(&mut self) -> Result<Exit> {
        let reading = "read the registers of a guest that faulted";
        let regs = self.general().map_err(Error::kvm(reading))?;
        let sregs = self.special().map_err(Error::kvm(reading))?;
        if sregs.cs.selector & 3 != 0 {
            return Ok(violation(Violation::StubDoorbell));
        }
        let Some(frame) = self.frame::<FRAME_WORDS>(regs.rsp, |at| at) else {
            return Ok(violation(Violation::StubStack));
        };
        let exception = Exception::new(frame, &regs, sregs.cr2);
        if self.goes_on(&exception)? {
            return Ok(Exit::Caught);
        }
        Ok(Exit::End(End::Exception(Box::new(exception))))
    }

    /// Words of a ring-0 stack into which `rsp` points: from where `place` says, given the
    /// offset of `rsp` in the stack.
    fn frame<const WORDS: usize>(
        &self,
        rsp: u64,
        place: impl Fn(u64) -> u64,
    ) -> Option<[u64; WORDS]> {
        let memory = self.memory();
        let own = memory.plan().own(self.number);
        let len = WORDS as u64 * 8;
        // The double-fault stack lies two pages above the ring-0 stack virtually, and right
        // after it physically.
        let at = [
            (ring0_stack_at(), own.ring0_stack),
            (fault_stack_at(), own.fault_stack),
        ]
        .into_iter()
        .find_map(|(virt, region)| {
            let offset = place(
                rsp.checked_sub(virt)
                    .filter(|offset| *offset <= region.len)?,
            );
            (offset + len <= region.len).then_some(region.offset + offset)
        })?;
        let mut bytes = vec![0; len as usize];
        memory.read(at, &mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        Some(std::array::from_fn(|index| {
            u64::from_le_bytes(words[index])
        }))
    }

    /// The registers of the guest's own code while it is stopped. If it stands in a stub, the
    /// processor has kept what it came with at the upper end of the stub's stack.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn registers(&self) -> Result<Registers> {
        let reading = "read the registers of a guest";
        let regs = self.general().map_err(Error::kvm(reading))?;
        let sregs = self.special().map_err(Error::kvm(reading))?;
        let frame = (sregs.cs.selector & 3 == 0)
            .then(|| self.frame::<5>(regs.rsp, |_| RING0_STACK - 5 * 8))
            .flatten();
        let (rip, rflags, rsp) = match frame {
            Some([rip, _cs, rflags, rsp, _ss]) => (rip, rflags, rsp),
            None => (regs.rip, regs.rflags, regs.rsp),
        };
        Ok(Registers::new(&regs, rip, rflags, rsp))
    }

    /// The state of x87 and SSE, as FXSAVE writes it (Intel SDM vol. 1, 10.5.1); `None` if KVM
    /// does not tell.
    pub fn floating_point(&self) -> Option<[u8; 512]> {
        let state = self.vcpu.get_xsave().ok()?;
        let bytes = state.region.iter().flat_map(|word| word.to_le_bytes());
        let bytes: Vec<u8> = bytes.take(512).collect();
        bytes.try_into().ok()
    }

    /// Where the processor stands; zero if KVM does not tell.
    fn instruction_pointer(&self) -> u64 {
        self.general().map_or(0, |regs| regs.rip)
    }
}

/// Whether KVM has not taken yet what was laid ready for it.
fn is_laid_ready(vcpu: &mut VcpuFd) -> bool {
    vcpu.get_kvm_run().kvm_dirty_regs != 0
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.kick.disarm();
    }
}

/// Guest-physical address of the root of a processor's page tables.
pub(crate) fn root_table(plan: &Plan, processor: u32) -> u64 {
    plan.physical(plan.own(processor).tables)
}
