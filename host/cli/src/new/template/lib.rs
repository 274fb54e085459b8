//! The part of the guest that needs no machine.

#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::String;

/// What the guest says to `name`.
pub fn greeting(name: &str) -> String {
    format!("Hello, {name}, from ring 3 of a machine without a kernel.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_has_the_name_in_it() {
        assert!(greeting("friend").contains("friend"));
    }
}
