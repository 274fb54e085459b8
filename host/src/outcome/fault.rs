//! A processor exception in a guest.

use std::fmt;

use serde::{Serialize, Serializer};
use wakebox_abi::layout;
use wakebox_vmm::x86_64::exception::Exception;
use wakebox_vmm::x86_64::registers::Registers;
use wakebox_vmm::x86_64::shutdown::Shutdown;

use crate::debug::backtrace::Backtrace;

/// What kind of exception a guest raised (Intel SDM vol. 3A, 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FaultKind {
    /// #DE: division by zero or overflow of a quotient.
    DivideError,
    /// #DB: a trap flag or a debug register.
    Debug,
    /// #UD: an instruction that does not exist, or `ud2`.
    IllegalInstruction,
    /// #GP: a forbidden instruction or port, or an address that is not canonical.
    GeneralProtection,
    /// #SS: a stack address that is not canonical.
    StackSegment,
    /// #PF: read of an address.
    PageRead,
    /// #PF: write to an address.
    PageWrite,
    /// #PF: execution at an address.
    PageExecute,
    /// #MF: an x87 floating-point exception that is not masked.
    X87,
    /// #AC: an address that is not aligned, with alignment checks on.
    Alignment,
    /// #XM: an SSE or AVX floating-point exception that is not masked.
    Simd,
    /// #DF: an exception while another was being delivered.
    DoubleFault,
    /// The processor gave up: an exception while a double fault was being delivered.
    TripleFault,
    /// Any other exception, by its vector.
    Exception(u8),
}

/// Bits of a page fault's error code (Intel SDM vol. 3A, 4.7).
mod page_fault {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const FETCH: u64 = 1 << 4;
}

impl FaultKind {
    /// The kind for a vector and its error code.
    pub(crate) fn from_vector(vector: u8, error_code: u64) -> Self {
        match vector {
            0 => Self::DivideError,
            1 => Self::Debug,
            6 => Self::IllegalInstruction,
            8 => Self::DoubleFault,
            12 => Self::StackSegment,
            13 => Self::GeneralProtection,
            14 if error_code & page_fault::FETCH != 0 => Self::PageExecute,
            14 if error_code & page_fault::WRITE != 0 => Self::PageWrite,
            14 => Self::PageRead,
            16 => Self::X87,
            17 => Self::Alignment,
            19 => Self::Simd,
            other => Self::Exception(other),
        }
    }

    /// What was tried with an address.
    fn verb(self) -> &'static str {
        match self {
            Self::PageWrite => "write to",
            Self::PageExecute => "execution at",
            _ => "read of",
        }
    }
}

/// What a guest did wrong, as its author would call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// It used a null pointer, or one to a field of nothing.
    NullDereference,
    /// Its stack ran into the guard page below it.
    StackOverflow,
    /// It wrote to code, to constants, or to what the host only lets it read.
    WriteToReadOnly,
    /// It jumped into data.
    ExecutionOfData,
    /// It used an address where nothing is.
    NotMapped,
    /// It used an address that belongs to the machine's own tables.
    Supervisor,
    /// It divided by zero, or a quotient did not fit.
    DivideError,
    /// It ran an instruction that does not exist, or one that is put where code must not get to.
    IllegalInstruction,
    /// It ran an instruction or used a port that guests may not, or an address that is not
    /// canonical.
    GeneralProtection,
    /// It used an address that is not aligned, with alignment checks on.
    Alignment,
    /// It computed with floating-point numbers in a way for which it had asked for an exception.
    FloatingPoint,
    /// It switched single steps or hardware breakpoints on.
    Debug,
    /// It raised an exception in a state in which none could be delivered.
    DoubleFault,
    /// The processor gave up, for something had changed that no guest can reach.
    Shutdown,
    /// Any other exception.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NullDereference => "null pointer",
            Self::StackOverflow => "stack overflow",
            Self::WriteToReadOnly => "write to read-only memory",
            Self::ExecutionOfData => "execution of data",
            Self::NotMapped => "access to memory that is not there",
            Self::Supervisor => "access to the supervisor's page",
            Self::DivideError => "division by zero",
            Self::IllegalInstruction => "illegal instruction",
            Self::GeneralProtection => "general protection",
            Self::Alignment => "unaligned access",
            Self::FloatingPoint => "floating-point exception",
            Self::Debug => "debug exception",
            Self::DoubleFault => "exception that could not be delivered",
            Self::Shutdown => "shutdown of the processor",
            Self::Other => "processor exception",
        })
    }
}

/// A processor exception in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// Which kind of exception.
    pub kind: FaultKind,
    /// The address that could not be reached, for page faults.
    pub address: Option<u64>,
    /// What the processor says besides (Intel SDM vol. 3A, 6.13); 0 where it says nothing.
    pub error_code: u64,
    /// The processor's registers when it happened; zero if KVM has reset them since
    /// ([`Shutdown::reset`]).
    pub registers: Registers,
    /// The instruction.
    pub instruction: Instruction,
    /// The calls that led there.
    pub backtrace: Backtrace,
    /// What is left of a processor that gave up, for [`FaultKind::TripleFault`].
    pub shutdown: Option<Box<Shutdown>>,
    /// Lowest address of the stack of the processor that raised it.
    stack: u64,
}

impl Fault {
    /// What is known at once; the rest is for [`crate::sandbox`] to find out.
    fn new(kind: FaultKind, address: Option<u64>, error_code: u64, registers: Registers) -> Self {
        Self {
            kind,
            address,
            error_code,
            registers,
            instruction: Instruction::default(),
            backtrace: Backtrace::empty(),
            shutdown: None,
            stack: layout::STACK,
        }
    }

    /// The same on a processor whose stack begins there.
    pub(crate) fn on_stack(mut self, start: u64) -> Self {
        self.stack = start;
        self
    }

    /// What a processor tells of an exception.
    pub(crate) fn of_exception(exception: &Exception) -> Self {
        let Exception {
            vector,
            error_code,
            address,
            registers,
            ..
        } = *exception;
        let kind = FaultKind::from_vector(vector, error_code);
        Self::new(kind, address, error_code, registers)
    }

    /// What is left of a processor that gave up.
    pub(crate) fn of_shutdown(registers: Registers, shutdown: Shutdown) -> Self {
        let mut fault = Self::new(FaultKind::TripleFault, None, 0, registers);
        fault.shutdown = Some(Box::new(shutdown));
        fault
    }

    /// Whether the registers are those with which the processor stopped: KVM may have reset it
    /// ([`Shutdown::reset`]).
    #[must_use]
    pub fn has_registers(&self) -> bool {
        !self.shutdown.as_ref().is_some_and(|left| left.reset)
    }

    /// What the guest did wrong.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self.kind {
            FaultKind::PageRead | FaultKind::PageWrite | FaultKind::PageExecute => {
                self.cause_of_page_fault(self.address.unwrap_or(0))
            }
            FaultKind::DivideError => Cause::DivideError,
            FaultKind::Debug => Cause::Debug,
            FaultKind::IllegalInstruction => Cause::IllegalInstruction,
            FaultKind::GeneralProtection | FaultKind::StackSegment => Cause::GeneralProtection,
            FaultKind::X87 | FaultKind::Simd => Cause::FloatingPoint,
            FaultKind::Alignment => Cause::Alignment,
            FaultKind::DoubleFault => Cause::DoubleFault,
            FaultKind::TripleFault => Cause::Shutdown,
            FaultKind::Exception(_) => Cause::Other,
        }
    }

    fn cause_of_page_fault(&self, address: u64) -> Cause {
        let present = self.error_code & page_fault::PRESENT != 0;
        match address {
            0..layout::IMAGE_MIN => Cause::NullDereference,
            at if (self.stack - layout::PAGE_SIZE..self.stack).contains(&at) => {
                Cause::StackOverflow
            }
            at if (layout::SUPERVISOR..layout::BOOT).contains(&at) => Cause::Supervisor,
            _ if !present => Cause::NotMapped,
            _ if self.kind == FaultKind::PageWrite => Cause::WriteToReadOnly,
            _ if self.kind == FaultKind::PageExecute => Cause::ExecutionOfData,
            _ => Cause::NotMapped,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.address) {
            (FaultKind::TripleFault, _) => f.write_str("triple fault")?,
            (FaultKind::DoubleFault, _) => f.write_str("double fault")?,
            (FaultKind::Exception(vector), _) => write!(f, "processor exception {vector}")?,
            (kind, Some(address)) => {
                write!(f, "{}, {} {address:#x}", self.cause(), kind.verb())?;
            }
            (_, None) => write!(f, "{}", self.cause())?,
        }
        match self.has_registers() {
            true => write!(f, ", by the instruction at {:#x}", self.registers.rip)?,
            false => {
                f.write_str(", at a place that is not known, for KVM has reset the processor")?;
            }
        }
        match &self.shutdown {
            Some(shutdown) => write!(f, ": {shutdown}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// What a program gets to see: the fields, and what follows from them.
        #[derive(Serialize)]
        struct Shape<'a> {
            cause: Cause,
            kind: FaultKind,
            address: Option<u64>,
            error_code: u64,
            instruction: &'a Instruction,
            registers: &'a Registers,
            backtrace: &'a Backtrace,
            #[serde(skip_serializing_if = "Option::is_none")]
            shutdown: Option<&'a Shutdown>,
        }
        let shape = Shape {
            cause: self.cause(),
            kind: self.kind,
            address: self.address,
            error_code: self.error_code,
            instruction: &self.instruction,
            registers: &self.registers,
            backtrace: &self.backtrace,
            shutdown: self.shutdown.as_deref(),
        };
        shape.serialize(serializer)
    }
}

/// The bytes at which a guest stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    bytes: Vec<u8>,
    address: u64,
}

/// Most bytes of an instruction (Intel SDM vol. 2, 2.3.11).
pub(crate) const LONGEST_INSTRUCTION: usize = 15;

impl Instruction {
    /// The instruction at the beginning of these bytes.
    pub(crate) fn new(address: u64, bytes: Vec<u8>) -> Self {
        Self { bytes, address }
    }

    #[cfg(feature = "disassembler")]
    fn decode(&self) -> Option<iced_x86::Instruction> {
        use iced_x86::{Decoder, DecoderOptions};
        let mut decoder = Decoder::with_ip(64, &self.bytes, self.address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Its bytes; empty if the guest stopped where no code is. If it does not exist, or without
    /// the feature `disassembler`, as many as an instruction has at most.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        #[cfg(feature = "disassembler")]
        if let Some(instruction) = self.decode() {
            return self.bytes.get(..instruction.len()).unwrap_or_default();
        }
        &self.bytes
    }

    /// What it says, in Intel's notation: needs the feature `disassembler`.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        #[cfg(feature = "disassembler")]
        if let Some(instruction) = self.decode() {
            use iced_x86::{Formatter, IntelFormatter};
            let mut text = String::new();
            let mut formatter = IntelFormatter::new();
            let options = formatter.options_mut();
            options.set_hex_prefix("0x");
            options.set_hex_suffix("");
            options.set_uppercase_hex(false);
            options.set_space_after_operand_separator(true);
            formatter.format(&instruction, &mut text);
            return Some(text);
        }
        None
    }
}

/// `0f 0b  ud2`.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<_> = self
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        f.write_str(&bytes.join(" "))?;
        match self.text() {
            Some(text) => write!(f, "  {text}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Instruction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            bytes: &'a [u8],
            text: Option<String>,
        }
        let (bytes, text) = (self.bytes(), self.text());
        Shape { bytes, text }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_fault(error_code: u64, address: u64) -> Fault {
        let kind = FaultKind::from_vector(14, error_code);
        let registers = Registers {
            rip: 0x20_1000,
            ..Registers::default()
        };
        Fault::new(kind, Some(address), error_code, registers)
    }

    #[test]
    fn page_faults_say_what_was_tried() {
        assert_eq!(FaultKind::from_vector(14, 0b10111), FaultKind::PageExecute);
        assert_eq!(FaultKind::from_vector(14, 0b00110), FaultKind::PageWrite);
        assert_eq!(FaultKind::from_vector(14, 0b00100), FaultKind::PageRead);
        assert_eq!(
            page_fault(0b00110, 8).to_string(),
            "null pointer, write to 0x8, by the instruction at 0x201000"
        );
    }

    #[test]
    fn the_cause_is_told_by_address_and_error_code() {
        for (error_code, address, cause) in [
            (0b00100, 0, Cause::NullDereference),
            (0b10100, 0, Cause::NullDereference),
            (0b00110, layout::STACK - 8, Cause::StackOverflow),
            (
                0b00110,
                layout::STACK - layout::PAGE_SIZE - 8,
                Cause::NotMapped,
            ),
            (0b00111, 0x20_0000, Cause::WriteToReadOnly),
            (0b10101, layout::HEAP, Cause::ExecutionOfData),
            (0b10100, layout::IMAGE_MAX - 8, Cause::NotMapped),
            (0b00101, layout::SUPERVISOR, Cause::Supervisor),
        ] {
            let fault = page_fault(error_code, address);
            assert_eq!(fault.cause(), cause, "{error_code:#b} {address:#x}");
        }
        let second = layout::stack_of(1, 0x10_0000);
        let fault = page_fault(0b00110, second - 8);
        assert_eq!(fault.cause(), Cause::NotMapped);
        assert_eq!(fault.on_stack(second).cause(), Cause::StackOverflow);
    }

    #[cfg(feature = "disassembler")]
    #[test]
    fn an_instruction_is_shown_with_its_own_bytes_alone() {
        let instruction =
            Instruction::new(0x1000, vec![0x8B, 0x04, 0x25, 0x40, 0, 0, 0, 0x90, 0x90]);
        assert_eq!(
            instruction.to_string(),
            "8b 04 25 40 00 00 00  mov eax, [0x40]"
        );
        let unknown = Instruction::new(0, vec![0x06, 0x06]);
        assert_eq!(unknown.to_string(), "06 06");
    }
}
