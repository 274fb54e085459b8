//! What gdb asks of a guest that stands still, and the connection that it asks by: [`Builder::gdb`](crate::Builder::gdb).

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::host_io::{
    HostIo, HostIoErrno, HostIoError, HostIoOpen, HostIoOpenFlags, HostIoOpenMode, HostIoOpenOps,
    HostIoOps, HostIoResult,
};
use gdbstub::target::ext::section_offsets::{Offsets, SectionOffsets, SectionOffsetsOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use wakebox_vmm::memory::View;
use wakebox_vmm::x86_64::descriptors::{RING3_CODE, RING3_DATA};
use wakebox_vmm::x86_64::registers::Registers;

/// What stands in the place of an instruction that gdb wants to be stopped at: `hlt`, which ring 3 may not execute.
const HLT: u8 = 0xf4;

/// A port of this machine where gdb can connect; nobody else can but who is on this machine.
#[derive(Debug)]
pub struct GdbListener(TcpListener);

/// A gdb that has connected.
#[derive(Debug)]
pub struct Gdb(TcpStream);

impl GdbListener {
    /// Listens at a port of 127.0.0.1; 0 is any that is free.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn bind(port: u16) -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits until somebody connects.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn accept(self) -> io::Result<Gdb> {
        let (stream, _) = self.0.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Gdb(stream))
    }
}

impl Gdb {
    /// In a runtime.
    pub(crate) fn into_stream(self) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::from_std(self.0)
    }
}

/// A guest that stands still, as gdb sees and changes it.
#[derive(Debug)]
pub(crate) struct Halted {
    memory: View,
    /// How far from the addresses in its file it lies.
    bias: u64,
    pub(crate) registers: Registers,
    floating_point: Option<[u8; 512]>,
    /// By address, with the byte that belongs there.
    breakpoints: BTreeMap<u64, u8>,
    /// Whether it is to execute one instruction and no more.
    pub(crate) steps: bool,
}

impl Halted {
    pub(crate) fn new(memory: View, bias: u64) -> Self {
        Self {
            memory,
            bias,
            registers: Registers::default(),
            floating_point: None,
            breakpoints: BTreeMap::new(),
            steps: false,
        }
    }

    /// It has stopped with these registers.
    pub(crate) fn stands(&mut self, registers: Registers, floating_point: Option<[u8; 512]>) {
        self.registers = registers;
        self.floating_point = floating_point;
    }

    /// Whether there is a breakpoint.
    pub(crate) fn breaks_at(&self, address: u64) -> bool {
        self.breakpoints.contains_key(&address)
    }

    /// gdb is gone: nothing of it stays.
    pub(crate) fn clear(&mut self) {
        for (address, byte) in std::mem::take(&mut self.breakpoints) {
            self.memory.write(address, &[byte]);
        }
        self.steps = false;
    }
}

impl Target for Halted {
    type Arch = X86_64_SSE;
    type Error = std::convert::Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_host_io(&mut self) -> Option<HostIoOps<'_, Self>> {
        Some(self)
    }

    fn support_section_offsets(&mut self) -> Option<SectionOffsetsOps<'_, Self>> {
        Some(self)
    }
}

/// A number at a place of the area that FXSAVE writes (Intel SDM vol. 1, 10.5.1).
fn saved<const BYTES: usize>(area: &[u8; 512], at: usize) -> [u8; BYTES] {
    std::array::from_fn(|byte| area[at + byte])
}

impl SingleThreadBase for Halted {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let of = &self.registers;
        regs.regs = [
            of.rax, of.rbx, of.rcx, of.rdx, of.rsi, of.rdi, of.rbp, of.rsp, of.r8, of.r9, of.r10,
            of.r11, of.r12, of.r13, of.r14, of.r15,
        ];
        regs.rip = of.rip;
        regs.eflags = of.rflags as u32;
        regs.segments.cs = RING3_CODE.into();
        regs.segments.ss = RING3_DATA.into();
        let Some(area) = &self.floating_point else {
            return Ok(());
        };
        regs.fpu.fctrl = u16::from_le_bytes(saved(area, 0)).into();
        regs.fpu.fstat = u16::from_le_bytes(saved(area, 2)).into();
        regs.mxcsr = u32::from_le_bytes(saved(area, 24));
        for (number, st) in regs.st.iter_mut().enumerate() {
            *st = saved(area, 32 + 16 * number);
        }
        for (number, xmm) in regs.xmm.iter_mut().enumerate() {
            *xmm = u128::from_le_bytes(saved(area, 160 + 16 * number));
        }
        Ok(())
    }

    /// The general ones, and of the flags those that programs set.
    fn write_registers(&mut self, regs: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = regs.regs;
        self.registers = Registers {
            rip: regs.rip,
            rsp,
            rflags: regs.eflags.into(),
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        };
        Ok(())
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let len = self.memory.read(start, data);
        if len == 0 {
            return Err(TargetError::NonFatal);
        }
        let end = start.saturating_add(len as u64);
        for (address, byte) in self.breakpoints.range(start..end) {
            data[(address - start) as usize] = *byte;
        }
        Ok(len)
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        let mut bytes = data.to_owned();
        let end = start.saturating_add(data.len() as u64);
        for (address, byte) in self.breakpoints.range_mut(start..end) {
            let into = (address - start) as usize;
            *byte = std::mem::replace(&mut bytes[into], HLT);
        }
        match self.memory.write(start, &bytes) == bytes.len() {
            true => Ok(()),
            false => Err(TargetError::NonFatal),
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Halted {
    /// A guest has no signals.
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.steps = false;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Halted {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.steps = true;
        Ok(())
    }
}

impl Breakpoints for Halted {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Halted {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let mut byte = [0];
        if self.breaks_at(address) {
            return Ok(true);
        }
        if self.memory.read(address, &mut byte) == 0 || self.memory.write(address, &[HLT]) == 0 {
            return Ok(false);
        }
        let [byte] = byte;
        self.breakpoints.insert(address, byte);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(byte) = self.breakpoints.remove(&address) else {
            return Ok(false);
        };
        self.memory.write(address, &[byte]);
        Ok(true)
    }
}

/// There are no files. gdb would look for the dynamic linker that the file names on its own machine otherwise, and put
/// a breakpoint where that would lie.
impl HostIo for Halted {
    fn support_open(&mut self) -> Option<HostIoOpenOps<'_, Self>> {
        Some(self)
    }
}

impl HostIoOpen for Halted {
    fn open(
        &mut self,
        _name: &[u8],
        _flags: HostIoOpenFlags,
        _mode: HostIoOpenMode,
    ) -> HostIoResult<u32, Self> {
        Err(HostIoError::Errno(HostIoErrno::ENOENT))
    }
}

impl SectionOffsets for Halted {
    fn get_section_offsets(&mut self) -> Result<Offsets<u64>, Self::Error> {
        Ok(Offsets::Sections {
            text: self.bias,
            data: self.bias,
            bss: Some(self.bias),
        })
    }
}
