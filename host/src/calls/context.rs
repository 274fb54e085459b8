//! What whoever uses a sandbox says of itself, for host functions: a request's number, a tenant.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::embedded::{Embedded, Home};

/// A value of any type of the embedder's.
pub(super) type Said = Arc<Embedded<Box<dyn Any + Send + Sync>>>;

/// The one of a sandbox. Calls of host functions that begin have the last.
#[derive(Debug)]
pub(crate) struct Slot {
    said: Mutex<Option<Said>>,
    home: Home,
}

impl Slot {
    pub(super) fn new(home: Home) -> Self {
        Self {
            said: Mutex::default(),
            home,
        }
    }

    pub(crate) fn set<T: Send + Sync + 'static>(&self, value: T) {
        let value: Box<dyn Any + Send + Sync> = Box::new(value);
        let new = Arc::new(Embedded::new(value, self.home.clone()));
        let former = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.replace(new)
        };
        // Without the lock: it is the embedder's code that drops it.
        drop(former);
    }

    pub(super) fn get(&self) -> Option<Said> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }
}
