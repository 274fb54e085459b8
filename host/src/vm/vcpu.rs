//! One virtual processor: made ready to start in ring 3, entered, left.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{kvm_regs, kvm_sregs, kvm_userspace_memory_region, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use wakebox_abi::port;

use super::descriptors;
use super::ioctl;
use super::kick::{Kick, Reasons};
use super::memory::GuestMemory;
use super::process;
use super::shutdown;
use super::signal::{self, RunPage, VcpuKick, thread_id};
use super::space::{RING0_STACK, Space, ring0_stack_at};
use super::system::{System, retry};
use super::ticker::Ticker;
use crate::error::{Error, Result};
use crate::loader::Image;
use crate::observe::Recorder;
use crate::report::{Fault, FaultKind, Registers};
use crate::trace::ExitReason;

/// Control register bits (Intel SDM vol. 3A, 2.5; AMD APM vol. 2, 3.1).
mod bits {
    pub(super) const CR0_PE: u64 = 1 << 0;
    pub(super) const CR0_MP: u64 = 1 << 1;
    pub(super) const CR0_ET: u64 = 1 << 4;
    pub(super) const CR0_NE: u64 = 1 << 5;
    pub(super) const CR0_WP: u64 = 1 << 16;
    pub(super) const CR0_PG: u64 = 1 << 31;
    pub(super) const CR4_PAE: u64 = 1 << 5;
    pub(super) const CR4_OSFXSR: u64 = 1 << 9;
    pub(super) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(super) const CR4_UMIP: u64 = 1 << 11;
    pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
    pub(super) const CR4_SMEP: u64 = 1 << 20;
    pub(super) const EFER_LME: u64 = 1 << 8;
    pub(super) const EFER_LMA: u64 = 1 << 10;
    pub(super) const EFER_NXE: u64 = 1 << 11;
    /// Always one; interrupts on. With I/O privilege level 0, the bitmap in the TSS says which
    /// ports ring 3 may use, and `cli` is a fault.
    pub(super) const RFLAGS: u64 = 1 << 1 | 1 << 9;
    /// I/O privilege level 3: ring 3 may use any port.
    pub(super) const RFLAGS_IOPL3: u64 = 3 << 12;
}

/// How often in a row KVM may ask to try again (`EAGAIN`) before that is an error.
const REFUSALS: u32 = 1_000;

/// Why the guest was left.
#[derive(Debug)]
pub(crate) enum Exit {
    /// It rang [`port::SUBMIT`].
    Submit,
    /// It rang [`port::WAIT`].
    Wait,
    /// It halted in ring 0 to be woken by an interrupt.
    Halt,
    /// It was kicked, or can now be interrupted.
    Interrupted(Reasons),
    /// It is not entered again.
    End(End),
}

/// Why a guest is not entered again.
#[derive(Debug)]
pub(crate) enum End {
    /// It rang [`port::EXIT`].
    Exit,
    /// It rang [`port::ABORT`].
    Abort,
    /// It raised an exception.
    Fault(Box<Fault>),
    /// Its processor gave up; [`Vcpu::shut_down`] says why.
    Shutdown,
    /// It did what no guest may do.
    Violation(String),
}

impl Exit {
    /// The same, for a trace.
    pub(crate) fn reason(&self) -> ExitReason {
        match self {
            Self::Submit => ExitReason::Submit,
            Self::Wait => ExitReason::Wait,
            Self::Halt => ExitReason::Halt,
            Self::End(End::Exit) => ExitReason::Exit,
            Self::End(End::Abort) => ExitReason::Abort,
            Self::End(End::Fault(_) | End::Shutdown) => ExitReason::Fault,
            Self::End(End::Violation(_)) => ExitReason::Violation,
            Self::Interrupted(reasons) if reasons.has(Reasons::QUANTUM) => ExitReason::Quantum,
            Self::Interrupted(_) => ExitReason::Kick,
        }
    }
}

fn violation(what: String) -> Exit {
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

/// A virtual processor and the machine around it.
#[derive(Debug)]
pub(crate) struct Vcpu {
    vcpu: VcpuFd,
    // Keeps the machine alive, and its memory mapped, as long as its processor.
    _vm: VmFd,
    memory: Arc<GuestMemory>,
    kick: Arc<VcpuKick>,
    ticker: &'static Ticker,
    /// The process that made it.
    process: u32,
    held_back: HeldBack,
    interrupt_wanted: bool,
    /// How often KVM has asked to try again, one time after the other.
    refusals: u32,
    /// Interrupts injected.
    pub(crate) interrupts: u64,
    /// Writes down what is done, if somebody watches.
    pub(crate) recorder: Option<Recorder>,
}

impl Vcpu {
    /// Creates a machine with `memory` and one processor that will start at `entry`, in ring
    /// 3, with its stack pointer at `stack`.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub(crate) fn new(memory: &Arc<GuestMemory>, entry: u64, stack: u64) -> Result<Self> {
        let system = System::get()?;
        let ticker = Ticker::get()?;
        let vm = system.create_vm()?;
        let (userspace_addr, memory_size) = memory.host_range();
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: memory.space().base,
            memory_size,
            userspace_addr,
            flags: 0,
        };
        // SAFETY: the range is the whole mapping that `memory` owns, and `Self` keeps `memory`
        // alive as long as the machine. The guest may change any byte: that is `memory`'s subject.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(Error::kvm("give memory to the virtual machine"))?;
        let mut vcpu =
            retry(|| vm.create_vcpu(0)).map_err(Error::kvm("create a virtual processor"))?;
        vcpu.set_cpuid2(&system.cpuid)
            .map_err(Error::kvm("set the processor's features"))?;

        let features = Features::of(system);
        let mut sregs = vcpu
            .get_sregs()
            .map_err(Error::kvm("read the processor's registers"))?;
        prepare(&mut sregs, memory.space(), &features);
        vcpu.set_sregs(&sregs)
            .map_err(Error::kvm("set the processor's registers"))?;
        let regs = kvm_regs {
            rip: entry,
            rsp: stack,
            // QEMU's emulation reads the bitmap only of a TSS that is not busy, which no processor
            // accepts in its task register: there, the privilege level is the only way to ring.
            rflags: bits::RFLAGS | flag(system.is_qemu, bits::RFLAGS_IOPL3),
            ..Default::default()
        };
        vcpu.set_regs(&regs)
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
            vcpu.set_xcrs(&xcrs)
                .map_err(Error::kvm("switch the processor's vector units on"))?;
        }
        let flag = NonNull::from(&mut vcpu.get_kvm_run().immediate_exit);
        // SAFETY: the flag lies in the page that `vcpu` keeps mapped; `Drop` disarms before
        // that ends.
        let page = unsafe { RunPage::new(flag) };
        let kick = Arc::new(Kick::new(page));
        ticker.watch(&kick);
        Ok(Self {
            vcpu,
            _vm: vm,
            memory: memory.clone(),
            kick,
            ticker,
            process: process::generation(),
            held_back: HeldBack::default(),
            interrupt_wanted: false,
            refusals: 0,
            interrupts: 0,
            recorder: None,
        })
    }

    /// Whether this process has made it, and not one that this is a child of: KVM serves that alone.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == process::generation()
    }

    /// The processor itself, to set up what this module does not know.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// What others kick it by.
    pub(crate) fn kick(&self) -> &Arc<VcpuKick> {
        &self.kick
    }

    /// Asks for an interrupt as soon as the guest can take one.
    pub(crate) fn interrupt(&mut self) {
        self.interrupt_wanted = true;
    }

    /// Injects a wanted interrupt if the guest can take it, else asks KVM to tell when.
    ///
    /// Without an interrupt controller in the kernel, an interrupt must not be injected
    /// while the guest has them disabled (KVM API, 4.16, `KVM_INTERRUPT`).
    fn inject(&mut self) -> Result<()> {
        if !self.interrupt_wanted {
            return Ok(());
        }
        let run = self.vcpu.get_kvm_run();
        let ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0;
        run.request_interrupt_window = u8::from(!ready);
        if ready {
            if let Some(recorder) = &self.recorder {
                recorder.injected();
            }
            ioctl::interrupt(&self.vcpu, port::IRQ_VECTOR).map_err(|source| Error::Kvm {
                action: "inject an interrupt",
                source,
            })?;
            self.interrupt_wanted = false;
            self.interrupts += 1;
        }
        Ok(())
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
    pub(crate) fn enter(&mut self, most: Duration) -> Result<Exit> {
        let thread = thread_id();
        self.let_kicks_through(thread)?;
        self.inject()?;
        if let Some(recorder) = &self.recorder {
            recorder.entered();
        }
        self.kick.enter(thread, self.ticker.after(most));
        self.ticker.entered();
        let exit = self.vcpu.run();
        let reasons = self.kick.leave(exit.is_err());
        let exit = match exit {
            Ok(VcpuExit::IoOut(at, _)) => Ok(match at {
                port::SUBMIT => Exit::Submit,
                port::WAIT => Exit::Wait,
                port::EXIT => Exit::End(End::Exit),
                port::ABORT => Exit::End(End::Abort),
                port::FAULT => self.fault()?,
                other => violation(format!("it wrote to the port {other:#x}")),
            }),
            Ok(VcpuExit::IoIn(at, _)) => Ok(violation(format!("it read the port {at:#x}"))),
            Ok(VcpuExit::Hlt) => Ok(Exit::Halt),
            Ok(VcpuExit::IrqWindowOpen) => Ok(Exit::Interrupted(reasons)),
            Ok(VcpuExit::Intr) => Ok(self.interrupted(reasons)),
            Ok(VcpuExit::MmioRead(at, _)) => Ok(violation(format!(
                "it read the physical address {at:#x}, where nothing is"
            ))),
            Ok(VcpuExit::MmioWrite(at, _)) => Ok(violation(format!(
                "it wrote the physical address {at:#x}, where nothing is"
            ))),
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

    /// What [`End::Shutdown`] left behind, of a guest that was loaded from `image`.
    ///
    /// # Errors
    ///
    /// [`Error::KvmStopped`] if it is the host's fault; what KVM could not do.
    pub(crate) fn shut_down(&self, image: &Image) -> Result<Fault> {
        shutdown::examine(self, &self.memory, image)
    }

    /// The control registers and descriptor tables with which the guest was started, and with
    /// which it runs: nothing of it changes them.
    ///
    /// # Errors
    ///
    /// As [`System::get`].
    pub(super) fn start(&self, space: &Space) -> Result<kvm_sregs> {
        let mut sregs = kvm_sregs::default();
        prepare(&mut sregs, space, &Features::of(System::get()?));
        Ok(sregs)
    }

    /// Reads what an exception stub left on its stack.
    fn fault(&self) -> Result<Exit> {
        let reading = "read the registers of a guest that faulted";
        let regs = self.vcpu.get_regs().map_err(Error::kvm(reading))?;
        let sregs = self.vcpu.get_sregs().map_err(Error::kvm(reading))?;
        if sregs.cs.selector & 3 != 0 {
            return Ok(violation(
                "it rang the doorbell of the exception stubs itself".into(),
            ));
        }
        let Some(frame) = self.frame::<7>(regs.rsp, |at| at) else {
            return Ok(violation(
                "an exception stub ran on a stack that is not its own".into(),
            ));
        };
        let [vector, error_code, rip, _cs, rflags, rsp, _ss] = frame;
        let kind = FaultKind::from_vector(vector as u8, error_code);
        let address = kind.is_page_fault().then_some(sregs.cr2);
        let registers = registers(&regs, rip, rflags, rsp);
        let fault = Fault::new(kind, address, error_code, registers);
        Ok(Exit::End(End::Fault(Box::new(fault))))
    }

    /// Words of a ring-0 stack into which `rsp` points: from where `place` says, given the
    /// offset of `rsp` in the stack.
    fn frame<const WORDS: usize>(
        &self,
        rsp: u64,
        place: impl Fn(u64) -> u64,
    ) -> Option<[u64; WORDS]> {
        let space = self.memory.space();
        let len = WORDS as u64 * 8;
        // The double-fault stack lies two pages above the ring-0 stack virtually, and right
        // after it physically.
        let at = [
            (ring0_stack_at(), space.ring0_stack),
            (super::space::fault_stack_at(), space.fault_stack),
        ]
        .into_iter()
        .find_map(|(virt, part)| {
            let offset = place(rsp.checked_sub(virt).filter(|offset| *offset <= part.len)?);
            (offset + len <= part.len).then_some(part.offset + offset)
        })?;
        let mut bytes = vec![0; len as usize];
        self.memory.read(at, &mut bytes);
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
    pub(crate) fn registers(&self) -> Result<Registers> {
        let reading = "read the registers of a guest";
        let regs = self.vcpu.get_regs().map_err(Error::kvm(reading))?;
        let sregs = self.vcpu.get_sregs().map_err(Error::kvm(reading))?;
        let frame = (sregs.cs.selector & 3 == 0)
            .then(|| self.frame::<5>(regs.rsp, |_| RING0_STACK - 5 * 8))
            .flatten();
        let (rip, rflags, rsp) = match frame {
            Some([rip, _cs, rflags, rsp, _ss]) => (rip, rflags, rsp),
            None => (regs.rip, regs.rflags, regs.rsp),
        };
        Ok(registers(&regs, rip, rflags, rsp))
    }

    /// The state of x87 and SSE, as FXSAVE writes it (Intel SDM vol. 1, 10.5.1); `None` if KVM
    /// does not tell.
    pub(crate) fn floating_point(&self) -> Option<[u8; 512]> {
        let state = self.vcpu.get_xsave().ok()?;
        let bytes = state.region.iter().flat_map(|word| word.to_le_bytes());
        let bytes: Vec<u8> = bytes.take(512).collect();
        bytes.try_into().ok()
    }

    /// Where the processor stands; zero if KVM does not tell.
    fn instruction_pointer(&self) -> u64 {
        self.vcpu.get_regs().map_or(0, |regs| regs.rip)
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.kick.disarm();
    }
}

/// The registers as KVM has them, but for those that the processor kept on a stack.
fn registers(regs: &kvm_regs, rip: u64, rflags: u64, rsp: u64) -> Registers {
    Registers {
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

/// Features of the processor that the control registers switch on.
struct Features {
    umip: bool,
    smep: bool,
    /// What `XCR0` gets; zero without XSAVE.
    xcr0: u64,
}

impl Features {
    fn of(system: &System) -> Self {
        let leaf = |function: u32, index: u32| {
            system
                .cpuid
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

/// Long mode, paging on, ring 3.
fn prepare(sregs: &mut kvm_sregs, space: &Space, features: &Features) {
    sregs.cr3 = space.physical(space.tables);
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
