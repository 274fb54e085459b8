//! How a sandbox ended.

mod fault;
mod panic;
mod violation;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::fault::LONGEST_INSTRUCTION;
pub use self::fault::{Cause, Fault, FaultKind, Instruction};
pub use self::panic::Panic;
pub use self::violation::Violation;
pub use wakebox_vmm::x86_64::registers::Registers;
pub use wakebox_vmm::x86_64::shutdown::{Change, ExceptionFrame, Shutdown, Stack};

/// How a sandbox ended: what its guest did, or what was done to it.
///
/// `Display` gives a sentence for a person, `Serialize` the same with all particulars for a
/// program: `{"end": "fault", "detail": {"cause": "null-dereference", ...}}` in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end", content = "detail")]
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
    /// The guest broke the interface.
    Violation(Violation),
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

    /// Whether the guest's processor is one that another guest can have: it has not given up.
    pub(crate) fn left_machine_whole(&self) -> bool {
        !matches!(self, Self::Fault(fault) if fault.kind == FaultKind::TripleFault)
    }

    /// The word for it, as in JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Exit(_) => "exit",
            Self::Panic(_) => "panic",
            Self::Fault(_) => "fault",
            Self::Limit(_) => "limit",
            Self::Violation(_) => "violation",
            Self::Deadlock => "deadlock",
            Self::Cancelled => "cancelled",
        }
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
            Self::Violation(how) => write!(f, "the guest broke the interface: {how}"),
            Self::Deadlock => f.write_str(
                "the guest sleeps for ever: every task waits and no operation is in flight that \
                 could wake one",
            ),
            Self::Cancelled => f.write_str("the run was cancelled"),
        }
    }
}

/// A limit that ended a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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
