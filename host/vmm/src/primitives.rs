//! What the protocol of [`kick`](crate::kick) is made of. That file names nothing else, so that
//! `tests/park_model.rs` of the library compiles the very same file with loom's primitives in place of
//! these and searches every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};
