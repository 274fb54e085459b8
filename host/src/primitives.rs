//! What the protocols between threads are made of: `stop.rs`, `driver/ready.rs`, `driver/notify.rs`.
//!
//! Those files name nothing else, so that `tests/park_model.rs` compiles the very same files, and
//! that of [`Kick`], with loom's primitives in place of these and searches every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex};

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use wakebox_vmm::kick::{Kick, Processor, Reasons};

pub(crate) use crate::outside::wake;
