//! A debugger that is attached while the guest runs: gdb, by its remote protocol, which the crate `gdbstub` speaks.
//!
//! ```text
//! HALTED: gdb asks and is answered  -- continue, step -->  RUNNING: the guest is entered
//!    ^                                                        |
//!    +-- breakpoint, step done, fault, panic, Ctrl-C ---------+
//! gone: gdb has detached or hung up; all breakpoints are out, and the guest goes on
//! ```
//!
//! A breakpoint is a `hlt` in the place of an instruction's first byte. Ring 3 may not halt, and so each kind of KVM
//! raises the exception that the guest's own table leads to the host; `int3` is not for ring 3 here, and QEMU does not
//! trap it. A single step is the processor's own, by its trap flag. Whoever debugs is the host's own: what gdb writes
//! is no allegation of the guest's.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use futures_util::future::{Either, poll_fn, select};
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wakebox_vmm::vcpu::{End, Exit};

use super::Sandbox;
use crate::debug::gdb::{Gdb, Halted};
use crate::error::Result;
use crate::outcome::{Fault, Outcome};

/// Vectors (Intel SDM vol. 3A, 6.15).
const DEBUG: u8 = 1;
const GENERAL_PROTECTION: u8 = 13;

type Stub = GdbStubStateMachine<'static, Halted, Answers>;
type Reason = SingleThreadStopReason<u64>;

/// What is said to gdb, until it is written.
#[derive(Debug, Default)]
struct Answers(Vec<u8>);

impl Connection for Answers {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// gdb, as long as it is there.
pub(super) struct Debugger {
    stream: TcpStream,
    /// `None` when it has failed.
    stub: Option<Stub>,
    halted: Halted,
    /// What has come from gdb.
    come: Vec<u8>,
}

impl std::fmt::Debug for Debugger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Debugger")
            .field("halted", &self.halted)
            .finish_non_exhaustive()
    }
}

/// What gdb wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// That the guest goes on.
    Run,
    /// Nothing more.
    Leave,
    /// That the guest ends.
    Kill,
}

/// What the protocol's crate says, as an error of the connection.
fn in_protocol(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Debugger {
    /// In a runtime.
    fn new(gdb: Gdb, halted: Halted) -> io::Result<Self> {
        let mut halted = halted;
        let stub = GdbStub::new(Answers::default()).run_state_machine(&mut halted);
        Ok(Self {
            stream: gdb.into_stream()?,
            stub: Some(stub.map_err(in_protocol)?),
            halted,
            come: Vec::new(),
        })
    }

    /// Gives the stub what has come. Returns what gdb wants, if that is known.
    fn take_in(&mut self) -> io::Result<Option<Wants>> {
        let mut come = std::mem::take(&mut self.come).into_iter();
        loop {
            let Some(stub) = self.stub.take() else {
                return Ok(Some(Wants::Leave));
            };
            let next = match stub {
                GdbStubStateMachine::Idle(stub) => match come.next() {
                    Some(byte) => stub.incoming_data(&mut self.halted, byte),
                    None => {
                        self.stub = Some(stub.into());
                        return Ok(None);
                    }
                },
                GdbStubStateMachine::Running(stub) => match come.next() {
                    Some(byte) => stub.incoming_data(&mut self.halted, byte),
                    None => {
                        self.stub = Some(stub.into());
                        return Ok(Some(Wants::Run));
                    }
                },
                GdbStubStateMachine::CtrlCInterrupt(stub) => {
                    let reason = Reason::Signal(Signal::SIGINT);
                    stub.interrupt_handled(&mut self.halted, Some(reason))
                }
                GdbStubStateMachine::Disconnected(stub) => {
                    let wants = match stub.get_reason() {
                        DisconnectReason::Kill => Wants::Kill,
                        _ => Wants::Leave,
                    };
                    self.stub = Some(stub.into());
                    return Ok(Some(wants));
                }
            };
            self.stub = Some(next.map_err(in_protocol)?);
        }
    }

    /// Writes what is to be said.
    async fn answer(&mut self) -> io::Result<()> {
        let said = match &mut self.stub {
            Some(GdbStubStateMachine::Idle(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::Running(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::CtrlCInterrupt(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::Disconnected(stub)) => stub.borrow_conn(),
            None => return Ok(()),
        };
        let said = std::mem::take(&mut said.0);
        self.stream.write_all(&said).await
    }

    /// Answers gdb until it has the guest run, or goes.
    async fn talk(&mut self) -> io::Result<Wants> {
        loop {
            let wants = self.take_in();
            self.answer().await?;
            if let Some(wants) = wants? {
                return Ok(wants);
            }
            if self.stream.read_buf(&mut self.come).await? == 0 {
                return Ok(Wants::Leave);
            }
        }
    }

    /// Tells gdb why the guest has stopped that it has had run.
    fn stopped(&mut self, reason: Reason) -> io::Result<()> {
        self.stub = match self.stub.take() {
            Some(GdbStubStateMachine::Running(stub)) => {
                let next = stub.report_stop(&mut self.halted, reason);
                Some(next.map_err(in_protocol)?)
            }
            other => other,
        };
        Ok(())
    }

    /// Whether something has come from gdb, or it has gone, while the guest runs; if not, the task is woken when
    /// it does.
    fn poll_wants(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.come.is_empty() {
            return Poll::Ready(());
        }
        let mut bytes = [0; 256];
        loop {
            if ready!(self.stream.poll_read_ready(context)).is_err() {
                return Poll::Ready(());
            }
            match self.stream.try_read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(len) if len > 0 => {
                    self.come.extend(&bytes[..len]);
                    return Poll::Ready(());
                }
                // It is found out once more when it is asked.
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl Sandbox {
    /// Has gdb look at the guest before it begins, if one has connected.
    pub(super) async fn attach_debugger(&mut self) -> Result<()> {
        let Some(gdb) = self.gdb.take() else {
            return Ok(());
        };
        let halted = Halted::new(self.memory.view(), self.symbols.bias());
        match Debugger::new(gdb, halted) {
            Ok(debugger) => {
                self.debugger = Some(debugger);
                self.debug(None, true).await
            }
            Err(error) => {
                tracing::warn!(%error, "gdb cannot be served");
                Ok(())
            }
        }
    }

    /// Whether gdb has said something while the guest ran. Costs nothing without one.
    pub(super) fn poll_debugger(&mut self, context: &Context<'_>) -> Poll<()> {
        match &mut self.debugger {
            None => Poll::Pending,
            Some(debugger) => debugger.poll_wants(&mut Context::from_waker(context.waker())),
        }
    }

    /// Lets gdb have the guest, which stands still, if it has said something.
    pub(super) async fn listen_to_debugger(&mut self) -> Result<()> {
        if self.debugger.is_none() {
            return Ok(());
        }
        let asked = poll_fn(|context| Poll::Ready(self.poll_debugger(context).is_ready())).await;
        match asked {
            true => self.debug(None, true).await,
            false => Ok(()),
        }
    }

    /// What gdb wants to know of is told. Returns the exit, unless it was gdb's doing.
    pub(super) async fn debugged(&mut self, exit: Exit) -> Result<Option<Exit>> {
        let Some(debugger) = &self.debugger else {
            return Ok(Some(exit));
        };
        let (reason, is_its_own) = match &exit {
            Exit::End(End::Exception(exception)) => match exception.vector {
                GENERAL_PROTECTION if debugger.halted.breaks_at(exception.registers.rip) => {
                    (Reason::SwBreak(()), true)
                }
                DEBUG if debugger.halted.steps => (Reason::DoneStep, true),
                _ => {
                    let signal = match Fault::of_exception(exception).cause() {
                        crate::outcome::Cause::IllegalInstruction => Signal::SIGILL,
                        crate::outcome::Cause::DivideError
                        | crate::outcome::Cause::FloatingPoint => Signal::SIGFPE,
                        _ => Signal::SIGSEGV,
                    };
                    (Reason::Signal(signal), false)
                }
            },
            Exit::End(End::Abort) => (Reason::Signal(Signal::SIGABRT), false),
            _ => return Ok(Some(exit)),
        };
        self.debug(Some(reason), is_its_own).await?;
        Ok((!is_its_own).then_some(exit))
    }

    /// Tells gdb why the guest stands still, and serves it until the guest is to go on, from where gdb says if it
    /// is entered again.
    async fn debug(&mut self, reason: Option<Reason>, is_entered: bool) -> Result<()> {
        let Some(mut debugger) = self.debugger.take() else {
            return Ok(());
        };
        let vcpu = self.machine.vcpu_mut();
        vcpu.complete()?;
        debugger
            .halted
            .stands(vcpu.registers()?, vcpu.floating_point());
        let told = reason.map_or(Ok(()), |reason| debugger.stopped(reason));
        let wants = match told {
            Ok(()) => {
                let ended = pin!(poll_fn(|context| {
                    let why = self.live.stop.why_else_wake(context);
                    why.map_or(Poll::Pending, |_| Poll::Ready(()))
                }));
                match select(pin!(debugger.talk()), ended).await {
                    Either::Left((wants, _)) => wants,
                    Either::Right(_) => Ok(Wants::Leave),
                }
            }
            Err(error) => Err(error),
        };
        let wants = wants.unwrap_or_else(|error| {
            tracing::warn!(%error, "gdb is not served any more");
            Wants::Leave
        });
        if wants != Wants::Run {
            debugger.halted.clear();
        }
        if is_entered {
            let (registers, steps) = (debugger.halted.registers, debugger.halted.steps);
            self.machine.vcpu_mut().go_on(&registers, steps)?;
        }
        match wants {
            Wants::Run => self.debugger = Some(debugger),
            Wants::Leave => {}
            Wants::Kill => self.handle().kill(),
        }
        Ok(())
    }

    /// Tells gdb how the guest has ended.
    pub(super) async fn tell_debugger(&mut self, outcome: &Outcome) {
        let Some(mut debugger) = self.debugger.take() else {
            return;
        };
        let reason = match outcome {
            Outcome::Exit(code) => Reason::Exited(*code as u8),
            Outcome::Panic(_) => Reason::Terminated(Signal::SIGABRT),
            Outcome::Fault(_) => Reason::Terminated(Signal::SIGSEGV),
            _ => Reason::Terminated(Signal::SIGKILL),
        };
        if debugger.stopped(reason).is_ok() {
            let _ = debugger.answer().await;
        }
    }
}
