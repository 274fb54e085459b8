//! A sandbox that runs as a task and serves calls until it is closed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::Handle;
use crate::calls::guest::{CallError, Caller, GuestStream};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::stats::Stats;

/// A sandbox that runs as a task of its own. Dropping it ends the guest.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    /// None if there was no runtime for it.
    task: Option<JoinHandle<(Result<Outcome>, Stats)>>,
}

impl Running {
    pub(crate) fn new(handle: Handle, task: Option<JoinHandle<(Result<Outcome>, Stats)>>) -> Self {
        Self { handle, task }
    }

    /// Calls a function that the guest exports: [`Caller::call`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call<A, R>(&self, name: &str, input: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.runs()?.call(name, input).await
    }

    /// Calls a function that gives a stream: [`Caller::stream`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn stream<A, T>(&self, name: &str, input: &A) -> Result<GuestStream<T>, CallError>
    where
        A: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        self.runs()?.stream(name, input).await
    }

    /// What calls it, if there was a runtime for it.
    fn runs(&self) -> Result<&Caller, CallError> {
        match self.task {
            Some(_) => Ok(self.handle.caller()),
            None => Err(CallError::NoRuntime),
        }
    }

    /// What calls it, to be given to others.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.handle.caller().clone()
    }

    /// The sandbox from beside: what ends it at once, and tells its numbers while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// As [`Self::handle`], by its former name.
    #[deprecated = "it is `handle` now"]
    #[must_use]
    pub fn kill_handle(&self) -> Handle {
        self.handle()
    }

    /// Lets the guest answer the calls under way and end by itself, and waits for that.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::run`](crate::Sandbox::run).
    pub async fn close(self) -> Result<(Outcome, Stats)> {
        self.handle.caller().close();
        self.ended().await
    }

    /// Waits until the guest ends.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::run`](crate::Sandbox::run).
    pub async fn ended(mut self) -> Result<(Outcome, Stats)> {
        let Some(task) = &mut self.task else {
            return Err(Error::NoRuntime);
        };
        let (outcome, stats) = match task.await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => return Err(Error::Ended),
            },
        };
        Ok((outcome?, stats))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.kill();
    }
}
