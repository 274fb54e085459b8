//! Functions of the embedding program that a guest may call.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use wakebox_abi::status::Status;

use super::{MESSAGE_MAX, read};
use crate::account::Account;

/// The future of one call: its serialized result.
pub(crate) type Call = Pin<Box<dyn Future<Output = Result<Vec<u8>, Status>> + Send>>;

/// The stream of one call: its serialized items.
pub(crate) type Items = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

type CallFn = dyn Fn(HostContext, &[u8], &Account) -> Result<Call, Status> + Send + Sync;
type StreamFn = dyn Fn(HostContext, &[u8], &Account) -> Result<Items, Status> + Send + Sync;

pub(crate) enum Function {
    Call(Box<CallFn>),
    Stream(Box<StreamFn>),
}

/// What a host function is told besides its arguments.
#[derive(Clone, Debug)]
pub struct HostContext {
    function: Arc<str>,
    state: Arc<State>,
}

impl HostContext {
    /// The name by which the guest called.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.function
    }

    /// A value given to the sandbox with [`Builder::state`](crate::Builder::state).
    ///
    /// # Panics
    ///
    /// If none of this type was given. In a host function this ends the call with an error in
    /// the guest, not the process.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> &T {
        self.state.get().unwrap_or_else(|| {
            panic!(
                "the host function `{}` wants a `{}`: give it with `Builder::state`",
                self.function,
                std::any::type_name::<T>()
            )
        })
    }
}

/// Values for host functions, by type.
#[derive(Debug, Default)]
pub(crate) struct State(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl State {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// The functions of a sandbox, by name.
#[derive(Default)]
pub(crate) struct Functions {
    by_name: HashMap<Arc<str>, Function>,
    pub(crate) state: State,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

fn serialize<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    let bytes = postcard::to_stdvec(value).map_err(|_| Status::InvalidData)?;
    if bytes.len() > MESSAGE_MAX {
        Err(Status::MessageTooLarge)
    } else {
        Ok(bytes)
    }
}

impl Functions {
    /// Adds a function, in place of one of the same name.
    pub(crate) fn add_call<A, R, F, Fut>(&mut self, name: &str, function: F)
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(HostContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let call = move |context: HostContext, input: &[u8], account: &Account| {
            let (input, charge) = read::<A>(input, account)?.split();
            let future = function(context, input);
            Ok(Box::pin(async move {
                // What the arguments take is charged until the call ends.
                let _charge = charge;
                serialize(&future.await)
            }) as Call)
        };
        self.by_name
            .insert(name.into(), Function::Call(Box::new(call)));
    }

    /// Adds a function that gives a stream, in place of one of the same name.
    pub(crate) fn add_stream<A, T, F, S>(&mut self, name: &str, function: F)
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(HostContext, A) -> S + Send + Sync + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        let open = move |context: HostContext, input: &[u8], account: &Account| {
            let (input, charge) = read::<A>(input, account)?.split();
            let items = function(context, input).map(move |item| {
                // What the argument takes is charged for as long as the stream is there.
                let _charge = &charge;
                serialize(&item)
            });
            Ok(Box::pin(items) as Items)
        };
        self.by_name
            .insert(name.into(), Function::Stream(Box::new(open)));
    }
}

/// The functions of a sandbox and the runtime in which they run.
#[derive(Clone, Debug)]
pub(crate) struct Callables {
    functions: Arc<Functions>,
    state: Arc<State>,
    /// How long a call may take.
    limit: Option<Duration>,
    /// What arguments are charged to.
    account: Account,
    /// The embedding program's runtime, known when the sandbox runs.
    runtime: Arc<OnceLock<Handle>>,
}

impl Callables {
    pub(crate) fn new(mut functions: Functions, limit: Option<Duration>, account: Account) -> Self {
        let state = Arc::new(std::mem::take(&mut functions.state));
        Self {
            functions: Arc::new(functions),
            state,
            limit,
            account,
            runtime: Arc::default(),
        }
    }

    /// Host functions run in this runtime from now on, whichever thread polls them.
    pub(crate) fn enter(&self, runtime: Handle) {
        let _ = self.runtime.set(runtime);
    }

    /// The function of a name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn find(&self, name: &str) -> Result<(&Function, HostContext), Status> {
        let (name, function) = self
            .functions
            .by_name
            .get_key_value(name)
            .ok_or(Status::NotFound)?;
        Ok((
            function,
            HostContext {
                function: name.clone(),
                state: self.state.clone(),
            },
        ))
    }

    /// Calls a function.
    ///
    /// # Errors
    ///
    /// There is none of that name, the arguments are not what it takes, or it panicked.
    pub(crate) fn call(
        &self,
        name: &str,
        input: &[u8],
    ) -> Result<impl Future<Output = Result<Vec<u8>, Status>> + Send + use<>, Status> {
        let (Function::Call(function), context) = self.find(name)? else {
            return Err(Status::NotFound);
        };
        let call = self.guard(|| function(context, input, &self.account))??;
        let limit = self.limit;
        let call = InRuntime {
            runtime: self.runtime.clone(),
            inner: AssertUnwindSafe(call),
        };
        Ok(async move {
            let call = call.catch_unwind();
            let result = match limit {
                None => call.await,
                Some(limit) => tokio::time::timeout(limit, call)
                    .await
                    .map_err(|_| Status::TimedOut)?,
            };
            // The panic's message went to the process's panic hook, which is the embedder's.
            result.unwrap_or(Err(Status::Panicked))
        })
    }

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub(crate) fn open(&self, name: &str, input: &[u8]) -> Result<ItemStream, Status> {
        let (Function::Stream(function), context) = self.find(name)? else {
            return Err(Status::NotFound);
        };
        let items = self.guard(|| function(context, input, &self.account))??;
        Ok(ItemStream {
            items: Some(items),
            runtime: self.runtime.clone(),
        })
    }

    /// Runs a piece of the embedder's code: a panic in it is a status.
    fn guard<T>(&self, code: impl FnOnce() -> T) -> Result<T, Status> {
        let _runtime = self.runtime.get().map(Handle::enter);
        std::panic::catch_unwind(AssertUnwindSafe(code)).map_err(|_| Status::Panicked)
    }
}

/// A future that is polled inside the embedding program's runtime, so that what it opens and
/// spawns lives there.
struct InRuntime {
    runtime: Arc<OnceLock<Handle>>,
    inner: AssertUnwindSafe<Call>,
}

impl Future for InRuntime {
    type Output = Result<Vec<u8>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let runtime = self.runtime.clone();
        let _runtime = runtime.get().map(Handle::enter);
        self.inner.0.as_mut().poll(context)
    }
}

/// An open stream of a host function.
pub(crate) struct ItemStream {
    /// None after the end or a panic.
    items: Option<Items>,
    runtime: Arc<OnceLock<Handle>>,
}

impl std::fmt::Debug for ItemStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ItemStream")
    }
}

impl ItemStream {
    /// The next item, `None` at the end. Dropping the future loses no item.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        std::future::poll_fn(|context| {
            let Some(items) = &mut self.items else {
                return Poll::Ready(None);
            };
            let _runtime = self.runtime.get().map(Handle::enter);
            let poll = AssertUnwindSafe(|| items.as_mut().poll_next(context));
            let poll =
                std::panic::catch_unwind(poll).unwrap_or(Poll::Ready(Some(Err(Status::Panicked))));
            if matches!(poll, Poll::Ready(None | Some(Err(Status::Panicked)))) {
                self.items = None;
            }
            poll
        })
        .await
    }
}
