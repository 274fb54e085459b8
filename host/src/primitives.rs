//! What the protocols between threads are made of: `vm/kick.rs`, `stop.rs`, `driver/ready.rs`,
//! `driver/bell.rs`.
//!
//! Those files name nothing else, so that `tests/park_model.rs` compiles the very same files
//! with loom's primitives in place of these and searches every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex};

pub(crate) use futures_util::task::AtomicWaker;

pub(crate) use crate::outside::wake;
