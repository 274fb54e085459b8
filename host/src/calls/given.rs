//! Streams that a guest gives functions of the host.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::guest::{CallError, GuestStream};
use super::host::HostContext;

/// A `stream<T>` or a `future<T>` that a WebAssembly component gives a function of the host, as an argument of it. Of a
/// stream of bytes, `T` is a `Vec<u8>`, some of them; a future has one item.
///
/// Whoever opens it reads what comes, when it comes: the component is ahead by a few items, and then waits. One that is
/// not opened when the function has returned is dropped, and so is one that is open with its [`GuestStream`]; the
/// component sees that when it writes.
///
/// ```
/// # use wakebox::{GivenStream, HostContext, Sandbox};
/// let builder = Sandbox::builder().host_fn(
///     "my:app/sums.sum",
///     async |context: HostContext, (numbers,): (GivenStream<u32>,)| -> u64 {
///         let mut numbers = numbers.open(&context).await.expect("the guest takes calls");
///         let mut sum = 0;
///         while let Some(Ok(number)) = numbers.next().await {
///             sum += u64::from(number);
///         }
///         sum
///     },
/// );
/// ```
pub struct GivenStream<T> {
    number: u32,
    items: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for GivenStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GivenStream").field(&self.number).finish()
    }
}

impl<'de, T> Deserialize<'de> for GivenStream<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        let items = PhantomData;
        Ok(Self { number, items })
    }
}

impl<T: DeserializeOwned> GivenStream<T> {
    /// Begins to take its items.
    ///
    /// # Errors
    ///
    /// As [`Caller::stream`](crate::Caller::stream): that is how items come.
    pub async fn open(self, context: &HostContext) -> Result<GuestStream<T>, CallError> {
        let name = format!("[stream]{}", self.number);
        context.caller().stream(&name, &()).await
    }
}
