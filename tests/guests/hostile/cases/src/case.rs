//! What a case is: a name, what the guest does, and how that must end.

use core::fmt::{self, Write};

use wakebox_abi::op::CallKind;
use wakebox_abi::status::Status;

use crate::guest::Guest;

/// What a case's function is told: numbers of its own.
pub type Args = [u64; 4];

/// What the guest does. If it returns, the guest goes on to its end and exits with code 0.
pub type Act = fn(&mut Guest, Args);

/// One thing that a hostile guest does.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `group/detail`: no two cases have the same.
    pub name: Name,
    /// What the guest does.
    pub act: Act,
    /// The numbers that it does it with.
    pub args: Args,
    /// How it must end.
    pub expect: Expect,
    /// In which wake modes it is run.
    pub modes: Modes,
    /// The host calls the function `f` of the guest meanwhile, and this comes of it.
    pub called: Option<Answer>,
    /// How it does: with a value, with bytes, or with JSON.
    pub called_as: CallKind,
    /// Whether it takes a stream.
    pub is_streamed: bool,
}

/// What comes of a call to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A result.
    Given,
    /// None: the guest has ended.
    Ended,
    /// There is no such function.
    NoSuchFunction,
    /// It does not take these arguments.
    BadInput,
    /// Something that is not a result.
    BadOutput,
    /// More than a message may be.
    TooLarge,
    /// More than the host keeps for the guest.
    LimitReached,
}

impl Case {
    /// A case that is run in one wake mode: the processor does not care.
    pub fn new(
        group: &str,
        detail: impl fmt::Display,
        act: Act,
        expect: impl Into<Expect>,
    ) -> Self {
        Self {
            name: Name::new(format_args!("{group}/{detail}")),
            act,
            args: [0; 4],
            expect: expect.into(),
            modes: Modes::One,
            called: None,
            called_as: CallKind::Typed,
            is_streamed: false,
        }
    }

    /// While the host calls it.
    #[must_use]
    pub fn called(mut self, answer: Answer) -> Self {
        self.called = Some(answer);
        self
    }

    /// While the host calls it so.
    #[must_use]
    pub fn called_as(mut self, kind: CallKind, answer: Answer) -> Self {
        self.called_as = kind;
        self.called(answer)
    }

    /// While the host calls it and takes a stream.
    #[must_use]
    pub fn streamed(mut self, answer: Answer) -> Self {
        self.is_streamed = true;
        self.called(answer)
    }

    /// With these numbers.
    #[must_use]
    pub fn with(mut self, args: Args) -> Self {
        self.args = args;
        self
    }

    /// In these wake modes.
    #[must_use]
    pub fn modes(mut self, modes: Modes) -> Self {
        self.modes = modes;
        self
    }
}

/// In which wake modes a case is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// In one, another one for each case.
    One,
    /// In all of them.
    All,
    /// In the one in which there are interrupts.
    Irq,
    /// In those in which another thread looks at the rings while the guest runs.
    Exitless,
}

/// A text of bounded length, without a heap.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; Self::MOST],
    len: usize,
}

impl Name {
    /// Most bytes of a name.
    pub const MOST: usize = 96;

    /// What these arguments say.
    ///
    /// # Panics
    ///
    /// If that is too long.
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut name = Self {
            bytes: [0; Self::MOST],
            len: 0,
        };
        name.write_fmt(text).expect("a name is short");
        name
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// What stands before the slash.
    pub fn group(&self) -> &str {
        self.as_str().split('/').next().unwrap_or_default()
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A processor exception, as far as a case names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// #DE.
    Divide,
    /// #UD.
    Illegal,
    /// #GP.
    Protection,
    /// #PF of a read at this address.
    Read(u64),
    /// #PF of a write at this address.
    Write(u64),
    /// #PF of an execution at this address.
    Execute(u64),
    /// #PF of a write from the first address to below the second.
    WriteWithin(u64, u64),
    /// #PF of an execution from the first address to below the second.
    ExecuteWithin(u64, u64),
    /// Another one, by its vector.
    Vector(u8),
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Divide => f.write_str("#DE"),
            Self::Illegal => f.write_str("#UD"),
            Self::Protection => f.write_str("#GP"),
            Self::Read(at) => write!(f, "#PF read {at:#x}"),
            Self::Write(at) => write!(f, "#PF write {at:#x}"),
            Self::Execute(at) => write!(f, "#PF execute {at:#x}"),
            Self::WriteWithin(from, to) => write!(f, "#PF write {from:#x}..{to:#x}"),
            Self::ExecuteWithin(from, to) => write!(f, "#PF execute {from:#x}..{to:#x}"),
            Self::Vector(vector) => write!(f, "exception {vector}"),
        }
    }
}

/// What a guest broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violated {
    /// The submission ring's index.
    SubmissionRing,
    /// The completion ring's index.
    CompletionRing,
    /// The number of operations in flight.
    TooManyInFlight,
    /// The number of slots.
    NoSuchSlot,
    /// That a slot has one operation at a time.
    SlotTaken,
    /// That no port is read.
    PortRead,
    /// That doorbells alone are written to.
    PortWritten,
    /// That the doorbell of the exception stubs is theirs.
    StubDoorbell,
    /// The number of processors.
    NoSuchProcessor,
    /// That a processor is started once.
    ProcessorRuns,
}

/// How a sandbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code. Zero: what it did changed nothing, or what it was to see was so.
    Exit(i32),
    /// With a fault.
    Fault(Trap),
    /// With a panic that the case forged, whose message begins like this.
    Panic(&'static str),
    /// With a violation of this kind.
    Violation(Violated),
    /// Asleep for ever.
    Deadlock,
    /// When its time was over.
    WallClock,
    /// In any way: what it does there means something else, from which anything follows.
    Anything,
}

impl End {
    /// By itself, with the status of its last operation.
    pub const fn status(status: Status) -> Self {
        Self::Exit(status.code() as i32)
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::status(status)
    }
}

impl From<Trap> for End {
    fn from(trap: Trap) -> Self {
        Self::Fault(trap)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Fault(trap) => trap.fmt(f),
            Self::Panic(message) => write!(f, "panic `{message}`"),
            Self::Violation(what) => write!(f, "violation {what:?}"),
            Self::Deadlock => f.write_str("deadlock"),
            Self::WallClock => f.write_str("wall clock"),
            Self::Anything => f.write_str("anything"),
        }
    }
}

/// A few ends, any of which is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends([Option<End>; 3]);

impl Ends {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = End> + '_ {
        self.0.iter().flatten().copied()
    }

    fn add(&mut self, end: End) {
        let place = self.0.iter_mut().find(|place| place.is_none());
        *place.expect("a set of ends is small") = Some(end);
    }
}

impl From<End> for Ends {
    fn from(end: End) -> Self {
        Self([Some(end), None, None])
    }
}

/// How a case must end, on each kind of KVM (the README beside this package tells them apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// On hardware virtualization: several where processors differ.
    pub hardware: Ends,
    /// On KVM-PVM.
    pub pvm: Ends,
    /// On hardware virtualization that QEMU emulates, whose ring 3 has the I/O privilege level 3.
    pub qemu: Ends,
}

impl<E: Into<End>> From<E> for Expect {
    fn from(end: E) -> Self {
        let ends = Ends::from(end.into());
        Self {
            hardware: ends,
            pvm: ends,
            qemu: ends,
        }
    }
}

impl Expect {
    /// Also this: processors differ, and PVM shows the one below.
    #[must_use]
    pub fn or(mut self, end: impl Into<End>) -> Self {
        let end = end.into();
        self.hardware.add(end);
        self.pvm.add(end);
        self.qemu.add(end);
        self
    }

    /// On PVM not that but this.
    #[must_use]
    pub fn pvm(mut self, end: impl Into<End>) -> Self {
        self.pvm = end.into().into();
        self
    }

    /// On PVM, also this: its emulator, or the host's own tables, show through.
    #[must_use]
    pub fn or_pvm(mut self, end: impl Into<End>) -> Self {
        self.pvm.add(end.into());
        self
    }

    /// In QEMU's emulation not that but this.
    #[must_use]
    pub fn qemu(mut self, end: impl Into<End>) -> Self {
        self.qemu = end.into().into();
        self
    }

    /// In QEMU's emulation, also this: its versions differ.
    #[must_use]
    pub fn or_qemu(mut self, end: impl Into<End>) -> Self {
        self.qemu.add(end.into());
        self
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, end) in self.iter().enumerate() {
            write!(f, "{}{end}", if index > 0 { " or " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hardware.fmt(f)?;
        if self.pvm != self.hardware {
            write!(f, "; on PVM {}", self.pvm)?;
        }
        if self.qemu != self.hardware {
            write!(f, "; in QEMU {}", self.qemu)?;
        }
        Ok(())
    }
}
