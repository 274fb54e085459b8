//! How a guest broke the interface.

use std::fmt;

use serde::{Serialize, Serializer};
use wakebox_abi::queue::Broken;
use wakebox_abi::ring::{Corrupt, Ring};
use wakebox_vmm::violation::Violation as AtProcessor;

/// How a guest broke the interface. `Display` and `Serialize` give a sentence whose subject is the
/// guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// Its index of a ring is behind the host's, or further ahead than the ring is long.
    #[non_exhaustive]
    RingIndex {
        /// Which ring.
        ring: Ring,
        /// The tail, as the host knows it or was told.
        tail: u32,
        /// The head, as the host knows it or was told.
        head: u32,
        /// Entries of the ring.
        size: u32,
    },
    /// It has more operations in flight than the ring of their completions has slots.
    #[non_exhaustive]
    TooManyInFlight {
        /// How many it may have ([`Limits::in_flight`](crate::Limits::in_flight)).
        granted: u32,
    },
    /// It submitted an operation in a slot that does not exist.
    #[non_exhaustive]
    NoSuchSlot {
        /// The slot, from 0.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// It submitted an operation in a slot where another is in flight.
    #[non_exhaustive]
    SlotTaken {
        /// The slot, from 0.
        slot: u32,
    },
    /// It read a port.
    #[non_exhaustive]
    PortRead {
        /// The port's number.
        port: u16,
    },
    /// It wrote to a port that is no doorbell.
    #[non_exhaustive]
    PortWritten {
        /// The port's number.
        port: u16,
    },
    /// It read a physical address where nothing is.
    #[non_exhaustive]
    AddressRead {
        /// The address.
        address: u64,
    },
    /// It wrote to a physical address where nothing is.
    #[non_exhaustive]
    AddressWritten {
        /// The address.
        address: u64,
    },
    /// It rang the doorbell of the exception stubs itself.
    StubDoorbell,
    /// An exception stub ran on a stack that is not its own.
    StubStack,
    /// It rang for a processor that it does not have.
    #[non_exhaustive]
    NoSuchProcessor {
        /// The processor's number, from 0.
        processor: u32,
        /// How many it has.
        processors: u32,
    },
    /// It started a processor that had begun already.
    #[non_exhaustive]
    ProcessorRuns {
        /// The processor's number, from 0.
        processor: u32,
    },
    /// It started a processor at an address that no code of a guest can have.
    #[non_exhaustive]
    StartAddress {
        /// The processor's number, from 0.
        processor: u32,
        /// The address.
        address: u64,
    },
    /// It did nothing: the host panicked while it served the guest, and does not go on with what that
    /// left half done. A subscriber of `tracing` or a recorder of `metrics` did, or Wakebox itself.
    HostPanicked,
}

impl fmt::Display for Violation {
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processor = match *self {
            Self::RingIndex {
                ring,
                tail,
                head,
                size,
            } => {
                let corrupt = Corrupt {
                    ring,
                    tail,
                    head,
                    size,
                };
                return corrupt.fmt(f);
            }
            Self::TooManyInFlight { granted } => {
                return Broken::TooMany { capacity: granted }.fmt(f);
            }
            Self::NoSuchSlot { slot, slots } => {
                return write!(f, "it submitted an operation in slot {slot} of {slots}");
            }
            Self::SlotTaken { slot } => {
                return write!(
                    f,
                    "it submitted a second operation in slot {slot}, where one is in flight"
                );
            }
            Self::NoSuchProcessor {
                processor,
                processors,
            } => {
                return write!(
                    f,
                    "it rang for processor {processor}, counted from 0, and has {processors}"
                );
            }
            Self::ProcessorRuns { processor } => {
                return write!(
                    f,
                    "it started processor {processor}, which has begun already"
                );
            }
            Self::StartAddress { processor, address } => {
                return write!(
                    f,
                    "it started processor {processor} at {address:#x}, where no code can be"
                );
            }
            Self::HostPanicked => {
                return f.write_str(
                    "it did not; the host panicked while it served it: a subscriber of `tracing`, a \
                     recorder of `metrics`, or Wakebox itself",
                );
            }
            Self::PortRead { port } => AtProcessor::PortRead(port),
            Self::PortWritten { port } => AtProcessor::PortWritten(port),
            Self::AddressRead { address } => AtProcessor::AddressRead(address),
            Self::AddressWritten { address } => AtProcessor::AddressWritten(address),
            Self::StubDoorbell => AtProcessor::StubDoorbell,
            Self::StubStack => AtProcessor::StubStack,
        };
        processor.fmt(f)
    }
}

/// As the sentence.
impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Broken> for Violation {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Index(Corrupt {
                ring,
                tail,
                head,
                size,
            }) => Self::RingIndex {
                ring,
                tail,
                head,
                size,
            },
            Broken::TooMany { capacity } => Self::TooManyInFlight { granted: capacity },
        }
    }
}

impl From<AtProcessor> for Violation {
    fn from(violation: AtProcessor) -> Self {
        match violation {
            AtProcessor::PortRead(port) => Self::PortRead { port },
            AtProcessor::PortWritten(port) => Self::PortWritten { port },
            AtProcessor::AddressRead(address) => Self::AddressRead { address },
            AtProcessor::AddressWritten(address) => Self::AddressWritten { address },
            AtProcessor::StubDoorbell => Self::StubDoorbell,
            AtProcessor::StubStack => Self::StubStack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_the_same_sentence_as_a_value_and_in_json() {
        let sentences = [
            (
                Violation::RingIndex {
                    ring: Ring::Submission,
                    tail: 9,
                    head: 1,
                    size: 4,
                },
                "submission ring: tail 9 and head 1 cannot be, in a ring of 4 entries",
            ),
            (
                Violation::TooManyInFlight { granted: 8 },
                "it has more operations in flight than the 8 that it was granted",
            ),
            (
                Violation::NoSuchSlot { slot: 8, slots: 8 },
                "it submitted an operation in slot 8 of 8",
            ),
            (
                Violation::SlotTaken { slot: 3 },
                "it submitted a second operation in slot 3, where one is in flight",
            ),
            (
                Violation::NoSuchProcessor {
                    processor: 4,
                    processors: 4,
                },
                "it rang for processor 4, counted from 0, and has 4",
            ),
            (
                Violation::ProcessorRuns { processor: 0 },
                "it started processor 0, which has begun already",
            ),
            (Violation::PortRead { port: 0x60 }, "it read the port 0x60"),
            (
                Violation::AddressWritten { address: 0x1000 },
                "it wrote the physical address 0x1000, where nothing is",
            ),
            (
                Violation::StubDoorbell,
                "it rang the doorbell of the exception stubs itself",
            ),
        ];
        for (violation, sentence) in sentences {
            assert_eq!(violation.to_string(), sentence);
            let json = serde_json::to_value(violation).unwrap();
            assert_eq!(json, sentence);
        }
    }
}
