//! Functions of this guest that the host calls.
//!
//! ```ignore
//! #[wakebox_guest::export]
//! async fn add(a: u64, b: u64) -> u64 {
//!     a + b
//! }
//!
//! #[wakebox_guest::main]
//! async fn main() {
//!     wakebox_guest::serve().await;
//! }
//! ```
//!
//! Each call is a task, so hundreds go on at once, and a function may await whatever a guest can,
//! functions of the host among it. A call that its caller drops is aborted.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::task::{Context, Poll};

use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallHeader, CallKind, NextCall, Reply, ReplyKind};
use wakebox_typed::{signature, stream_signature};

use crate::buf::IoBuf;
use crate::format::{Format, Unread};
use crate::host::receive;
use crate::op::Op;
use crate::runtime::runtime;
use crate::task::{JoinHandle, spawn, spawn_named};

/// Operations that wait for calls side by side: at first, and at most. So many calls are taken in one turn; when that
/// happens, there are twice as many from then on. A guest that gets few at a time has few for its host to begin and
/// to take back.
const TAKERS: usize = 2;
const MOST_TAKERS: usize = 32;

/// Capacity of each one's buffer in bytes. A longer call takes a second operation.
const CALL: usize = 1024;

/// Bytes of a reply that are sent at once.
const PART: usize = 64 << 10;

/// What a call gives, serialized; nothing for what cannot be serialized.
pub type CallResult = Option<Vec<u8>>;

/// The items that a call gives.
pub type CallItems = Pin<Box<dyn Stream<Item = CallResult>>>;

/// A call that has been read and not begun.
pub enum Call {
    /// It gives one result.
    One(Pin<Box<dyn Future<Output = CallResult>>>),
    /// It gives a stream.
    Many(Pin<Box<dyn Future<Output = CallItems>>>),
}

impl core::fmt::Debug for Call {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::One(_) => "One",
            Self::Many(_) => "Many",
        })
    }
}

/// Functions that a guest finds out when it runs; see [`serve_with`].
pub trait Functions {
    /// All of them, in lines: name, colon, and types in words.
    fn list(&self) -> String;

    /// The types of one, in words, if there is one of that name.
    fn signature(&self, name: &str) -> Option<String>;

    /// Reads the arguments of a call, if there is a function of that name, and makes its future.
    ///
    /// # Errors
    ///
    /// They are others.
    fn begin(&self, name: &str, format: Format, input: &[u8]) -> Option<Result<Call, Unread>>;
}

/// A function that the host may call by its name. Made by `#[wakebox_guest::export]`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Export {
    name: &'static str,
    begin: fn(Format, &[u8]) -> Result<Call, Unread>,
    /// Its types, in words.
    signature: fn() -> String,
    next: AtomicPtr<Export>,
}

/// The exports, in no order. Constructors put them in before `main`.
static EXPORTS: AtomicPtr<Export> = AtomicPtr::new(null_mut());

impl Export {
    /// An export that is not in the list yet.
    pub const fn new(
        name: &'static str,
        begin: fn(Format, &[u8]) -> Result<Call, Unread>,
        signature: fn() -> String,
    ) -> Self {
        Self {
            name,
            begin,
            signature,
            next: AtomicPtr::new(null_mut()),
        }
    }

    /// Puts it into the list. To be called once.
    pub fn register(&'static self) {
        let mut head = EXPORTS.load(Ordering::Relaxed);
        loop {
            self.next.store(head, Ordering::Relaxed);
            let new = core::ptr::from_ref(self).cast_mut();
            // Release, with the Acquire in `find`: `next` is written.
            match EXPORTS.compare_exchange(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    /// All of them, in no order.
    fn all() -> impl Iterator<Item = &'static Self> {
        // SAFETY: the list is made of `&'static Export`s and ends with null.
        let first = unsafe { EXPORTS.load(Ordering::Acquire).as_ref() };
        core::iter::successors(first, |export| {
            let next = export.next.load(Ordering::Relaxed);
            // SAFETY: as above.
            unsafe { next.as_ref() }
        })
    }

    fn find(name: &str) -> Option<&'static Self> {
        Self::all().find(|export| export.name == name)
    }
}

/// The functions with `#[wakebox_guest::export]`.
struct Own;

impl Functions for Own {
    fn list(&self) -> String {
        let line = |export: &Export| format!("{}: {}", export.name, (export.signature)());
        let mut lines: Vec<_> = Export::all().map(line).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn signature(&self, name: &str) -> Option<String> {
        Export::find(name).map(|export| (export.signature)())
    }

    fn begin(&self, name: &str, format: Format, input: &[u8]) -> Option<Result<Call, Unread>> {
        Export::find(name).map(|export| (export.begin)(format, input))
    }
}

/// An `async fn` of so many parameters as serde has tuples for.
#[doc(hidden)]
pub trait Exported<Arguments>: Copy + 'static {
    /// Reads the arguments and makes the call's future.
    ///
    /// # Errors
    ///
    /// They are others.
    fn begin(self, format: Format, input: &[u8]) -> Result<Call, Unread>;

    /// What it takes and gives, in words: one argument by itself, several as a tuple.
    fn signature(self) -> String;
}

/// The parameters of such a function.
trait Parameters: Sized {
    /// As they are written: one by itself, several as a tuple.
    type Input;

    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// They are others.
    fn read(format: Format, input: &[u8]) -> Result<Self, Unread>;
}

/// What arguments are written as.
type Input<P> = <P as Parameters>::Input;

/// An `async fn` as [`Exported`], which gives a stream of results.
#[doc(hidden)]
pub trait ExportedStream<Arguments>: Copy + 'static {
    /// As [`Exported::begin`].
    ///
    /// # Errors
    ///
    /// As there.
    fn begin(self, format: Format, input: &[u8]) -> Result<Call, Unread>;

    /// As [`Exported::signature`].
    fn signature(self) -> String;
}

/// A stream whose items are serialized.
struct Serialized<S> {
    stream: Pin<Box<S>>,
    format: Format,
}

impl<S: Stream<Item: Serialize>> Stream for Serialized<S> {
    type Item = CallResult;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CallResult>> {
        let format = self.format;
        let item = self.stream.as_mut().poll_next(cx);
        item.map(|item| item.map(|item| format.write(&item)))
    }
}

macro_rules! exported {
    (($($parameter:ident)*) $input:ty, $read:expr) => {
        impl<$($parameter: DeserializeOwned,)*> Parameters for ($($parameter,)*) {
            type Input = $input;

            fn read(format: Format, input: &[u8]) -> Result<Self, Unread> {
                let read: fn(Format, &[u8]) -> Result<Self, Unread> = $read;
                read(format, input)
            }
        }

        impl<Function, Output, $($parameter,)*> Exported<($($parameter,)*)> for Function
        where
            Function: AsyncFn($($parameter),*) -> Output + Copy + 'static,
            Output: Serialize + 'static,
            $($parameter: DeserializeOwned + 'static,)*
        {
            #[allow(non_snake_case, reason = "a parameter is named after its type's")]
            fn begin(self, format: Format, input: &[u8]) -> Result<Call, Unread> {
                let ($($parameter,)*) = Parameters::read(format, input)?;
                let call = async move { format.write(&self($($parameter),*).await) };
                Ok(Call::One(Box::pin(call)))
            }

            fn signature(self) -> String {
                signature::<Input<($($parameter,)*)>, Output>().to_string()
            }
        }

        impl<Function, Output, $($parameter,)*> ExportedStream<($($parameter,)*)> for Function
        where
            Function: AsyncFn($($parameter),*) -> Output + Copy + 'static,
            Output: Stream<Item: Serialize> + 'static,
            $($parameter: DeserializeOwned + 'static,)*
        {
            #[allow(non_snake_case, reason = "a parameter is named after its type's")]
            fn begin(self, format: Format, input: &[u8]) -> Result<Call, Unread> {
                let ($($parameter,)*) = Parameters::read(format, input)?;
                Ok(Call::Many(Box::pin(async move {
                    let stream = Box::pin(self($($parameter),*).await);
                    Box::pin(Serialized { stream, format }) as CallItems
                })))
            }

            fn signature(self) -> String {
                stream_signature::<Input<($($parameter,)*)>, Output::Item>().to_string()
            }
        }
    };
}

// In JSON anything stands for no arguments.
exported!(()(), |format, input| match format {
    Format::Postcard | Format::Typed => format.read(input),
    #[cfg(feature = "json")]
    Format::Json => Ok(()),
});
// One argument stands by itself; in postcard that is the same as a tuple of one.
exported!((A) A, |format, input| format.read(input).map(|only| (only,)));

/// For several parameters, and for all numbers of them below down to two.
macro_rules! exported_tuples {
    ($first:ident $second:ident $($more:ident)*) => {
        exported!(
            ($first $second $($more)*) ($first, $second, $($more),*),
            |format, input| format.read(input)
        );
        exported_tuples!($second $($more)*);
    };
    ($last:ident) => {};
}

exported_tuples!(A B C D E F G H I J K L M N O P);

/// Calls under way, by number.
type UnderWay = Rc<RefCell<BTreeMap<u64, JoinHandle<()>>>>;

/// Takes calls of the host and answers them, until the host says that no more will come and the
/// last one is answered.
///
/// # Panics
///
/// Outside of a guest.
pub async fn serve() {
    serve_with(Rc::new(Own)).await;
}

/// As [`serve`], for functions that are known only when the guest runs.
///
/// # Panics
///
/// Outside of a guest.
pub async fn serve_with(functions: Rc<dyn Functions>) {
    let served = Rc::new(Served {
        functions,
        under_way: UnderWay::default(),
        takers: RefCell::default(),
        taken: Cell::default(),
    });
    served.add_takers(TAKERS);
    let mut at = 0;
    loop {
        // Neither over an await: the tasks borrow them too.
        let taker = served
            .takers
            .borrow_mut()
            .get_mut(at)
            .and_then(Option::take);
        let Some(taker) = taker else { break };
        let _ = taker.await;
        at += 1;
    }
    loop {
        let first = served.under_way.borrow_mut().pop_first();
        match first {
            Some((_, call)) => drop(call.await),
            None => return,
        }
    }
}

/// What is served, and by whom.
struct Served {
    functions: Rc<dyn Functions>,
    under_way: UnderWay,
    /// Tasks that take calls, until somebody waits for their end.
    takers: RefCell<Vec<Option<JoinHandle<()>>>>,
    /// A turn of the executor, and how many calls were taken in it.
    taken: Cell<(u64, usize)>,
}

impl Served {
    fn add_takers(self: &Rc<Self>, count: usize) {
        let takers = (0..count).map(|_| Some(spawn_named("serve", take_calls(self.clone()))));
        self.takers.borrow_mut().extend(takers);
    }

    /// A call was taken.
    fn has_taken(self: &Rc<Self>) {
        let turn = runtime().executor.counts().turns.get();
        let count = match self.taken.get() {
            (same, count) if same == turn => count + 1,
            _ => 1,
        };
        self.taken.set((turn, count));
        let takers = self.takers.borrow().len();
        if count == takers {
            self.add_takers(takers.min(MOST_TAKERS - takers));
        }
    }
}

async fn take_calls(served: Rc<Served>) {
    loop {
        let Ok(buf) = IoBuf::with_capacity(CALL).await else {
            return;
        };
        let request = NextCall { into: buf.whole() };
        let (outcome, buf) = Op::with_buf(request, buf).giving_message().await;
        let Ok(value) = outcome else { return };
        let Ok(message) = receive(value, value as usize, buf).await else {
            continue;
        };
        let Some((header, rest)) = CallHeader::split(message.bytes()) else {
            continue;
        };
        served.has_taken();
        match header.kind {
            CallKind::Call | CallKind::Json | CallKind::Typed | CallKind::Signature => {
                let (name, input) = rest.split_at(rest.len().min(header.name_len as usize));
                begin(&served, header, name, input);
            }
            CallKind::Cancel => {
                if let Some(call) = served.under_way.borrow_mut().remove(&header.call) {
                    call.abort();
                }
            }
        }
    }
}

/// Makes a task of a call.
fn begin(served: &Rc<Served>, header: CallHeader, name: &[u8], input: &[u8]) {
    let functions = &served.functions;
    let call = header.call;
    let reply = |kind, words: String| {
        drop(spawn(async move {
            answer(call, kind, words.into_bytes()).await;
        }));
    };
    // No function is called so: they are all asked for.
    if header.kind == CallKind::Signature && name.is_empty() {
        return reply(ReplyKind::Result, functions.list());
    }
    let name = core::str::from_utf8(name).unwrap_or_default();
    let Some(format) = Format::of(header.kind) else {
        return match functions.signature(name) {
            None => reply(ReplyKind::NoSuchFunction, String::new()),
            Some(types) if header.kind == CallKind::Signature => reply(ReplyKind::Result, types),
            Some(types) => reply(ReplyKind::BadInput, types),
        };
    };
    let begun = match functions.begin(name, format, input) {
        None => return reply(ReplyKind::NoSuchFunction, String::new()),
        Some(Ok(begun)) => begun,
        Some(Err(why)) => {
            // The types, and behind a line end the reason.
            let mut words = functions.signature(name).unwrap_or_default();
            for part in why.iter().flat_map(|why| ["\n", why]) {
                words.push_str(part);
            }
            return reply(ReplyKind::BadInput, words);
        }
    };
    let (functions, name) = (functions.clone(), name.to_string());
    let done = served.under_way.clone();
    let task = spawn_named(name.clone(), async move {
        let is_told = match begun {
            Call::One(result) => give(call, format.reply(), result.await).await.map(drop),
            Call::Many(items) => give_all(call, items.await).await,
        };
        // What cannot be serialized is no result.
        if is_told.is_none() {
            let words = functions.signature(&name).unwrap_or_default();
            answer(call, ReplyKind::BadInput, words.into_bytes()).await;
        }
        // Detaches this task; nobody takes the call back any more.
        drop(done.borrow_mut().remove(&call));
    });
    served.under_way.borrow_mut().insert(call, task);
}

/// Sends what a call has given, if it was serialized. Returns whether anybody wants more.
async fn give(call: u64, kind: ReplyKind, given: CallResult) -> Option<bool> {
    Some(answer(call, kind, given?).await)
}

/// Sends items, until they end or nobody wants them. Nothing if one could not be serialized.
async fn give_all(call: u64, mut items: CallItems) -> Option<()> {
    while let Some(item) = poll_fn(|cx| items.as_mut().poll_next(cx)).await {
        if !give(call, ReplyKind::Item, item).await? {
            return Some(());
        }
    }
    answer(call, ReplyKind::End, Vec::new()).await;
    Some(())
}

/// Sends a reply, in parts if it is long. Returns whether all of it was taken.
async fn answer(call: u64, kind: ReplyKind, bytes: Vec<u8>) -> bool {
    let mut rest = &bytes[..];
    loop {
        let (part, more) = rest.split_at(rest.len().min(PART));
        let kind = if more.is_empty() {
            kind
        } else {
            ReplyKind::Part
        };
        let Ok(buf) = IoBuf::copy_of(part).await else {
            return false;
        };
        let from = buf.filled();
        let part = Reply { call, kind, from };
        if more.is_empty() && kind != ReplyKind::Item {
            // Nothing follows, whatever comes of it.
            runtime().reactor.submit_for_nobody(part.into(), buf);
            return true;
        }
        let (outcome, _) = Op::with_buf(part, buf).await;
        if outcome.is_err() || more.is_empty() {
            return outcome.is_ok();
        }
        rest = more;
    }
}
