//! Of the machine, what its protocols need.

#[path = "../../src/vm/kick.rs"]
pub(crate) mod kick;
