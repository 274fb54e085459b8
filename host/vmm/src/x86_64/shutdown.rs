//! A processor that gave up.

use std::fmt;

use serde::Serialize;

/// What is left of a guest whose processor could deliver neither an exception nor the double fault
/// that came of it, and gave up (Intel SDM vol. 3A, 6.15; AMD APM vol. 2, 8.2.9).
///
/// What delivers exceptions is the host's, and no guest can reach it: where all of it is as the host
/// wrote it, KVM or the machine below has failed, and that is an
/// [`Error::KvmStopped`](crate::Error::KvmStopped). Otherwise it is a fault of the guest's with this
/// in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shutdown {
    /// Whether KVM has put the processor into the state in which a machine is switched on, as it
    /// does on AMD-V: the registers of the fault are zero then, and those in a crash dump are of
    /// that state.
    pub reset: bool,
    /// The first words, eight at most, that are not as the host wrote them.
    pub changed: Vec<Change>,
    /// How many more there are.
    pub more_changed: u64,
    /// What the processor has kept on its own stacks, the oldest of a stack first. A frame may be
    /// that of an interrupt that was over long before.
    pub frames: Vec<ExceptionFrame>,
}

/// A register, or eight bytes of memory, that is not as the host wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// What it is: `the gate of vector 6`.
    pub what: String,
    /// What the host wrote.
    pub was: u64,
    /// What is there.
    pub is: u64,
}

/// Where the processor was when it turned to ring 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the registers' own names")]
#[non_exhaustive]
pub struct ExceptionFrame {
    /// The stack on which the frame lies.
    pub stack: Stack,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A stack of ring 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stack {
    /// The usual one.
    Ring0,
    /// That of double faults, machine checks and non-maskable interrupts.
    DoubleFault,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring0 => "ring-0 stack",
            Self::DoubleFault => "double-fault stack",
        })
    }
}

impl fmt::Display for ExceptionFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stack,
            rip,
            cs,
            rflags,
            rsp,
            ss,
        } = self;
        write!(
            f,
            "on the {stack}: rip {rip:#x}, cs {cs:#x}, rflags {rflags:#x}, rsp {rsp:#x}, ss {ss:#x}"
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, was, is } = self;
        write!(f, "{what} was {was:#x} and is {is:#x}")
    }
}

/// Most changes that are told one by one.
const MOST: usize = 8;

impl Shutdown {
    /// Notes what is not as it was written.
    pub fn compare(&mut self, was: u64, is: u64, what: impl FnOnce() -> String) {
        if was == is {
            return;
        }
        if self.changed.len() < MOST {
            let what = what();
            self.changed.push(Change { what, was, is });
        } else {
            self.more_changed += 1;
        }
    }
}

/// What has changed.
impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changed.iter().enumerate() {
            write!(f, "{}{change}", if index > 0 { ", " } else { "" })?;
        }
        match self.more_changed {
            0 => Ok(()),
            more => write!(f, ", and {more} more words"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_beyond_those_that_are_told() {
        let mut shutdown = Shutdown::default();
        shutdown.compare(1, 1, || unreachable!("nothing has changed"));
        assert_eq!(shutdown, Shutdown::default());
        for index in 0..MOST as u64 + 3 {
            shutdown.compare(index, index + 16, || format!("word {index}"));
        }
        let text = shutdown.to_string();
        assert!(
            text.starts_with("word 0 was 0x0 and is 0x10, word 1 was 0x1"),
            "{text}"
        );
        assert!(text.ends_with(", and 3 more words"), "{text}");
    }
}
