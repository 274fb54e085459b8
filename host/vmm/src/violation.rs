//! What no guest may do, and its processor says that it did.

use std::fmt;

/// What a guest did at a port or at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It read a port.
    PortRead(u16),
    /// It wrote to a port that is no doorbell.
    PortWritten(u16),
    /// It read a physical address where nothing is.
    AddressRead(u64),
    /// It wrote to a physical address where nothing is.
    AddressWritten(u64),
    /// It rang the doorbell of the exception stubs itself.
    StubDoorbell,
    /// An exception stub ran on a stack that is not its own.
    StubStack,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortRead(port) => write!(f, "it read the port {port:#x}"),
            Self::PortWritten(port) => write!(f, "it wrote to the port {port:#x}"),
            Self::AddressRead(address) => {
                write!(
                    f,
                    "it read the physical address {address:#x}, where nothing is"
                )
            }
            Self::AddressWritten(address) => {
                write!(
                    f,
                    "it wrote the physical address {address:#x}, where nothing is"
                )
            }
            Self::StubDoorbell => f.write_str("it rang the doorbell of the exception stubs itself"),
            Self::StubStack => f.write_str("an exception stub ran on a stack that is not its own"),
        }
    }
}
