//! Functions of the embedding program that a guest may call.
//!
//! Each call is a task of the embedder's runtime ([`crate::embedded`]), and so is each open stream.
//! What the driver does itself is to look the name up.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tracing::Span;
use wakebox_abi::op::CallForm;
use wakebox_abi::status::Status;
use wakebox_typed::{Typed, signature};

use super::context::{Said, Slot};
use super::guest::Caller;
use super::{MESSAGE_MAX, Message, read};
use crate::account::{Account, Kept};
use crate::embedded::{Embedded, Home, Inside, Task, Theirs};
use crate::status::status_of;

/// A message longer than this takes a while to be read: that is done where it keeps nobody.
const LONG: usize = 64 << 10;

/// The future of one call: its serialized result.
type Call = Theirs<Vec<u8>>;

/// The stream of one call: its serialized items.
type Items = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

/// Begins with arguments in a form, which may not be that of the function.
type Begin<T> = dyn Fn(HostContext, CallForm, &[u8], &Account) -> Result<T, Status> + Send + Sync;
type CallFn = Begin<Call>;
type StreamFn = Begin<Items>;

/// Shared by the sandboxes that have it.
#[derive(Clone)]
enum Function {
    Call(Arc<CallFn>),
    Stream(Arc<StreamFn>),
}

/// What a host function is told besides its arguments.
#[derive(Clone, Debug)]
pub struct HostContext {
    function: Arc<str>,
    state: Arc<Embedded<State>>,
    context: Option<Said>,
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
        self.state.theirs().get().unwrap_or_else(|| {
            panic!(
                "the host function `{}` wants a `{}`: give it with `Builder::state`",
                self.function,
                std::any::type_name::<T>()
            )
        })
    }

    /// What calls functions of the guest that has called this one.
    pub(crate) fn caller(&self) -> &Caller {
        &self.state::<Own>().0
    }

    /// What the sandbox is used for, as [`Handle::set_context`](crate::Handle::set_context) was told last before
    /// this call began: a request's number, a tenant. `None` if nothing, or something of another type.
    #[must_use]
    pub fn context<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.context.as_ref()?.theirs().downcast_ref()
    }
}

/// What calls the guest itself.
pub(crate) struct Own(pub(crate) Caller);

/// Values for host functions, by type.
#[derive(Clone, Debug, Default)]
pub(crate) struct State(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl State {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// A function and its types, in words.
#[derive(Clone)]
struct Declared {
    function: Function,
    signature: String,
}

/// The functions of a sandbox, by name, and what they share.
#[derive(Clone, Default)]
pub(crate) struct Functions {
    by_name: HashMap<Arc<str>, Declared>,
    pub(crate) state: State,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// Writes what goes back, typed if what came was.
fn serialize<T: Serialize>(value: &T, is_typed: bool) -> Result<Vec<u8>, Status> {
    let bytes = match is_typed {
        true => postcard::to_stdvec(&Typed(value)),
        false => postcard::to_stdvec(value),
    };
    bounded(bytes.map_err(|_| Status::InvalidData)?)
}

/// A message, if it is none that is too long.
fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    if bytes.len() > MESSAGE_MAX {
        Err(Status::MessageTooLarge)
    } else {
        Ok(bytes)
    }
}

/// A form of arguments and results that says nothing of their types.
#[derive(Debug)]
pub(crate) struct Whole<I> {
    form: CallForm,
    /// What a guest is told that gives arguments in another one.
    refusal: Status,
    signature: &'static str,
    take: fn(&[u8]) -> Result<I, Status>,
}

impl Whole<Vec<u8>> {
    /// Bytes.
    pub(crate) const BYTES: Self = Self {
        form: CallForm::Bytes,
        refusal: Status::InvalidData,
        signature: "bytes -> bytes",
        take: |bytes| Ok(bytes.to_vec()),
    };
}

impl Whole<String> {
    /// JSON text.
    pub(crate) const JSON: Self = Self {
        form: CallForm::Json,
        refusal: Status::WantsJson,
        signature: "JSON -> JSON",
        take: json_line,
    };
}

/// JSON text of a guest's, on one line: so it stays one message where a line is one.
fn json_line(bytes: &[u8]) -> Result<String, Status> {
    let text = std::str::from_utf8(bytes).map_err(|_| Status::InvalidData)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Status::InvalidData)?;
    // In texts a line end is escaped, and elsewhere it is a space.
    Ok(text.replace(['\n', '\r'], " "))
}

impl Functions {
    /// Adds all of another set, in place of those of the same name or type.
    pub(crate) fn add_all(&mut self, others: Self) {
        self.by_name.extend(others.by_name);
        self.state.0.extend(others.state.0);
    }

    /// Adds a function, in place of one of the same name.
    pub(crate) fn add_call<A, R, F, Fut>(&mut self, name: &str, function: F)
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(HostContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let call = move |context: HostContext, form, input: &[u8], account: &Account| {
            let input = Message::of(form, input)?;
            let is_typed = input.is_typed;
            let (input, charge) = read::<A>(input, account)?.split();
            let future = function(context, input);
            Ok(Box::pin(async move {
                // What the arguments take is charged until the call ends.
                let _charge = charge;
                serialize(&future.await, is_typed)
            }) as Call)
        };
        let declared = Declared {
            function: Function::Call(Arc::new(call)),
            signature: signature::<A, R>().to_string(),
        };
        self.by_name.insert(name.into(), declared);
    }

    /// Adds a function whose arguments and result are of one form as a whole, whatever is in them, in place of
    /// one of the same name.
    pub(crate) fn add_whole<I, O, F, Fut>(
        &mut self,
        name: &str,
        form: &'static Whole<I>,
        function: F,
    ) where
        I: Send + 'static,
        O: Into<Vec<u8>>,
        F: Fn(HostContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<O>> + Send + 'static,
    {
        let call = move |context: HostContext, given, input: &[u8], account: &Account| {
            if given != form.form {
                return Err(form.refusal);
            }
            let charge = account.charge(input.len())?;
            let future = function(context, (form.take)(input)?);
            Ok(Box::pin(async move {
                let _charge = charge;
                let result = future.await.map_err(|error| status_of(&error))?;
                bounded(result.into())
            }) as Call)
        };
        let declared = Declared {
            function: Function::Call(Arc::new(call)),
            signature: form.signature.into(),
        };
        self.by_name.insert(name.into(), declared);
    }

    /// Adds a function that gives a stream, in place of one of the same name.
    pub(crate) fn add_stream<A, T, F, S>(&mut self, name: &str, function: F)
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(HostContext, A) -> S + Send + Sync + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        let open = move |context: HostContext, form, input: &[u8], account: &Account| {
            let input = Message::of(form, input)?;
            let is_typed = input.is_typed;
            let (input, charge) = read::<A>(input, account)?.split();
            let items = function(context, input).map(move |item| {
                // What the argument takes is charged for as long as the stream is there.
                let _charge = &charge;
                serialize(&item, is_typed)
            });
            Ok(Box::pin(items) as Items)
        };
        let declared = Declared {
            function: Function::Stream(Arc::new(open)),
            signature: signature::<A, T>().to_string(),
        };
        self.by_name.insert(name.into(), declared);
    }
}

/// What is known of a function without touching what is the embedder's.
#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    is_stream: bool,
    signature: String,
}

/// A function that was found.
#[derive(Debug)]
pub(crate) struct Found {
    index: usize,
    common: Arc<Common>,
}

/// The functions of a sandbox and the runtime in which they run.
#[derive(Clone, Debug)]
pub(crate) struct Callables(Arc<Common>);

#[derive(Debug)]
struct Common {
    by_name: HashMap<Arc<str>, usize>,
    entries: Vec<Entry>,
    /// As the entries are.
    functions: Embedded<Vec<Function>>,
    state: Arc<Embedded<State>>,
    context: Arc<Slot>,
    /// How long a call may take.
    limit: Option<Duration>,
    home: Home,
    account: Account,
}

impl Callables {
    pub(crate) fn new(functions: Functions, limit: Option<Duration>, account: Account) -> Self {
        let home = Home::default();
        let (mut by_name, mut entries, mut all) = (HashMap::new(), Vec::new(), Vec::new());
        for (name, declared) in functions.by_name {
            by_name.insert(name.clone(), all.len());
            entries.push(Entry {
                name,
                is_stream: matches!(declared.function, Function::Stream(_)),
                signature: declared.signature,
            });
            all.push(declared.function);
        }
        Self(Arc::new(Common {
            by_name,
            entries,
            functions: Embedded::new(all, home.clone()),
            state: Arc::new(Embedded::new(functions.state, home.clone())),
            context: Arc::new(Slot::new(home.clone())),
            limit,
            home,
            account,
        }))
    }

    /// Host functions run in this runtime from now on, in this span.
    pub(crate) fn enter(&self, runtime: Handle, span: Span) {
        self.0.home.enter(runtime, span);
    }

    /// What whoever uses the sandbox says of itself.
    pub(crate) fn context(&self) -> &Arc<Slot> {
        &self.0.context
    }

    /// The runtime.
    pub(crate) fn home(&self) -> &Home {
        &self.0.home
    }

    /// The function of this name.
    ///
    /// # Errors
    ///
    /// There is none, or none that gives a stream or does not, if that is asked for.
    pub(crate) fn find(&self, name: &str, is_stream: Option<bool>) -> Result<Found, Status> {
        let index = *self.0.by_name.get(name).ok_or(Status::NotFound)?;
        if is_stream.is_some_and(|is| is != self.0.entries[index].is_stream) {
            return Err(Status::NotFound);
        }
        Ok(Found {
            index,
            common: self.0.clone(),
        })
    }
}

impl Found {
    /// Its types, in words.
    pub(crate) fn signature(&self) -> &str {
        &self.common.entries[self.index].signature
    }

    /// What messages are charged to.
    pub(crate) fn account(&self) -> &Account {
        &self.common.account
    }

    fn function(&self, inside: Inside) -> &Function {
        &self.common.functions.get(inside)[self.index]
    }

    fn context(&self) -> HostContext {
        HostContext {
            function: self.common.entries[self.index].name.clone(),
            state: self.common.state.clone(),
            context: self.common.context.get(),
        }
    }

    /// Calls a function with these arguments. What is read from them is charged until the call ends: a
    /// guest may name the same range of the arena in thousands of calls.
    ///
    /// # Errors
    ///
    /// The sandbox does not run. What the call comes to, the task gives: the arguments may not be
    /// what the function takes, and it may panic.
    pub(crate) async fn call(self, input: Kept, form: CallForm) -> Result<Task<Kept>, Status> {
        let (common, len) = (self.common.clone(), input.len());
        let begin = move |inside: Inside| -> Result<Theirs<Kept>, Status> {
            let Function::Call(function) = self.function(inside) else {
                return Err(Status::NotFound);
            };
            let call = function(self.context(), form, &input, self.account())?;
            Ok(Box::pin(async move { self.account().keep(call.await?) }))
        };
        common.start(begin, len, common.limit).await
    }

    /// Opens a stream with these arguments. What is read from them is charged until it is closed.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub(crate) async fn open(self, input: Kept, form: CallForm) -> Result<ItemStream, Status> {
        let (common, len) = (self.common.clone(), input.len());
        let (tell, said) = mpsc::channel(1);
        let wanted = Arc::new(Notify::new());
        let asked = wanted.clone();
        let begin = move |inside: Inside| -> Result<Theirs<()>, Status> {
            let Function::Stream(function) = self.function(inside) else {
                return Err(Status::NotFound);
            };
            let mut items = function(self.context(), form, &input, self.account())?;
            Ok(Box::pin(async move {
                if tell.send(Heard::Open).await.is_err() {
                    return Ok(());
                }
                loop {
                    asked.notified().await;
                    let Some(item) = items.next().await else {
                        return Ok(());
                    };
                    let item = item.and_then(|item| self.account().keep(item));
                    if tell.send(Heard::Item(item)).await.is_err() {
                        return Ok(());
                    }
                }
            }))
        };
        Ok(ItemStream {
            task: Some(common.start(begin, len, None).await?),
            said,
            wanted,
            is_asked: false,
        })
    }
}

impl Common {
    /// Starts a task that begins with reading `len` bytes.
    async fn start<T: Send + 'static>(
        &self,
        begin: impl FnOnce(Inside) -> Result<Theirs<T>, Status> + Send + Unpin + 'static,
        len: usize,
        limit: Option<Duration>,
    ) -> Result<Task<T>, Status> {
        if len > LONG {
            let room = self.home.room(0).await;
            self.home.run_slow(room, begin, limit)
        } else {
            let room = self.home.room(len).await;
            self.home.run(room, begin, limit)
        }
    }
}

/// What the task of a stream says.
enum Heard {
    /// The function has given a stream.
    Open,
    /// What the stream has given.
    Item(Result<Kept, Status>),
}

/// An open stream of a host function: a task that gets an item whenever one is asked for.
pub(crate) struct ItemStream {
    /// None after the end.
    task: Option<Task<()>>,
    said: mpsc::Receiver<Heard>,
    wanted: Arc<Notify>,
    /// Whether an item was asked for and has not been taken.
    is_asked: bool,
}

impl std::fmt::Debug for ItemStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ItemStream")
    }
}

impl ItemStream {
    /// Waits until the function has given the stream.
    ///
    /// # Errors
    ///
    /// The arguments are not what it takes, or it panicked.
    pub(crate) async fn opened(&mut self) -> Result<(), Status> {
        match self.hear().await {
            Some(Heard::Open) => Ok(()),
            Some(Heard::Item(item)) => item.map(drop),
            None => self.ended().await,
        }
    }

    /// The next item, `None` at the end. Dropping the future loses no item.
    pub(crate) async fn next(&mut self) -> Option<Result<Kept, Status>> {
        if !self.is_asked {
            self.is_asked = true;
            self.wanted.notify_one();
        }
        loop {
            match self.hear().await {
                Some(Heard::Open) => {}
                Some(Heard::Item(item)) => {
                    self.is_asked = false;
                    return Some(item);
                }
                None => return self.ended().await.err().map(Err),
            }
        }
    }

    async fn hear(&mut self) -> Option<Heard> {
        self.said.recv().await
    }

    /// How the task ended, said once.
    async fn ended(&mut self) -> Result<(), Status> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let ended = task.await;
        self.task = None;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_guest_is_one_line_or_is_refused() {
        let line = |text: &str| json_line(text.as_bytes());
        assert_eq!(line("[1,\n2]\r\n"), Ok("[1, 2]  ".to_owned()));
        assert_eq!(line(r#""a\nb""#), Ok(r#""a\nb""#.to_owned()));
        let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
        assert_eq!(line(&deep), Ok(deep.clone()));
        for wrong in ["", "1\n2", "\"a\nb\"", "{\"a\n\": 1}", "[1", "tru"] {
            assert_eq!(line(wrong), Err(Status::InvalidData), "{wrong:?}");
        }
        assert_eq!(json_line(b"\"\xff\""), Err(Status::InvalidData));
    }
}
