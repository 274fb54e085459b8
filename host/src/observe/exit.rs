//! Why a guest was left, in the words of a trace.

use wakebox_vmm::kick::Reasons;
use wakebox_vmm::vcpu::{End, Exit};

use crate::trace::ExitReason;

/// What a trace and the statistics call an exit.
pub(crate) fn exit_reason(exit: &Exit) -> ExitReason {
    match exit {
        Exit::Submit => ExitReason::Submit,
        Exit::Wait => ExitReason::Wait,
        Exit::Start => ExitReason::Start,
        Exit::Nudge => ExitReason::Nudge,
        Exit::Map => ExitReason::Map,
        Exit::Caught => ExitReason::Caught,
        Exit::Halt => ExitReason::Halt,
        Exit::End(End::Exit) => ExitReason::Exit,
        Exit::End(End::Abort) => ExitReason::Abort,
        Exit::End(End::Exception(_) | End::Shutdown) => ExitReason::Fault,
        Exit::End(End::Violation(_)) => ExitReason::Violation,
        Exit::Interrupted(reasons) if reasons.has(Reasons::QUANTUM) => ExitReason::Quantum,
        Exit::Interrupted(_) => ExitReason::Kick,
    }
}
