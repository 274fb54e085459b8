//! What tasks, operations and timers are called.

use std::fmt;

use serde::{Deserialize, Serialize};
use wakebox_abi::op::Opcode;

/// A task of the guest: its number, from 1 on, never used twice in a run. Task 1 is `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u32);

/// An operation: its number in the order of submission, from 1 on, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// A timer of the guest: its number, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimerId(pub u64);

impl OpId {
    /// An operation of which the trace does not know the beginning: records were lost, or the guest
    /// names one that is not in flight.
    pub const UNKNOWN: Self = Self(0);
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.0)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {}", self.0)
    }
}

/// Which kind of operation: its number in [`wakebox_abi::op`], which may be one that no version
/// knows. In files it is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpKind(pub u16);

impl OpKind {
    /// The name, `unknown` for a number without one.
    #[must_use]
    pub fn name(self) -> &'static str {
        Opcode::from_code(self.0).map_or("unknown", Opcode::name)
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Opcode> for OpKind {
    fn from(opcode: Opcode) -> Self {
        Self(opcode as u16)
    }
}

impl Serialize for OpKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Opcode::from_code(self.0) {
            Some(opcode) => serializer.serialize_str(opcode.name()),
            None => serializer.serialize_u16(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for OpKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl serde::de::Visitor<'_> for NameOrNumber {
            type Value = OpKind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the number of an operation")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<OpKind, E> {
                let mut all = Opcode::ALL.iter();
                all.find(|opcode| opcode.name() == name)
                    .map(|opcode| OpKind::from(*opcode))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(name), &self))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<OpKind, E> {
                u16::try_from(number)
                    .map(OpKind)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}
