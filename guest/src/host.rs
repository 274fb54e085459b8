//! Functions of the embedding program.
//!
//! ```ignore
//! wakebox_guest::host_fns! {
//!     /// Looks a key up.
//!     async fn get(key: &str) -> Result<Option<Vec<u8>>, KvError> = "kv.get";
//! }
//!
//! let value = get("colour").await??;      // the call's error, then the function's own
//! ```
//!
//! Arguments and results are any serde types. Many calls go on at once; a call that is dropped is
//! cancelled on the host too.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};
use wakebox_abi::op::{
    Buf, CallForm, CallHost, Handle, NextItem, OVERFLOW, OpenHostStream, ReadMessage,
};
use wakebox_abi::status::Status;
use wakebox_typed::{Typed, signature};

use crate::buf::IoBuf;
use crate::format::{Format, Unread, read_typed_with};
use crate::io::{Error, Result};
use crate::net::OwnedHandle;
use crate::op::Op;

/// Least capacity of a buffer for a reply, in bytes. A longer one takes a second operation.
const REPLY: usize = 1024;

/// Calls a function of the host and gives what it returns.
///
/// Cancel-safe in that a dropped call is cancelled on the host; whether the function has had an
/// effect by then is the function's affair.
///
/// # Errors
///
/// `NotFound` if the host has no such function, `PermissionDenied` by the policy, `InvalidData` if the
/// types on the two sides do not fit, which the error names; `TimedOut`, `Panicked`, `MessageTooLarge`; `OutOfMemory` if the
/// arguments do not fit into the arena. Errors of the function itself are part of its result.
///
/// Types fit if they are written alike and mean the same. Names do not count, nor do tuples and
/// structs; `u32` and `u64` differ, as do `Page` and `Option<Page>`. What is absent from a value, in a
/// list that is empty or an option that is `None`, is not compared.
pub async fn call<A, R>(function: &str, input: &A) -> Result<R>
where
    A: Serialize + ?Sized,
    R: DeserializeOwned,
{
    let here = || Some(signature::<A, R>().to_string());
    call_reading(function, input, here, Format::read).await
}

/// As [`call`], for a result whose type is known only when the program runs: `seed` reads it.
///
/// # Errors
///
/// As [`call`].
pub async fn call_with<A, S, R>(function: &str, input: &A, seed: S) -> Result<R>
where
    A: Serialize + ?Sized,
    S: for<'de> DeserializeSeed<'de, Value = R>,
{
    let read = |format: Format, reply: &[u8]| format.read_with(reply, seed);
    call_reading(function, input, || None, read).await
}

/// Calls a function of the host that takes bytes and gives bytes (`Builder::host_fn_bytes`): for formats of
/// one's own.
///
/// # Errors
///
/// As [`call`]; `InvalidData` if the function takes something else.
pub async fn call_bytes(function: &str, input: &[u8]) -> Result<Vec<u8>> {
    let what = || alloc::format!("call `{function}`");
    let sent = sent(function, input).await?;
    match carry(CallForm::Bytes, sent).await? {
        Ok(Message::Short(buf)) => Ok(buf.to_vec()),
        Ok(Message::Long(bytes)) => Ok(bytes),
        Err(Status::InvalidData) => Err(Telling::begin(what(), function, None).await),
        Err(status) => Err(Error::new(status, what())),
    }
}

/// Calls, and has `read` make a result of the reply; `here` are the types on this side, if they are known.
async fn call_reading<A, R>(
    function: &str,
    input: &A,
    here: impl FnOnce() -> Option<String>,
    read: impl FnOnce(Format, &[u8]) -> core::result::Result<R, Unread>,
) -> Result<R>
where
    A: Serialize + ?Sized,
{
    let what = || alloc::format!("call `{function}`");
    let sent = encode(function, input).await?;
    let (format, carried) = match carry(CallForm::Typed, sent).await? {
        #[cfg(feature = "json")]
        Err(Status::WantsJson) => {
            let json = serde_json::to_vec(input);
            let json = json.map_err(|_| Error::new(Status::InvalidData, "serialize arguments"))?;
            let sent = self::sent(function, &json).await?;
            (Format::Json, carry(CallForm::Json, sent).await?)
        }
        carried => (Format::Typed, carried),
    };
    let unread = match carried {
        Ok(reply) => match read(format, reply.bytes()) {
            Ok(result) => return Ok(result),
            Err(unread) => unread,
        },
        Err(Status::InvalidData) => None,
        Err(status) => return Err(Error::new(status, what())),
    };
    Err(match unread {
        Some(why) => {
            let here = here().map_or(String::new(), |here| alloc::format!(", as `{here}`"));
            let what = alloc::format!("{}{here}, gave JSON of something else: {why}", what());
            Error::new(Status::InvalidData, what)
        }
        None => Telling::begin(what(), function, here()).await,
    })
}

/// Calls with what [`encode`] or [`sent`] gave. What the host says is a result of the inner kind, what keeps it
/// from arriving one of the outer.
async fn carry(
    form: CallForm,
    (buf, function, input): (IoBuf, Buf, Buf),
) -> Result<core::result::Result<Message, Status>> {
    let into = buf.whole();
    let request = CallHost {
        function,
        input,
        into,
        form,
    };
    let (outcome, buf) = Op::with_buf(request, buf).giving_message().await;
    Ok(match outcome {
        Ok(value) => Ok(receive(value, value as usize, buf).await?),
        Err(status) => Err(status),
    })
}

/// What the host says of the types of a function of its own, in words.
///
/// # Errors
///
/// `NotFound` if it has no such function, `PermissionDenied` by the policy.
pub async fn types(function: &str) -> Result<String> {
    host_types(function)
        .await
        .map_err(|error| Error::new(error.status(), alloc::format!("call `{function}`")))
}

/// An error about types, once the host has said which it has.
struct Telling(Pin<Box<dyn Future<Output = Error>>>);

impl Telling {
    fn begin(what: String, function: &str, here: Option<String>) -> Self {
        let function = function.to_string();
        Self(Box::pin(async move {
            let there = host_types(&function).await;
            let there = there.map_or(String::new(), |there| {
                alloc::format!(", which is `{there}` on the host")
            });
            let here = here.map_or(String::new(), |here| alloc::format!(", as `{here}`"));
            let what = alloc::format!("{what}{there}{here}");
            Error::new(Status::InvalidData, what)
        }))
    }
}

impl core::fmt::Debug for Telling {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Telling")
    }
}

impl Future for Telling {
    type Output = Error;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        self.0.as_mut().poll(cx)
    }
}

/// The types of a function of the host, in its words.
async fn host_types(function: &str) -> Result<String> {
    let asked = sent(function, &[]).await?;
    let words = carry(CallForm::Signature, asked).await??;
    Ok(String::from_utf8_lossy(words.bytes()).into_owned())
}

/// Opens a stream of items that a function of the host gives. Cancel-safe in that a stream that
/// comes too late is closed; whether the function has had an effect by then is its own affair.
///
/// # Errors
///
/// As [`call`].
pub async fn stream<A, T>(function: &str, input: &A) -> Result<HostStream<T>>
where
    A: Serialize + ?Sized,
    T: DeserializeOwned,
{
    open(function, input, Some(|| signature::<A, T>().to_string())).await
}

/// As [`stream`], of items whose type is known only when the program runs: [`HostStream::next_with`] reads them.
///
/// # Errors
///
/// As [`call`].
pub async fn stream_with<A>(function: &str, input: &A) -> Result<HostStream<()>>
where
    A: Serialize + ?Sized,
{
    open(function, input, None).await
}

async fn open<A, T>(
    function: &str,
    input: &A,
    types: Option<fn() -> String>,
) -> Result<HostStream<T>>
where
    A: Serialize + ?Sized,
{
    let (buf, name, input) = encode(function, input).await?;
    let request = OpenHostStream {
        function: name,
        input,
        form: CallForm::Typed,
    };
    let (outcome, _) = Op::with_buf(request, buf).giving_handle().await;
    let what = || alloc::format!("call `{function}`");
    let handle = match outcome {
        Ok(handle) => handle,
        Err(Status::InvalidData) => {
            let here = types.map(|types| types());
            return Err(Telling::begin(what(), function, here).await);
        }
        Err(status) => return Err(Error::new(status, what())),
    };
    Ok(HostStream {
        telling: None,
        types,
        next: None,
        long: None,
        ended: false,
        function: function.to_string(),
        items: PhantomData,
        handle: OwnedHandle(Handle(handle)),
    })
}

/// A buffer with the function's name and the serialized input, typed.
async fn encode<A: Serialize + ?Sized>(function: &str, input: &A) -> Result<(IoBuf, Buf, Buf)> {
    let name_len = function.len();
    let mut buf = IoBuf::with_capacity(REPLY.max(name_len)).await?;
    buf.set_len(buf.capacity());
    buf[..name_len].copy_from_slice(function.as_bytes());
    let serialized =
        postcard::to_slice(&Typed(input), &mut buf[name_len..]).map(|bytes| bytes.len());
    let input_len = match serialized {
        Ok(len) => len,
        // Too little room: once more, to measure.
        Err(postcard::Error::SerializeBufferFull) => {
            let bytes = postcard::to_allocvec(&Typed(input)).map_err(|_| Status::InvalidData)?;
            drop(buf);
            return sent(function, &bytes).await;
        }
        Err(_) => return Err(Error::new(Status::InvalidData, "serialize arguments")),
    };
    Ok(parts(buf, name_len, input_len))
}

/// A buffer with the function's name and what it is given.
async fn sent(function: &str, input: &[u8]) -> Result<(IoBuf, Buf, Buf)> {
    let len = function.len() + input.len();
    let mut buf = IoBuf::with_capacity(REPLY.max(len)).await?;
    buf.extend_from_slice(function.as_bytes());
    buf.extend_from_slice(input);
    Ok(parts(buf, function.len(), input.len()))
}

/// A buffer, and where the name and the input lie in it.
fn parts(buf: IoBuf, name_len: usize, input_len: usize) -> (IoBuf, Buf, Buf) {
    let start = buf.filled().offset;
    let name = Buf {
        offset: start,
        len: name_len as u32,
    };
    let input = Buf {
        offset: start + name_len as u32,
        len: input_len as u32,
    };
    (buf, name, input)
}

/// A message from the host: in the buffer that it came in, or whole from several.
pub(crate) enum Message {
    Short(IoBuf),
    Long(Vec<u8>),
}

impl Message {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(buf) => buf,
            Self::Long(bytes) => bytes,
        }
    }
}

/// Takes delivery of a message of `len` bytes, or of one that did not fit.
pub(crate) async fn receive(value: u32, len: usize, buf: Option<IoBuf>) -> Result<Message> {
    match delivered(value, len, buf)? {
        Delivery::Short(message) => Ok(message),
        Delivery::Long(mut long) => long.read_to_end().await.map(Message::Long),
    }
}

enum Delivery {
    Short(Message),
    Long(LongMessage),
}

fn delivered(value: u32, len: usize, buf: Option<IoBuf>) -> Result<Delivery> {
    let mut buf = buf.ok_or(Status::InvalidData)?;
    if value != OVERFLOW {
        buf.set_len(len.min(buf.capacity()));
        return Ok(Delivery::Short(Message::Short(buf)));
    }
    let handle = buf.written().first_chunk().ok_or(Status::InvalidData)?;
    Ok(Delivery::Long(LongMessage {
        read: None,
        bytes: Vec::new(),
        handle: OwnedHandle(Handle(u32::from_le_bytes(*handle))),
    }))
}

/// Bytes of a long message that are read at once.
const CHUNK: usize = 16 << 10;

/// A message that is being read, part by part.
#[derive(Debug)]
struct LongMessage {
    // The field order is that of the drop: first the operation, then its handle.
    read: Option<Op>,
    bytes: Vec<u8>,
    handle: OwnedHandle,
}

impl LongMessage {
    /// Reads to the end. The future may be dropped and begun again; no part is lost.
    async fn read_to_end(&mut self) -> Result<Vec<u8>> {
        loop {
            if self.read.is_none() {
                let buf = IoBuf::with_capacity(CHUNK).await?;
                let (message, at) = (self.handle.0, self.bytes.len() as u32);
                let request = ReadMessage {
                    message,
                    at,
                    into: buf.whole(),
                };
                self.read = Some(Op::with_buf(request, buf));
            }
            let (outcome, buf) = finish(&mut self.read).await;
            let (count, mut buf) = (outcome? as usize, buf.ok_or(Status::InvalidData)?);
            if count == 0 {
                return Ok(core::mem::take(&mut self.bytes));
            }
            buf.set_len(count);
            self.bytes.extend_from_slice(&buf);
        }
    }
}

/// Waits for an operation that belongs to somebody else, who still has it if the future is dropped.
async fn finish(op: &mut Option<Op>) -> (core::result::Result<u32, Status>, Option<IoBuf>) {
    let ended = poll_fn(|cx| match op {
        Some(op) => Pin::new(op).poll(cx),
        None => unreachable!("the caller has put an operation there"),
    })
    .await;
    *op = None;
    ended
}

/// Items of a function of the host, each made when it is asked for. Closed when it is dropped.
#[derive(Debug)]
pub struct HostStream<T> {
    // The field order is that of the drop: first the operation, then its handle.
    /// The item on its way. It belongs to the stream, so that it is for the next who asks.
    next: Option<Op>,
    /// An item that did not fit, half read.
    long: Option<LongMessage>,
    /// The error about an item that was of another type.
    telling: Option<Telling>,
    ended: bool,
    function: String,
    /// What is expected of the function, in words, if that is known.
    types: Option<fn() -> String>,
    items: PhantomData<fn() -> T>,
    handle: OwnedHandle,
}

impl<T: DeserializeOwned> HostStream<T> {
    /// The next item; `None` at the end. Cancel-safe: the future may be dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<T>> {
        self.next_with(PhantomData::<T>).await
    }
}

impl<T> HostStream<T> {
    /// As [`Self::next`], of an item that `seed` reads.
    pub async fn next_with<S, R>(&mut self, seed: S) -> Option<Result<R>>
    where
        S: for<'de> DeserializeSeed<'de, Value = R>,
    {
        if self.ended {
            return None;
        }
        let item = self.take(seed).await;
        self.ended = !matches!(item, Ok(Some(_)));
        item.transpose()
    }

    async fn take<S, R>(&mut self, seed: S) -> Result<Option<R>>
    where
        S: for<'de> DeserializeSeed<'de, Value = R>,
    {
        let Some(message) = self.message().await? else {
            return Ok(None);
        };
        if let Some(item) = read_typed_with(message.bytes(), seed) {
            return Ok(Some(item));
        }
        let what = alloc::format!("next item of `{}`", self.function);
        let here = self.types.map(|types| types());
        let telling = Telling::begin(what, &self.function, here);
        Err(self.tell(telling).await)
    }

    /// The next item as it comes.
    async fn message(&mut self) -> Result<Option<Message>> {
        let what = |status| Error::new(status, alloc::format!("next item of `{}`", self.function));
        if let Some(telling) = self.telling.take() {
            return Err(self.tell(telling).await);
        }
        if self.long.is_none() {
            if self.next.is_none() {
                let buf = IoBuf::with_capacity(REPLY).await?;
                let request = NextItem {
                    stream: self.handle.0,
                    into: buf.whole(),
                };
                self.next = Some(Op::with_buf(request, buf).giving_message());
            }
            let (outcome, buf) = finish(&mut self.next).await;
            let value = outcome.map_err(what)?;
            let Some(len) = value.checked_sub(1) else {
                return Ok(None);
            };
            match delivered(value, len as usize, buf)? {
                Delivery::Short(message) => return Ok(Some(message)),
                Delivery::Long(long) => self.long = Some(long),
            }
        }
        let Some(long) = &mut self.long else {
            return Ok(None);
        };
        let bytes = long.read_to_end().await?;
        self.long = None;
        Ok(Some(Message::Long(bytes)))
    }

    /// Ends with the error. The future may be dropped; it is told to who asks next.
    async fn tell(&mut self, telling: Telling) -> Error {
        let error = self.telling.insert(telling).await;
        self.telling = None;
        error
    }
}

impl<T: DeserializeOwned + Unpin> futures_core::Stream for HostStream<T> {
    type Item = Result<T>;

    /// Every poll goes on with the item on its way.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.next();
        core::pin::pin!(next).poll(cx)
    }
}

/// Declares typed functions for functions of the host.
///
/// ```ignore
/// wakebox_guest::host_fns! {
///     /// Adds on the host.
///     pub async fn add(a: u64, b: u64) -> u64 = "math.add";
/// }
/// assert_eq!(add(1, 2).await?, 3);
/// ```
///
/// Several parameters travel as a tuple, which is what the function on the host takes.
#[macro_export]
macro_rules! host_fns {
    ($($(#[$attribute:meta])* $visibility:vis async fn $name:ident(
        $($parameter:ident: $type:ty),* $(,)?
    ) -> $result:ty = $function:literal;)*) => {$(
        $(#[$attribute])*
        $visibility async fn $name($($parameter: $type),*) -> $crate::io::Result<$result> {
            #[allow(unused_parens, reason = "one parameter is no tuple")]
            $crate::host::call($function, &($($parameter),*)).await
        }
    )*};
}
