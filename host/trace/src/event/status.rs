//! A [`Status`] by its name.

use serde::Deserialize;
use wakebox_abi::status::Status;

pub(super) fn serialize<S: serde::Serializer>(
    status: &Status,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{status:?}"))
}

pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Status, D::Error> {
    let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
    let found = Status::ALL
        .iter()
        .find(|status| format!("{status:?}") == *name);
    found.copied().ok_or_else(|| {
        serde::de::Error::custom(format_args!("`{name}` is not how an operation ends"))
    })
}
