//! Nothing: a guest has no Linux. Wasmtime names the crate `memfd` for Linux also where it does not
//! use it, and the real one wants `std`.

#![no_std]
