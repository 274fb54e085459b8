//! The entries of the two rings.

use crate::status::Status;

/// Names one operation in flight, from submission to completion.
///
/// The slot is the guest's choice below the number of completion entries, and at
/// most one operation may be in flight in a slot; the host keeps its state of the
/// operation at the same index, so that neither side searches. The generation tells
/// one user of a slot from the next: a stale completion cannot wake another operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index of the slot.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

impl Token {
    /// The token as one word.
    #[inline]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The token in a word.
    #[inline]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            slot: word as u32,
            generation: (word >> 32) as u32,
        }
    }
}

/// A request from the guest: 64 bytes, one cache line.
///
/// ```text
/// word 0   bits 0..16 opcode, bit 16 deferrable, the rest zero
/// word 1   token
/// word 2.. parameters, one word each (crate::op)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What to do: [`crate::op::Opcode`] as a number.
    pub opcode: u16,
    /// Whether nobody waits for the end: the host may publish the completion together with that of another operation.
    ///
    /// It does so if the operation has succeeded on the spot, while others of the ring are in flight, and until
    /// [`crate::queue::MOST_DEFERRED`] are deferred. A guest that has come to wait for one submits a no-op, whose completion
    /// is published behind it.
    pub deferrable: bool,
    /// Which operation this is.
    pub token: Token,
    /// The operation's parameters.
    pub params: [u64; Submission::PARAMS],
}

impl Submission {
    /// Number of parameter words.
    pub const PARAMS: usize = 6;
    /// Words of an entry.
    pub const WORDS: usize = 8;
    /// Bytes of an entry.
    pub const SIZE: usize = Self::WORDS * 8;
    /// What marks one in its first word that is deferrable.
    const DEFERRABLE: u64 = 1 << 16;
}

/// The end of an operation, from the host: 16 bytes.
///
/// ```text
/// word 0   token
/// word 1   bits 0..32 status, bits 32..64 value
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation ended.
    pub token: Token,
    /// How it ended.
    pub status: Status,
    /// What it gave: bytes moved, a new handle, or zero.
    pub value: u32,
}

impl Completion {
    /// Words of an entry.
    pub const WORDS: usize = 2;
    /// Bytes of an entry.
    pub const SIZE: usize = Self::WORDS * 8;
}

/// Something that lies in a ring: made of `WORDS` words, all of whose values can be read.
pub trait Entry<const WORDS: usize>: Copy {
    /// The entry as it lies in memory.
    fn to_words(self) -> [u64; WORDS];
    /// The entry in these words. Total: validation is the reader's next step.
    fn from_words(words: [u64; WORDS]) -> Self;
}

impl Entry<{ Submission::WORDS }> for Submission {
    #[inline]
    fn to_words(self) -> [u64; Submission::WORDS] {
        let [a, b, c, d, e, f] = self.params;
        let deferrable = u64::from(self.deferrable) * Self::DEFERRABLE;
        [
            u64::from(self.opcode) | deferrable,
            self.token.to_word(),
            a,
            b,
            c,
            d,
            e,
            f,
        ]
    }

    #[inline]
    fn from_words([head, token, a, b, c, d, e, f]: [u64; Submission::WORDS]) -> Self {
        let opcode = head & !Self::DEFERRABLE;
        Self {
            // Bits that must be zero make the opcode one that nobody knows.
            opcode: u16::try_from(opcode).unwrap_or(u16::MAX),
            deferrable: opcode != head,
            token: Token::from_word(token),
            params: [a, b, c, d, e, f],
        }
    }
}

impl Entry<{ Completion::WORDS }> for Completion {
    #[inline]
    fn to_words(self) -> [u64; Completion::WORDS] {
        [
            self.token.to_word(),
            u64::from(self.value) << 32 | u64::from(self.status.code()),
        ]
    }

    #[inline]
    fn from_words([token, end]: [u64; Completion::WORDS]) -> Self {
        Self {
            token: Token::from_word(token),
            status: Status::from_code(end as u32),
            value: (end >> 32) as u32,
        }
    }
}

const _: () = {
    assert!(Submission::SIZE == 64, "Submission: raise ABI_VERSION");
    assert!(Completion::SIZE == 16, "Completion: raise ABI_VERSION");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_round_trip() {
        let token = Token {
            slot: 7,
            generation: u32::MAX,
        };
        for deferrable in [false, true] {
            let submission = Submission {
                opcode: 9,
                deferrable,
                token,
                params: [1, 2, 3, 4, 5, u64::MAX],
            };
            assert_eq!(Submission::from_words(submission.to_words()), submission);
        }
        let completion = Completion {
            token,
            status: Status::BrokenPipe,
            value: u32::MAX,
        };
        assert_eq!(Completion::from_words(completion.to_words()), completion);
    }

    #[test]
    fn reserved_bits_make_an_unknown_opcode() {
        let mut words = [0; Submission::WORDS];
        words[0] = 1 << 17;
        assert_eq!(Submission::from_words(words).opcode, u16::MAX);
    }
}
