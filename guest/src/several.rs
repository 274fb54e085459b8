//! What a guest with several processors adds to the runtime of each; without the feature `processors` nothing.

#[cfg(any(feature = "processors", test))]
mod on;
#[cfg(any(feature = "processors", test))]
use self::on as several;

#[cfg(not(any(feature = "processors", test)))]
mod off;
#[cfg(not(any(feature = "processors", test)))]
use self::off as several;

/// Whether the host may put off what nobody waits for. Where there are several processors, another one may wait for what this
/// one would have to ask for.
pub(crate) const DEFERS: bool = cfg!(not(feature = "processors"));

pub(crate) use self::several::{Here, Latest, Shared, Whereabouts, common, share};

/// A cell that all processors use.
#[cfg(feature = "processors")]
pub(crate) use crate::lock::Locked as SharedCell;
/// A cell that all processors use, of which there is one.
#[cfg(not(feature = "processors"))]
pub(crate) use crate::mask::MaskedCell as SharedCell;

#[cfg(any(feature = "processors", test))]
pub(crate) use self::on::Common;
