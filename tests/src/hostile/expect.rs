//! Whether a sandbox ended as its case says.

use wakebox::{CallError, Fault, FaultKind, Limit, Outcome, Ring, Violation};
use wakebox_hostile::{Answer, Case, End, Ends, Trap, Violated};

/// The kinds of KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// VT-x or AMD-V.
    Hardware,
    /// KVM-PVM.
    Pvm,
    /// AMD-V, emulated by QEMU.
    Qemu,
}

impl Machine {
    /// How a case must end there.
    pub(super) fn ends(self, case: &Case) -> Ends {
        match self {
            Self::Hardware => case.expect.hardware,
            Self::Pvm => case.expect.pvm,
            Self::Qemu => case.expect.qemu,
        }
    }
}

/// Compares.
pub(super) fn check(case: &Case, outcome: &Outcome, machine: Machine) -> Result<(), String> {
    let ends = machine.ends(case);
    let text = outcome.to_string();
    if !ends.iter().any(|end| is(end, outcome)) {
        let ends: Vec<_> = ends.iter().map(|end| end.to_string()).collect();
        return Err(format!("{text}; expected {}", ends.join(" or ")));
    }
    // Whatever it says ends up on somebody's terminal.
    match text
        .chars()
        .find(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        Some(c) => Err(format!("its outcome has the control character {c:?}")),
        None => Ok(()),
    }
}

fn is_violation(violated: Violated, violation: Violation) -> bool {
    match violation {
        Violation::RingIndex { ring, .. } => match violated {
            Violated::SubmissionRing => ring == Ring::Submission,
            Violated::CompletionRing => ring == Ring::Completion,
            _ => false,
        },
        Violation::TooManyInFlight { .. } => violated == Violated::TooManyInFlight,
        Violation::NoSuchSlot { .. } => violated == Violated::NoSuchSlot,
        Violation::SlotTaken { .. } => violated == Violated::SlotTaken,
        Violation::PortRead { .. } => violated == Violated::PortRead,
        Violation::PortWritten { .. } => violated == Violated::PortWritten,
        Violation::StubDoorbell => violated == Violated::StubDoorbell,
        Violation::NoSuchProcessor { .. } => violated == Violated::NoSuchProcessor,
        Violation::ProcessorRuns { .. } => violated == Violated::ProcessorRuns,
        _ => false,
    }
}

fn is(end: End, outcome: &Outcome) -> bool {
    match (end, outcome) {
        (End::Exit(expected), Outcome::Exit(code)) => expected == *code,
        (End::Fault(trap), Outcome::Fault(fault)) => is_trap(trap, fault),
        (End::Violation(violated), Outcome::Violation(violation)) => {
            is_violation(violated, *violation)
        }
        (End::Panic(message), Outcome::Panic(panic)) => {
            // One of the program itself names its source.
            let own = panic
                .file
                .as_ref()
                .is_some_and(|file| file.ends_with(".rs"));
            !own && panic.message.starts_with(message)
        }
        (End::Anything, _)
        | (End::Deadlock, Outcome::Deadlock)
        | (End::WallClock, Outcome::Limit(Limit::WallClock(_))) => true,
        _ => false,
    }
}

fn is_trap(trap: Trap, fault: &Fault) -> bool {
    let at = |expected| fault.address == Some(expected);
    let within = |from, to| fault.address.is_some_and(|at| (from..to).contains(&at));
    match (trap, fault.kind) {
        (Trap::Divide, FaultKind::DivideError)
        | (Trap::Illegal, FaultKind::IllegalInstruction)
        | (Trap::Protection, FaultKind::GeneralProtection) => true,
        (Trap::Read(address), FaultKind::PageRead)
        | (Trap::Write(address), FaultKind::PageWrite)
        | (Trap::Execute(address), FaultKind::PageExecute) => at(address),
        (Trap::WriteWithin(from, to), FaultKind::PageWrite)
        | (Trap::ExecuteWithin(from, to), FaultKind::PageExecute) => within(from, to),
        (Trap::Vector(vector), kind) => vector_of(kind) == Some(vector),
        _ => false,
    }
}

/// The vector of an exception that is neither of those above.
fn vector_of(kind: FaultKind) -> Option<u8> {
    match kind {
        FaultKind::Debug => Some(1),
        FaultKind::StackSegment => Some(12),
        FaultKind::X87 => Some(16),
        FaultKind::Alignment => Some(17),
        FaultKind::Simd => Some(19),
        FaultKind::Exception(vector) => Some(vector),
        _ => None,
    }
}

/// Most bytes of an error about a call: it quotes two types.
const SENTENCE: usize = 8 << 10;

/// What came of a call to the guest.
///
/// # Errors
///
/// A sentence if the call's error is none for a terminal.
pub(super) fn answer(result: &Result<String, CallError>) -> Result<Answer, String> {
    if let Err(error) = result {
        let text = error.to_string();
        let controls = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        if text.len() > SENTENCE || text.contains(controls) {
            return Err(format!("its caller was told {text:?}"));
        }
    }
    Ok(match result {
        Ok(_) => Answer::Given,
        Err(CallError::NoSuchFunction(_)) => Answer::NoSuchFunction,
        Err(CallError::BadInput(_)) => Answer::BadInput,
        Err(CallError::BadOutput(_)) => Answer::BadOutput,
        Err(CallError::TooLarge(_)) => Answer::TooLarge,
        Err(CallError::LimitReached(_)) => Answer::LimitReached,
        Err(_) => Answer::Ended,
    })
}
