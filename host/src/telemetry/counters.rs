//! Counters of the crate `metrics`. Their handles are kept, so that counting looks nothing up.

use std::fmt;
use std::time::Instant;

use metrics::{Counter, counter, gauge, histogram};
use wakebox_abi::status::Status;
use wakebox_abi::wake::Mode;

use crate::trace::ExitReason;

/// Of one sandbox.
#[derive(Debug)]
pub(super) struct SandboxCounters {
    built: Instant,
}

impl SandboxCounters {
    pub(super) fn new(mode: Mode) -> Self {
        counter!("wakebox.sandbox.built", "wakebox.mode" => mode.name()).increment(1);
        gauge!("wakebox.sandbox.active").increment(1.0);
        Self {
            built: Instant::now(),
        }
    }

    pub(super) fn ended(&self, end: &'static str) {
        counter!("wakebox.sandbox.ended", "wakebox.end" => end).increment(1);
        histogram!("wakebox.sandbox.duration", "wakebox.end" => end).record(self.built.elapsed());
    }
}

impl Drop for SandboxCounters {
    fn drop(&mut self) {
        gauge!("wakebox.sandbox.active").decrement(1.0);
    }
}

/// Of the exits of one processor.
pub(super) struct ExitCounters(Vec<(ExitReason, Counter)>);

impl ExitCounters {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn exited(&mut self, reason: ExitReason) {
        find(
            &mut self.0,
            reason,
            || counter!("wakebox.exits", "wakebox.exit.reason" => reason.name()),
        )
        .increment(1);
    }
}

impl fmt::Debug for ExitCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExitCounters")
    }
}

/// Of the operations of one sandbox: by kind, in the last place those of unknown kinds, and by status.
pub(super) struct OpCounters(Vec<Vec<(Status, Counter)>>);

impl OpCounters {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) const COUNT: bool = true;
    const KINDS: usize = 64;

    pub(super) fn count(&mut self, opcode: u16, status: Status) {
        let kind = usize::from(opcode).min(Self::KINDS - 1);
        if kind >= self.0.len() {
            self.0.resize_with(kind + 1, Vec::new);
        }
        find(&mut self.0[kind], status, || {
            let (kind, status) = (super::kind(opcode), status.name());
            counter!("wakebox.ops", "wakebox.op.kind" => kind, "wakebox.op.status" => status)
        })
        .increment(1);
    }
}

impl fmt::Debug for OpCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpCounters")
    }
}

/// The counter of a key, made at its first use. There are few, and the first are the most frequent.
fn find<K: PartialEq + Copy>(
    all: &mut Vec<(K, Counter)>,
    key: K,
    make: impl FnOnce() -> Counter,
) -> &Counter {
    let at = match all.iter().position(|(known, _)| *known == key) {
        Some(at) => at,
        None => {
            all.push((key, make()));
            all.len() - 1
        }
    };
    &all[at].1
}

pub(super) fn refused(kind: &'static str) {
    counter!("wakebox.refusals", "wakebox.refusal.kind" => kind).increment(1);
}
