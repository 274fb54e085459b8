//! What a guest that is watched keeps of the largest blocks of its heap, and of who has asked for them, so that
//! whoever looks at one without memory learns where it went.
//!
//! The words `Large` and `LargeHigh` of the control page have the address of a word, which has the address of
//! [`PLACES`] records, or zero as long as nothing was recorded. A record whose length is zero is empty.
//!
//! A host believes nothing of it: it is for people.

/// How many blocks are recorded: the largest.
pub const PLACES: usize = 32;

/// Bytes of the smallest block that is recorded.
pub const LEAST: u64 = 4096;

/// Words of the stack that are kept with a block.
pub const STACK: usize = 512;

/// A block of the heap, and the calls that led to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Large {
    /// Its address.
    pub address: u64,
    /// Its length in bytes; zero if this is none.
    pub len: u64,
    /// The task that was being polled, by its number; zero outside of all.
    pub task: u64,
    /// Words of `stack` that are valid.
    pub depth: u64,
    /// `rip`, `rsp`, `rbp`, `rbx`, `r12`, `r13`, `r14` and `r15` where it was recorded.
    pub registers: [u64; 8],
    /// What lay on the stack, from `rsp` up.
    pub stack: [u64; STACK],
}

impl Large {
    /// Words of a record.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// Words before the stack.
    pub const HEAD: usize = Self::WORDS - STACK;

    /// No block.
    pub const NONE: Self = Self {
        address: 0,
        len: 0,
        task: 0,
        depth: 0,
        registers: [0; 8],
        stack: [0; STACK],
    };

    /// From the words before the stack.
    #[must_use]
    pub const fn of_head(head: [u64; Self::HEAD]) -> Self {
        let [address, len, task, depth, a, b, c, d, e, f, g, h] = head;
        Self {
            address,
            len,
            task,
            depth,
            registers: [a, b, c, d, e, f, g, h],
            stack: [0; STACK],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_in_the_order_in_which_it_lies_in_memory() {
        let head = core::array::from_fn(|at| at as u64 + 1);
        let large = Large::of_head(head);
        // SAFETY: `Large` is `repr(C)` of words.
        let words: [u64; Large::WORDS] = unsafe { core::mem::transmute(large) };
        assert_eq!(words[..Large::HEAD], head);
        assert_eq!((large.address, large.depth, large.registers[7]), (1, 4, 12));
    }
}
