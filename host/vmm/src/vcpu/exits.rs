//! Why a guest was left.

use crate::kick::Reasons;
use crate::violation::Violation;
use crate::x86_64::exception::Exception;

/// Why the guest was left.
#[derive(Debug)]
pub enum Exit {
    /// It rang [`wakebox_abi::port::SUBMIT`].
    Submit,
    /// It rang [`wakebox_abi::port::WAIT`].
    Wait,
    /// It rang [`wakebox_abi::port::START`].
    Start,
    /// It rang [`wakebox_abi::port::NUDGE`].
    Nudge,
    /// It rang [`wakebox_abi::port::MAP`].
    Map,
    /// It raised an exception that goes on in ring 3 ([`wakebox_abi::window`]).
    Caught,
    /// It halted in ring 0 to be woken by an interrupt.
    Halt,
    /// It was kicked, or can now be interrupted.
    Interrupted(Reasons),
    /// It is not entered again.
    End(End),
}

/// Why a guest is not entered again.
#[derive(Debug)]
pub enum End {
    /// It rang [`wakebox_abi::port::EXIT`].
    Exit,
    /// It rang [`wakebox_abi::port::ABORT`].
    Abort,
    /// It raised an exception.
    Exception(Box<Exception>),
    /// Its processor gave up; [`Vcpu::shut_down`](super::Vcpu::shut_down) says why.
    Shutdown,
    /// It did what no guest may do.
    Violation(Violation),
}
