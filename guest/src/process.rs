//! The end of a guest.

use core::fmt;

use crate::eprintln;
use crate::runtime::runtime;

/// The status with which a guest ends. Zero is success; hosts pass the low eight bits on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCode(i32);

impl ExitCode {
    /// Zero.
    pub const SUCCESS: Self = Self(0);
    /// One.
    pub const FAILURE: Self = Self(1);

    pub(crate) fn code(self) -> i32 {
        self.0
    }
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code.into())
    }
}

/// What the main function of a guest may return.
pub trait Termination {
    /// The exit code that it stands for, after saying what there is to say.
    fn report(self) -> ExitCode;
}

impl Termination for () {
    fn report(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

impl Termination for ExitCode {
    fn report(self) -> ExitCode {
        self
    }
}

impl Termination for i32 {
    fn report(self) -> ExitCode {
        ExitCode(self)
    }
}

impl Termination for u8 {
    fn report(self) -> ExitCode {
        self.into()
    }
}

impl Termination for core::convert::Infallible {
    fn report(self) -> ExitCode {
        match self {}
    }
}

impl<T: Termination, E: fmt::Debug> Termination for Result<T, E> {
    fn report(self) -> ExitCode {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                eprintln!("Error: {error:?}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Ends the guest now, after what was printed has been written, and what was written to connections has been taken, for which it
/// waits for half a minute at most. No task is dropped.
pub fn exit(code: i32) -> ! {
    runtime().exit(code)
}
