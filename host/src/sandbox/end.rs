//! What is found out about a guest once it has stopped.

use std::sync::Arc;

use super::Sandbox;
use crate::debug::backtrace::Backtrace;
use crate::debug::dump::CrashDump;
use crate::debug::unwind::unwind;
use crate::error::Result;
use crate::report::{Instruction, LONGEST_INSTRUCTION, Outcome, Registers};

impl Sandbox {
    /// Where the guest stands, or stood when it ended: the calls that led there.
    ///
    /// A [`Fault`](crate::Fault) and a [`Panic`](crate::Panic) carry their own; this is for guests
    /// that were stopped by a limit, a violation or a kill.
    ///
    /// # Errors
    ///
    /// KVM did not give the registers.
    pub fn backtrace(&self) -> Result<Backtrace> {
        Ok(self.backtrace_from(&self.vcpu.registers()?))
    }

    /// What a debugger needs to look at the guest as it stands, or stood when it ended.
    ///
    /// # Errors
    ///
    /// KVM did not give the registers.
    pub fn crash_dump(&self) -> Result<CrashDump> {
        Ok(CrashDump::new(
            self.memory.view(&self.image),
            self.image.clone(),
            self.vcpu.registers()?,
            self.vcpu.floating_point(),
            self.signal,
        ))
    }

    fn backtrace_from(&self, registers: &Registers) -> Backtrace {
        let view = self.memory.view(&self.image);
        let elf = self.symbols.elf();
        let calls = unwind(registers, &view, elf.as_ref(), self.symbols.bias());
        Backtrace::new(calls, Arc::clone(&self.symbols))
    }

    /// Adds to an outcome what the guest's memory and registers tell about it.
    pub(super) fn examine(&mut self, outcome: &mut Outcome) {
        self.signal = signal(outcome);
        match outcome {
            Outcome::Fault(fault) if fault.has_registers() => {
                let registers = fault.registers;
                let mut bytes = vec![0; LONGEST_INSTRUCTION];
                let len = self
                    .memory
                    .view(&self.image)
                    .read(registers.rip, &mut bytes);
                bytes.truncate(len);
                fault.instruction = Instruction::new(registers.rip, bytes);
                fault.backtrace = self.backtrace_from(&registers);
            }
            Outcome::Panic(panic) => match self.backtrace() {
                Ok(backtrace) => panic.backtrace = backtrace,
                Err(error) => tracing::warn!(%error, "a panic has no backtrace"),
            },
            _ => {}
        }
    }
}

/// The signal that a process would have ended with in the guest's place, for debuggers.
fn signal(outcome: &Outcome) -> i32 {
    use crate::report::Cause;
    match outcome {
        Outcome::Exit(_) => 0,
        Outcome::Fault(fault) => match fault.cause() {
            Cause::DivideError | Cause::FloatingPoint => libc::SIGFPE,
            Cause::IllegalInstruction => libc::SIGILL,
            Cause::Alignment => libc::SIGBUS,
            Cause::Debug => libc::SIGTRAP,
            _ => libc::SIGSEGV,
        },
        Outcome::Panic(_) => libc::SIGABRT,
        Outcome::Violation(_) => libc::SIGSYS,
        Outcome::Limit(_) => libc::SIGXCPU,
        Outcome::Deadlock => libc::SIGSTOP,
        Outcome::Cancelled => libc::SIGKILL,
    }
}
