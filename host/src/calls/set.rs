//! Functions of the embedding program as a value that many sandboxes are given.

use std::future::Future;
use std::io;

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::host::{Functions, HostContext, Whole};

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

    /// Adds a function of JSON: see [`Builder::host_fn_json`](crate::Builder::host_fn_json).
    #[must_use]
    pub fn host_fn_json<R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        R: Into<Vec<u8>>,
        F: Fn(HostContext, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<R>> + Send + 'static,
    {
        self.0.add_whole(name, &Whole::JSON, function);
        self
    }

    /// Adds a function of bytes: see [`Builder::host_fn_bytes`](crate::Builder::host_fn_bytes).
    #[must_use]
    pub fn host_fn_bytes<R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        R: Into<Vec<u8>>,
        F: Fn(HostContext, Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<R>> + Send + 'static,
    {
        self.0.add_whole(name, &Whole::BYTES, function);
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
