//! What an embedder's own tools see of sandboxes: spans and events of the crate [`tracing`], and,
//! with the feature `metrics`, counters of the crate `metrics`. Nothing has to be switched on: install a
//! subscriber, or a recorder, before the first sandbox is built.
//!
//! # Spans and events
//!
//! | target | level | what | fields |
//! |---|---|---|---|
//! | `wakebox::sandbox` | info | span `sandbox`, from building to dropping; entered while the sandbox runs and while its operations are polled | `wakebox.sandbox.id` ([`Sandbox::id`](crate::Sandbox::id)), `wakebox.guest` (the file), `wakebox.mode` |
//! | `wakebox::sandbox` | debug | "sandbox ended" | `outcome`, `exits` |
//! | `wakebox::exit` | trace | "left the guest" | `reason` ([`ExitReason::name`](crate::trace::ExitReason::name)), `processor` |
//! | `wakebox::op` | trace | "operation ended" | `kind`, `status`, `value` (a handle, a count), `micros` from when it was taken |
//! | `wakebox::policy` | info | "refused by policy" | `kind`, `target` |
//!
//! Warnings about what the host could not do come from the module in which it failed. Where nobody
//! listens, an operation costs one load and one branch for all this, and no clock is read.
//!
//! # Counters
//!
//! | name | kind | labels | counts |
//! |---|---|---|---|
//! | `wakebox.sandbox.active` | gauge | | sandboxes that are there |
//! | `wakebox.sandbox.built` | counter | `wakebox.mode` | sandboxes built |
//! | `wakebox.sandbox.ended` | counter | `wakebox.end`: `exit`, `panic`, `fault`, `limit`, `violation`, `deadlock`, `cancelled`, or `error` where the host failed | runs that ended |
//! | `wakebox.sandbox.duration` | histogram | `wakebox.end`, as above | seconds from building to the end of the run |
//! | `wakebox.exits` | counter | `wakebox.exit.reason` | times that a guest was left |
//! | `wakebox.ops` | counter | `wakebox.op.kind`, `wakebox.op.status` | operations that ended |
//! | `wakebox.refusals` | counter | `wakebox.refusal.kind` | requests that policy refused |
//!
//! Names are in the manner of OpenTelemetry: a namespace, dots, no unit and no `_total`. What writes for Prometheus
//! makes underscores of the dots. No label is what a guest says: their number is bounded. What single events mean, and
//! which future they wake, is in [`crate::trace`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::{Level, Span};
use wakebox_abi::entry::Token;
use wakebox_abi::layout;
use wakebox_abi::op::Opcode;
use wakebox_abi::status::Status;
use wakebox_abi::wake::Mode;

use crate::Outcome;
use crate::error::Result;
use crate::trace::{ExitReason, OpKind};

#[cfg(feature = "metrics")]
mod counters;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/no_counters.rs"]
mod counters;

use self::counters::{ExitCounters, OpCounters, SandboxCounters};

/// Tells of one sandbox.
#[derive(Debug)]
pub(crate) struct Telemetry {
    id: u64,
    span: Span,
    counters: SandboxCounters,
}

impl Telemetry {
    /// Begins the span of a new sandbox.
    pub(crate) fn new(guest: Option<&str>, mode: Mode) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Numbers differ; nothing else hangs on them.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!(target: "wakebox::sandbox", "sandbox", wakebox.sandbox.id = id, wakebox.guest = guest, wakebox.mode = %mode);
        Self {
            id,
            span,
            counters: SandboxCounters::new(mode),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// What tells of the exits of a processor, for whoever runs it.
    pub(crate) fn exits(processor: u32) -> ExitTelemetry {
        ExitTelemetry {
            processor,
            counters: ExitCounters::new(),
        }
    }

    /// What tells of its operations, for its driver.
    pub(crate) fn ops(&self) -> OpTelemetry {
        OpTelemetry {
            span: self.span.clone(),
            begun: Vec::new(),
            counters: OpCounters::new(),
        }
    }

    /// The run has ended.
    pub(crate) fn ended(&self, result: &Result<Outcome>, exits: u64) {
        match result {
            Ok(outcome) => {
                tracing::debug!(target: "wakebox::sandbox", %outcome, exits, "sandbox ended");
            }
            Err(error) => {
                tracing::debug!(target: "wakebox::sandbox", %error, exits, "sandbox ended");
            }
        }
        self.counters
            .ended(result.as_ref().map_or("error", Outcome::kind));
    }
}

/// Tells of the exits of one processor, in the span of its sandbox.
#[derive(Debug)]
pub(crate) struct ExitTelemetry {
    processor: u32,
    counters: ExitCounters,
}

impl ExitTelemetry {
    /// The guest was left there.
    pub(crate) fn exited(&mut self, reason: ExitReason) {
        let processor = self.processor;
        tracing::trace!(target: "wakebox::exit", reason = reason.name(), processor, "left the guest");
        self.counters.exited(reason);
    }
}

/// Counts a request that policy refused.
pub(crate) fn refused(kind: &'static str) {
    counters::refused(kind);
}

/// Tells of the operations of one sandbox.
#[derive(Debug)]
pub(crate) struct OpTelemetry {
    span: Span,
    /// By slot; empty as long as nobody listens.
    begun: Vec<Begun>,
    counters: OpCounters,
}

/// The operation that is in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    opcode: u16,
    /// Set if somebody wants to know how long it took.
    at: Option<Instant>,
}

impl OpTelemetry {
    /// The sandbox's span, if anybody listens to it.
    pub(crate) fn span(&self) -> Option<&Span> {
        (!self.span.is_disabled()).then_some(&self.span)
    }

    /// An operation was taken.
    #[inline]
    pub(crate) fn begins(&mut self, token: Token, opcode: u16) {
        let is_heard = tracing::enabled!(target: "wakebox::op", Level::TRACE);
        if is_heard || OpCounters::COUNT {
            self.note(token, opcode, is_heard);
        }
    }

    fn note(&mut self, token: Token, opcode: u16, is_heard: bool) {
        // Whoever tells of such a slot does so of nothing that is in one.
        if token.slot >= layout::COMPLETIONS_MAX {
            return;
        }
        let slot = token.slot as usize;
        if slot >= self.begun.len() {
            self.begun.resize(slot + 1, Begun::default());
        }
        let at = is_heard.then(Instant::now);
        self.begun[slot] = Begun { opcode, at };
    }

    /// An operation is done.
    #[inline]
    pub(crate) fn ends(&mut self, token: Token, status: Status, value: u32) {
        if !self.begun.is_empty() {
            self.tell(token, status, value);
        }
    }

    fn tell(&mut self, token: Token, status: Status, value: u32) {
        let Some(begun) = self.begun.get_mut(token.slot as usize) else {
            return;
        };
        let Begun { opcode, at } = *begun;
        begun.at = None;
        self.counters.count(opcode, status);
        if let Some(at) = at {
            tracing::trace!(
                target: "wakebox::op",
                parent: &self.span,
                kind = kind(opcode),
                ?status,
                value,
                micros = at.elapsed().as_micros() as u64,
                "operation ended"
            );
        }
    }
}

/// The name of a kind of operation: one of a bounded number.
fn kind(opcode: u16) -> &'static str {
    debug_assert!(Opcode::ALL.len() < 64, "counters have room for each");
    OpKind(opcode).name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_operations_where_nobody_listens() {
        let telemetry = Telemetry::new(Some("guest"), Mode::Out);
        let mut ops = telemetry.ops();
        let token = Token {
            slot: 3,
            generation: 0,
        };
        ops.begins(token, Opcode::Nop as u16);
        ops.ends(token, Status::Ok, 0);
        assert!(telemetry.span().is_disabled() && ops.span().is_none());
        // Counters want to know the kind of an operation when it ends.
        assert_eq!(ops.begun.capacity() > 0, OpCounters::COUNT);
        assert!(ops.begun.iter().all(|begun| begun.at.is_none()));
    }
}
