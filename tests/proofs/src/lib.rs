//! What the host promises of *any* bytes in shared memory, as code that checks it.
//!
//! A check is a function over a source of values ([`Any`]): wherever the guest could have put
//! something, the check asks the source. The same check then runs in four ways:
//!
//! | source | what it gives | by |
//! |---|---|---|
//! | [`Choices`] | every combination of the values that can make a difference, at small sizes | `cargo test` |
//! | [`Random`] | telling values and others, at full size, from a seed | `cargo xtask fuzz` |
//! | [`Bytes`] | what proptest or a coverage-guided fuzzer makes up, and shrinks | `cargo test`, `cargo xtask fuzz` |
//! | `Symbolic` | every value there is, by a solver | `cargo xtask kani` |
//!
//! [`memory::Liar`] is shared memory in which each read of a word gives any value. Whatever a guest
//! writes, and whenever it does so between two reads of the host, the host sees some sequence of
//! values: so this covers every guest and every interleaving.
//!
//! What a check looks for: a panic, which stands for a failed assertion, an overflow, an index out of range
//! (debug assertions and overflow checks are on wherever checks run).

pub mod any;
pub mod checks;
pub mod files;
pub mod memory;

#[cfg(kani)]
pub use any::Symbolic;
pub use any::{Any, Bytes, Choices, Random, Reached, every, reach};
