//! Who is told of operations: one observer, which the driver tells each event once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Span;
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::op::Opcode;
use wakebox_abi::status::Status;

use super::Recorder;
use super::recorder::TurnLog;
use crate::telemetry::OpTelemetry;

/// Counts of operations by number; an unknown number counts in the last place.
#[derive(Debug)]
pub(crate) struct OpCounts([AtomicU64; OpCounts::LEN]);

impl Default for OpCounts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Self::LEN])
    }
}

impl OpCounts {
    pub(crate) const LEN: usize = 64;

    fn count(&self, opcode: u16) {
        let place = &self.0[usize::from(opcode).min(Self::LEN - 1)];
        // One driver writes; readers want no order.
        place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How often an operation was submitted.
    pub(crate) fn get(&self, opcode: u16) -> u64 {
        self.0[usize::from(opcode).min(Self::LEN - 1)].load(Ordering::Relaxed)
    }
}

/// Passes on to statistics, telemetry and trace what happens to the operations of one sandbox.
#[derive(Debug)]
pub(crate) struct Observer {
    counts: Arc<OpCounts>,
    telemetry: OpTelemetry,
    /// If there is a trace.
    log: Option<TurnLog>,
}

impl Observer {
    pub(crate) fn new(
        counts: Arc<OpCounts>,
        telemetry: OpTelemetry,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            counts,
            telemetry,
            log: recorder.map(TurnLog::new),
        }
    }

    /// Who writes the trace.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.log.as_ref().map(TurnLog::recorder)
    }

    /// The sandbox's span, if anybody listens to it.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.telemetry.span()
    }

    /// A submission was taken out of the ring.
    #[inline]
    pub(crate) fn taken(&self, opcode: u16) {
        self.counts.count(opcode);
    }

    /// An operation that has a slot begins.
    #[inline]
    pub(crate) fn begins(&mut self, submission: &Submission) {
        let Submission { opcode, token, .. } = *submission;
        self.telemetry.begins(token, opcode);
        if let Some(log) = &mut self.log {
            let known = Opcode::from_code(opcode);
            let bytes = known.map_or(0, |known| known.arena_bytes(&submission.params));
            log.begins(token, opcode, bytes);
        }
    }

    /// An operation is done.
    #[inline]
    pub(crate) fn ends(&mut self, token: Token, status: Status, value: u32) {
        self.telemetry.ends(token, status, value);
        if let Some(log) = &mut self.log {
            log.ends(token, status, value);
        }
    }

    /// A turn has ended: the completions of all that has are about to stand in the ring.
    #[inline]
    pub(crate) fn written(&mut self) {
        if let Some(log) = &mut self.log {
            log.written();
        }
    }
}
