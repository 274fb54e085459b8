//! The end of a driver: what is in flight and open is dropped, in pieces that are as long as a turn.

use super::handles::{Handles, Resource, Vacancy};
use super::inflight::{InFlight, Operation};
use crate::allowance::{self, Allowance, Quota};
use crate::later::let_go;

/// What is to be dropped.
#[allow(dead_code, reason = "held until it is dropped")]
enum One {
    Operation(Operation),
    Open(Resource, Vacancy),
}

impl One {
    /// What dropping it costs of an allowance.
    fn price(&self) -> usize {
        match self {
            Self::Operation(_) => allowance::LIGHT,
            Self::Open(..) => allowance::CALL / 4,
        }
    }
}

/// What has not been dropped yet.
pub(super) struct Remains(Box<dyn Iterator<Item = One> + Send>);

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remains")
    }
}

impl Remains {
    /// All that these tables hold. Operations come first, which hold what they are on.
    pub(super) fn of(inflight: &mut InFlight, handles: &mut Handles) -> Self {
        let operations = inflight.take_all().map(One::Operation);
        let open = handles.take_all();
        let open = open.map(|(resource, place)| One::Open(resource, place));
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
