//! What the queues are made of; the model has its own.

pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use crate::lock::Locked as Mutex;
