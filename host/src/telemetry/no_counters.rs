//! Nobody counts: the feature `metrics` is off.

use wakebox_abi::status::Status;
use wakebox_abi::wake::Mode;

use crate::trace::ExitReason;

#[derive(Debug)]
pub(super) struct SandboxCounters;

impl SandboxCounters {
    pub(super) fn new(_: Mode) -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "as the ones that count")]
    pub(super) fn ended(&self, _: &'static str) {}
}

#[derive(Debug)]
pub(super) struct ExitCounters;

impl ExitCounters {
    pub(super) const fn new() -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "as the ones that count")]
    pub(super) fn exited(&mut self, _: ExitReason) {}
}

#[derive(Debug)]
pub(super) struct OpCounters;

impl OpCounters {
    pub(super) const fn new() -> Self {
        Self
    }

    pub(super) const COUNT: bool = false;

    #[allow(clippy::unused_self, reason = "as the ones that count")]
    pub(super) fn count(&mut self, _: u16, _: Status) {}
}

pub(super) fn refused(_: &'static str) {}
