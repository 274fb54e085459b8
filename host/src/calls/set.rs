//! Functions of the embedding program as a value that many sandboxes are given.

use std::future::Future;

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::host::{Functions, HostContext};

/// Host functions and what they share, for many sandboxes: clones are about the same functions and the same
/// values, however many sandboxes are given them with [`Builder::functions`](crate::Builder::functions).
///
/// ```
/// use wakebox::{HostContext, HostFunctions, Sandbox};
///
/// let functions = HostFunctions::new()
///     .state(String::from("north"))
///     .host_fn("region", async |ctx: HostContext, (): ()| ctx.state::<String>().clone());
/// let one = Sandbox::builder().functions(functions.clone());
/// let other = Sandbox::builder().functions(functions);
/// # let _ = (one, other);
/// ```
#[derive(Clone, Debug, Default)]
pub struct HostFunctions(pub(crate) Functions);

impl HostFunctions {
    /// No function.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function: see [`Builder::host_fn`](crate::Builder::host_fn).
    #[must_use]
    pub fn host_fn<A, R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(HostContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        self.0.add_call(name, function);
        self
    }

    /// Adds a function that yields a stream: see [`Builder::host_stream`](crate::Builder::host_stream).
    #[must_use]
    pub fn host_stream<A, T, F, S>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(HostContext, A) -> S + Send + Sync + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        self.0.add_stream(name, function);
        self
    }

    /// A value for all of them, found by its type with [`HostContext::state`].
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.0.state.insert(value);
        self
    }
}
