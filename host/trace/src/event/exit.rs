//! Why a guest was left.

use serde::{Deserialize, Serialize};

/// Why the guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// It rang "there are submissions".
    Submit,
    /// It rang "nothing to do".
    Wait,
    /// It halted.
    Halt,
    /// It was pulled out because its quantum was over.
    Quantum,
    /// It was pulled out for a completion, or because it can now take an interrupt.
    Kick,
    /// It ended.
    Exit,
    /// It panicked.
    Abort,
    /// It raised an exception.
    Fault,
    /// It did what no guest may do.
    Violation,
    /// It rang "let another processor begin".
    Start,
    /// It rang "wake another processor".
    Nudge,
    /// It rang "let pages appear in a window".
    Map,
    /// It raised an exception that it goes on with itself.
    Caught,
}

impl ExitReason {
    /// All of them, each at the place of its number.
    pub const ALL: &[Self] = &[
        Self::Submit,
        Self::Wait,
        Self::Halt,
        Self::Quantum,
        Self::Kick,
        Self::Exit,
        Self::Abort,
        Self::Fault,
        Self::Violation,
        Self::Start,
        Self::Nudge,
        Self::Map,
        Self::Caught,
    ];

    /// The word for it, as in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Wait => "wait",
            Self::Halt => "halt",
            Self::Quantum => "quantum",
            Self::Kick => "kick",
            Self::Exit => "exit",
            Self::Abort => "abort",
            Self::Fault => "fault",
            Self::Violation => "violation",
            Self::Start => "start",
            Self::Nudge => "nudge",
            Self::Map => "map",
            Self::Caught => "caught",
        }
    }
}
