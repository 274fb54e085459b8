//! How a sandbox ended.

use std::fmt;
use std::time::Duration;

use wakebox_abi::report::Reader;

/// How a sandbox ended: what its guest did, or what was done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The guest ended by itself, with this code.
    Exit(i32),
    /// The guest panicked.
    Panic(Box<Panic>),
    /// The guest raised a processor exception.
    Fault(Box<Fault>),
    /// The guest reached a limit that policy sets.
    Limit(Limit),
    /// The guest broke the interface; the text says how.
    Violation(String),
    /// The guest sleeps with no operation in flight: nothing can ever wake it.
    Deadlock,
    /// The host ended it.
    Cancelled,
}

impl Outcome {
    /// Whether the guest ended by itself with code zero.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }

    /// The exit status that a command should end with: the guest's own code for
    /// [`Outcome::Exit`] (its low eight bits), 101 for a panic as in Rust, 124 for a limit as
    /// `timeout` has it, 139 for a fault as a shell shows a segmentation fault, 125 for a
    /// violation, 123 for a deadlock, 130 for a cancelled run.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exit(code) => *code as u8,
            Self::Panic(_) => 101,
            Self::Deadlock => 123,
            Self::Limit(_) => 124,
            Self::Violation(_) => 125,
            Self::Cancelled => 130,
            Self::Fault(_) => 139,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "the guest ended with code {code}"),
            Self::Panic(panic) => write!(f, "the guest panicked {panic}"),
            Self::Fault(fault) => write!(f, "the guest faulted: {fault}"),
            Self::Limit(limit) => write!(f, "the guest was stopped: {limit}"),
            Self::Violation(what) => write!(f, "the guest broke the interface: {what}"),
            Self::Deadlock => f.write_str(
                "the guest sleeps for ever: every task waits and no operation is in flight that \
                 could wake one",
            ),
            Self::Cancelled => f.write_str("the run was cancelled"),
        }
    }
}

/// A panic in a guest, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// The message.
    pub message: String,
    /// The source file, if known.
    pub file: Option<String>,
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
    /// The name of the task, if it had one.
    pub task: Option<String>,
    /// Return addresses, innermost first.
    pub backtrace: Vec<u64>,
}

impl Panic {
    /// Reads a copy of the report page. What is not UTF-8 is replaced, and control characters
    /// are escaped: a guest's words end up on somebody's terminal.
    pub(crate) fn read(page: &[u8; wakebox_abi::report::SIZE]) -> Self {
        let reader = Reader::new(page);
        let named = |bytes: &[u8]| (!bytes.is_empty()).then(|| printable(bytes));
        Self {
            message: printable(reader.message()),
            file: named(reader.file()),
            line: reader.line(),
            column: reader.column(),
            task: named(reader.task()),
            backtrace: reader.frames().collect(),
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task {
            write!(f, "in task `{task}` ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "at {file}:{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What kind of exception a guest raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// #DE: division by zero or overflow of a quotient.
    DivideError,
    /// #UD: an instruction that does not exist, or `ud2`.
    IllegalInstruction,
    /// #GP: a forbidden instruction or port, or an address that is not canonical.
    GeneralProtection,
    /// #PF: read of an address.
    PageRead,
    /// #PF: write to an address.
    PageWrite,
    /// #PF: execution at an address.
    PageExecute,
    /// #DF: an exception while another was being delivered.
    DoubleFault,
    /// The processor gave up: an exception while a double fault was being delivered.
    TripleFault,
    /// Any other exception, by its vector.
    Exception(u8),
}

impl FaultKind {
    /// The kind for a vector and its error code (Intel SDM vol. 3A, 6.15, 4.7).
    pub(crate) fn from_vector(vector: u8, error_code: u64) -> Self {
        const WRITE: u64 = 1 << 1;
        const FETCH: u64 = 1 << 4;
        match vector {
            0 => Self::DivideError,
            6 => Self::IllegalInstruction,
            8 => Self::DoubleFault,
            13 => Self::GeneralProtection,
            14 if error_code & FETCH != 0 => Self::PageExecute,
            14 if error_code & WRITE != 0 => Self::PageWrite,
            14 => Self::PageRead,
            other => Self::Exception(other),
        }
    }

    /// Whether there is an address that could not be reached.
    pub(crate) fn is_page_fault(self) -> bool {
        matches!(self, Self::PageRead | Self::PageWrite | Self::PageExecute)
    }
}

/// A processor exception in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind.
    pub kind: FaultKind,
    /// The address that could not be reached, for page faults.
    pub address: Option<u64>,
    /// The processor's registers when it happened.
    pub registers: Registers,
}

impl Fault {
    /// A word on what lies at the address, if that explains the fault.
    fn place(&self) -> Option<&'static str> {
        use wakebox_abi::layout;
        Some(match self.address? {
            0..layout::IMAGE_MIN => "a null pointer",
            at if (layout::STACK - layout::PAGE_SIZE..layout::STACK).contains(&at) => {
                "the stack's guard page: the stack overflowed"
            }
            at if (layout::SUPERVISOR..layout::BOOT).contains(&at) => "the supervisor's page",
            at if (layout::BOOT..layout::CONTROL).contains(&at) => {
                "what the host only lets it read"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.unwrap_or(0);
        match self.kind {
            FaultKind::DivideError => f.write_str("division by zero")?,
            FaultKind::IllegalInstruction => f.write_str("illegal instruction")?,
            FaultKind::GeneralProtection => f.write_str("general protection")?,
            FaultKind::PageRead => write!(f, "read of {address:#x}")?,
            FaultKind::PageWrite => write!(f, "write to {address:#x}")?,
            FaultKind::PageExecute => write!(f, "execution at {address:#x}")?,
            FaultKind::DoubleFault => f.write_str("double fault")?,
            FaultKind::TripleFault => return f.write_str("triple fault"),
            FaultKind::Exception(vector) => write!(f, "exception {vector}")?,
        }
        if let Some(place) = self.place() {
            write!(f, " ({place})")?;
        }
        write!(f, ", by the instruction at {:#x}", self.registers.rip)
    }
}

/// The general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A limit that ended a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// It ran for longer than this by the wall clock.
    WallClock(Duration),
    /// It computed for longer than this.
    CpuTime(Duration),
    /// It wrote more bytes than this to standard error.
    Log(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WallClock(limit) => {
                write!(
                    f,
                    "it ran for longer than {}",
                    crate::units::duration(*limit)
                )
            }
            Self::CpuTime(limit) => {
                write!(
                    f,
                    "it computed for longer than {}",
                    crate::units::duration(*limit)
                )
            }
            Self::Log(limit) => {
                write!(
                    f,
                    "it wrote more than {} to standard error",
                    crate::units::bytes(*limit)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_cannot_move_the_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n"), "a\\u{1b}[2Jb\u{fffd}\n");
    }

    #[test]
    fn page_faults_say_what_was_tried() {
        assert_eq!(FaultKind::from_vector(14, 0b10111), FaultKind::PageExecute);
        assert_eq!(FaultKind::from_vector(14, 0b00110), FaultKind::PageWrite);
        assert_eq!(FaultKind::from_vector(14, 0b00100), FaultKind::PageRead);
        let fault = Fault {
            kind: FaultKind::PageWrite,
            address: Some(8),
            registers: Registers {
                rip: 0x20_1000,
                ..Registers::default()
            },
        };
        assert_eq!(
            fault.to_string(),
            "write to 0x8 (a null pointer), by the instruction at 0x201000"
        );
    }
}
