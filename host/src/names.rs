//! What the host calls an operation, whichever of a guest's rings it came from.

use wakebox_abi::entry::Token;

/// How the operations of several rings are called by different names: tokens of two rings may be the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// Bits of a slot's number that are the ring's.
    bits: u32,
}

impl Names {
    /// Those of so many rings.
    pub(crate) fn of(rings: u32) -> Self {
        Self {
            bits: rings.next_power_of_two().trailing_zeros(),
        }
    }

    /// What an operation is called that a ring calls so.
    #[inline]
    pub(crate) fn of_ring(self, ring: u32, token: Token) -> Token {
        Token {
            slot: token.slot << self.bits | ring,
            ..token
        }
    }

    /// The ring of an operation, and what that calls it.
    #[inline]
    pub(crate) fn in_ring(self, token: Token) -> (u32, Token) {
        let slot = token.slot >> self.bits;
        (self.ring(token.slot), Token { slot, ..token })
    }

    /// The ring of a slot.
    #[inline]
    pub(crate) fn ring(self, slot: u32) -> u32 {
        slot & ((1 << self.bits) - 1)
    }
}
