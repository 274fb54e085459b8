//! The end of a driver: what is in flight and open is dropped, in pieces that are as long as a turn.

use super::backend::Backend;
use super::inflight::InFlight;
use crate::allowance::{self, Allowance, Quota};
use crate::later::let_go;

/// What is to be dropped.
#[allow(dead_code, reason = "held until it is dropped")]
enum One<B: Backend> {
    Operation(B::Operation),
    Open(B::Open),
}

impl<B: Backend> One<B> {
    /// What dropping it costs of an allowance.
    fn price(&self) -> usize {
        match self {
            Self::Operation(_) => allowance::LIGHT,
            Self::Open(_) => allowance::CALL / 4,
        }
    }
}

/// What has not been dropped yet.
pub(super) struct Remains<B: Backend>(Box<dyn Iterator<Item = One<B>> + Send>);

impl<B: Backend> std::fmt::Debug for Remains<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remains")
    }
}

impl<B: Backend> Remains<B> {
    /// All that there is. Operations come first, which hold what they are on.
    pub(super) fn of(inflight: &mut InFlight<B::Operation>, backend: &mut B) -> Self {
        let operations = inflight.take_all().map(One::Operation);
        let open = backend.end().map(One::Open);
        Self(Box::new(operations.chain(open)))
    }

    /// Drops as much as the quota lets it. Returns whether that was all.
    pub(super) fn drop_some(&mut self, quota: Quota) -> bool {
        let _allowance = Allowance::new(quota);
        while !allowance::is_spent() {
            let Some(one) = self.0.next() else {
                return true;
            };
            allowance::spend(one.price());
        }
        false
    }

    /// Has a thread for blocking calls drop what there is yet.
    pub(super) fn let_go(&mut self) {
        let_go(std::mem::replace(&mut self.0, Box::new(std::iter::empty())));
    }
}
