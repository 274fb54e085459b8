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
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallHeader, CallKind, NextCall, Reply, ReplyKind};
use wakebox_abi::status::Status;
use wakebox_typed::signature;

use crate::buf::IoBuf;
use crate::format::{Format, Unread};
use crate::host::receive;
use crate::op::Op;
use crate::task::{JoinHandle, spawn, spawn_named};

/// Operations that wait for calls side by side: so many calls are taken in one turn.
const TASKS: usize = 32;

/// Capacity of each one's buffer in bytes. A longer call takes a second operation.
const CALL: usize = 1024;

/// Bytes of a reply that are sent at once.
const PART: usize = 64 << 10;

/// A call that has been read and not begun: it gives the serialized result.
type Call = Pin<Box<dyn Future<Output = Option<Vec<u8>>>>>;

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

    fn find(name: &[u8]) -> Option<&'static Self> {
        Self::all().find(|export| export.name.as_bytes() == name)
    }

    /// A line for each: its name and its types.
    fn list() -> String {
        let line = |export: &Self| format!("{}: {}", export.name, (export.signature)());
        let mut lines: Vec<_> = Self::all().map(line).collect();
        lines.sort_unstable();
        lines.join("\n")
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

macro_rules! exported {
    (($($parameter:ident)*) $input:ty, $read:expr) => {
        impl<Function, Output, $($parameter,)*> Exported<($($parameter,)*)> for Function
        where
            Function: AsyncFn($($parameter),*) -> Output + Copy + 'static,
            Output: Serialize + 'static,
            $($parameter: DeserializeOwned + 'static,)*
        {
            #[allow(non_snake_case, reason = "a parameter is named after its type's")]
            fn begin(self, format: Format, input: &[u8]) -> Result<Call, Unread> {
                let read: fn(Format, &[u8]) -> Result<($($parameter,)*), Unread> = $read;
                let ($($parameter,)*) = read(format, input)?;
                Ok(Box::pin(async move { format.write(&self($($parameter),*).await) }))
            }

            fn signature(self) -> String {
                signature::<$input, Output>().to_string()
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
    let under_way = UnderWay::default();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| spawn_named("serve", take_calls(under_way.clone())))
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    loop {
        // Not over an await: the tasks borrow it too.
        let first = under_way.borrow_mut().pop_first();
        match first {
            Some((_, call)) => drop(call.await),
            None => return,
        }
    }
}

async fn take_calls(under_way: UnderWay) {
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
        match header.kind {
            CallKind::Call | CallKind::Json | CallKind::Typed | CallKind::Signature => {
                let (name, input) = rest.split_at(rest.len().min(header.name_len as usize));
                begin(header, name, input, &under_way);
            }
            CallKind::Cancel => {
                if let Some(call) = under_way.borrow_mut().remove(&header.call) {
                    call.abort();
                }
            }
        }
    }
}

/// Makes a task of a call.
fn begin(header: CallHeader, name: &[u8], input: &[u8], under_way: &UnderWay) {
    let call = header.call;
    // No function is called so: they are all asked for.
    if header.kind == CallKind::Signature && name.is_empty() {
        let words = Export::list().into_bytes();
        drop(spawn(answer(call, ReplyKind::Result, words)));
        return;
    }
    let Some(export) = Export::find(name) else {
        drop(spawn(answer(call, ReplyKind::NoSuchFunction, Vec::new())));
        return;
    };
    if header.kind == CallKind::Signature {
        let words = (export.signature)().into_bytes();
        drop(spawn(answer(call, ReplyKind::Result, words)));
        return;
    }
    let format = Format::of(header.kind);
    let reply = format.map_or(ReplyKind::Result, Format::reply);
    let begun = match format {
        Some(format) => (export.begin)(format, input),
        None => Err(None),
    };
    let future = match begun {
        Ok(future) => future,
        Err(why) => {
            // The types, and behind a line end the reason.
            let mut words = (export.signature)();
            for part in why.iter().flat_map(|why| ["\n", why]) {
                words.push_str(part);
            }
            let answer = answer(call, ReplyKind::BadInput, words.into_bytes());
            drop(spawn_named(export.name, answer));
            return;
        }
    };
    let done = under_way.clone();
    let task = spawn_named(export.name, async move {
        match future.await {
            Some(bytes) => answer(call, reply, bytes).await,
            // What cannot be serialized is no result.
            None => answer(call, ReplyKind::BadInput, (export.signature)().into_bytes()).await,
        }
        // Detaches this task; nobody takes the call back any more.
        drop(done.borrow_mut().remove(&call));
    });
    under_way.borrow_mut().insert(call, task);
}

/// Sends a reply, in parts if it is long.
async fn answer(call: u64, kind: ReplyKind, bytes: Vec<u8>) {
    let mut rest = &bytes[..];
    loop {
        let (part, more) = rest.split_at(rest.len().min(PART));
        let kind = if more.is_empty() {
            kind
        } else {
            ReplyKind::Part
        };
        let Ok(buf) = IoBuf::copy_of(part).await else {
            return;
        };
        let (outcome, _) = Op::with_buf(
            Reply {
                call,
                kind,
                from: buf.filled(),
            },
            buf,
        )
        .await;
        if more.is_empty() || outcome == Err(Status::InvalidInput) {
            return;
        }
        rest = more;
    }
}
