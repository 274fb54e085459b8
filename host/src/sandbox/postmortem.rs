//! What is found out about a guest once it has stopped.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use wakebox_vmm::memory::View;
use wakebox_vmm::x86_64::registers::Registers;

use super::Sandbox;
use crate::debug::backtrace::Backtrace;
use crate::debug::dump::{CrashDump, Thread};
use crate::debug::symbols::Symbols;
use crate::debug::unwind::unwind_with;
use crate::elf::fuel::{Fuel, limits};
use crate::error::Result;
use crate::outcome::{Instruction, LONGEST_INSTRUCTION, Outcome};
use crate::outside::{Panicked, guarded};

impl Sandbox {
    /// Where the guest stands, or stood when it ended: the calls that led there, on the processor that has
    /// ended it.
    ///
    /// A [`Fault`](crate::Fault) and a [`Panic`](crate::Panic) carry their own; this is for guests
    /// that were stopped by a limit, a violation or a kill.
    ///
    /// # Errors
    ///
    /// KVM did not give the registers.
    pub fn backtrace(&self) -> Result<Backtrace> {
        self.backtrace_at(self.ender)
    }

    /// The same of a processor, by its number, from 0. `None` if the guest has none of this number, or it has not begun.
    ///
    /// # Errors
    ///
    /// As [`Self::backtrace`].
    pub fn backtrace_of(&self, processor: u32) -> Result<Option<Backtrace>> {
        let has_begun = self.has_begun(processor);
        has_begun.then(|| self.backtrace_at(processor)).transpose()
    }

    fn backtrace_at(&self, processor: u32) -> Result<Backtrace> {
        let registers = self.machine.vcpu_of(processor).registers()?;
        let stopped = self.stopped_at(processor, registers);
        Ok(stopped.backtrace(&Fuel::new(limits::UNWIND)))
    }

    fn has_begun(&self, processor: u32) -> bool {
        match &self.processors {
            Some(processors) => processors.herd.has_begun(processor),
            None => processor == 0,
        }
    }

    /// What a debugger needs to look at the guest as it stands, or stood when it ended.
    ///
    /// # Errors
    ///
    /// KVM did not give the registers.
    pub fn crash_dump(&self) -> Result<CrashDump> {
        let thread = |processor| {
            let vcpu = self.machine.vcpu_of(processor);
            Ok(Thread {
                processor,
                registers: vcpu.registers()?,
                floating_point: vcpu.floating_point(),
            })
        };
        let others = (0..self.memory.plan().processors())
            .filter(|processor| *processor != self.ender && self.has_begun(*processor));
        Ok(CrashDump::new(
            self.memory.view_of(self.ender),
            self.image.clone(),
            thread(self.ender)?,
            others.map(thread).collect::<Result<_>>()?,
            self.signal,
        ))
    }

    fn stopped_at(&self, processor: u32, registers: Registers) -> Stopped {
        Stopped {
            view: self.memory.view_of(processor),
            symbols: self.symbols.clone(),
            registers,
        }
    }

    /// Adds to an outcome what the guest's memory and registers tell about it.
    pub(super) async fn examine(&mut self, outcome: &mut Outcome) {
        self.signal = signal(outcome);
        match outcome {
            Outcome::Fault(fault) if fault.has_registers() => {
                let registers = fault.registers;
                let mut bytes = vec![0; LONGEST_INSTRUCTION];
                let len = self
                    .memory
                    .view_of(self.ender)
                    .read(registers.rip, &mut bytes);
                bytes.truncate(len);
                fault.instruction = Instruction::new(registers.rip, bytes);
                fault.backtrace = self.stopped_at(self.ender, registers).look().await;
            }
            Outcome::Panic(panic) => match self.machine.vcpu_of(self.ender).registers() {
                Ok(registers) => {
                    panic.backtrace = self.stopped_at(self.ender, registers).look().await;
                }
                Err(error) => tracing::warn!(%error, "a panic has no backtrace"),
            },
            _ => {}
        }
    }
}

/// Where a guest has stopped, and what tells of the calls that led there.
struct Stopped {
    view: View,
    symbols: Arc<Symbols>,
    registers: Registers,
}

impl Stopped {
    /// As many of the calls as the fuel lasts for.
    fn backtrace(&self, fuel: &Fuel) -> Backtrace {
        let (elf, bias) = (self.symbols.elf(), self.symbols.bias());
        let calls = unwind_with(fuel, &self.registers, &self.view, elf.as_ref(), bias);
        Backtrace::new(calls, Arc::clone(&self.symbols))
    }

    /// The calls: here if they are soon found, else on a thread for blocking calls, so that nobody else
    /// waits for a stack or for tables that a guest has made up.
    async fn look(self) -> Backtrace {
        let fuel = Fuel::new(limits::UNWIND_AT_ONCE);
        let first = self.backtrace(&fuel);
        if !fuel.is_empty() {
            return first;
        }
        let whole = move || self.backtrace(&Fuel::new(limits::UNWIND));
        // Tokio panics where it cannot start a thread.
        match guarded(|| spawn_blocking(whole)) {
            Ok(found) => found.await.unwrap_or(first),
            Err(Panicked) => first,
        }
    }
}

/// The signal that a process would have ended with in the guest's place, for debuggers.
fn signal(outcome: &Outcome) -> i32 {
    use crate::outcome::Cause;
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
