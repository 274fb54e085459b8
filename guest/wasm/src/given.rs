//! Streams and futures that a component gives functions of the host, as arguments: each has a number, by which the host's
//! function calls for its items, as for those of any stream that a guest exports.
//!
//! One item is taken of the component before the host has asked for it. Either side sees when the other has dropped its end.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use futures_core::Stream;
use wakebox_guest::task::spawn_named;
use wakebox_guest::{Call, CallItems, CallResult, Format};
use wasmtime::component::types::Type;
use wasmtime::component::{Source, StreamConsumer, StreamReader, StreamResult, Val};
use wasmtime::{AsContextMut, Result, StoreContextMut};

use crate::called;
use crate::platform::OneThread;
use crate::values::{Item, Resources};
use crate::wasi::State;
use crate::wasi::any::Any;
use crate::wasi::transmit::{CHUNK, Promised};
use crate::wasi::value::{Cx, Taken, mismatch};

/// What a stream's name begins with, for whoever calls for its items; its number follows.
pub(crate) const NAME: &str = "[stream]";

/// Those that wait for the function to open them.
struct Given {
    last: u32,
    waiting: BTreeMap<u32, Taking>,
    is_served: bool,
}

static GIVEN: OneThread<RefCell<Given>> = OneThread(RefCell::new(Given {
    last: 0,
    waiting: BTreeMap::new(),
    is_served: false,
}));

/// Says that calls are answered.
pub(crate) fn is_served() {
    GIVEN.0.borrow_mut().is_served = true;
}

/// Numbers of a call's streams. Those that were not opened when it ends are dropped.
pub(crate) struct Offered(Vec<u32>);

impl Drop for Offered {
    fn drop(&mut self) {
        let left = |number| GIVEN.0.borrow_mut().waiting.remove(number);
        let left: Vec<_> = self.0.iter().filter_map(left).collect();
        drop(left);
    }
}

/// What lies between the two ends: one item, and who waits.
#[derive(Default)]
struct Between {
    item: Option<Val>,
    has_ended: bool,
    is_left: bool,
    taker: Option<Waker>,
    giver: Option<Waker>,
}

type Pipe = Rc<RefCell<Between>>;

/// The host's end.
struct Taking {
    pipe: Pipe,
    ty: Type,
    format: Format,
}

impl Stream for Taking {
    type Item = CallResult;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CallResult>> {
        let mut between = self.pipe.borrow_mut();
        if let Some(item) = between.item.take() {
            let giver = between.giver.take();
            drop(between);
            giver.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(self.format.write(&Item(&self.ty, &item))));
        }
        if between.has_ended {
            return Poll::Ready(None);
        }
        between.taker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut between = self.pipe.borrow_mut();
        between.is_left = true;
        let giver = between.giver.take();
        drop(between);
        giver.into_iter().for_each(Waker::wake);
    }
}

/// The component's end.
struct Giving {
    pipe: Pipe,
    resources: OneThread<Rc<Resources>>,
}

impl Giving {
    /// Waits until an item can be given; gives what to say of it otherwise.
    fn poll_room(&self, cx: &mut Context<'_>, finish: bool) -> Poll<Option<StreamResult>> {
        let mut between = self.pipe.borrow_mut();
        if between.is_left {
            return Poll::Ready(Some(StreamResult::Dropped));
        }
        if between.item.is_none() {
            return Poll::Ready(None);
        }
        if finish {
            return Poll::Ready(Some(StreamResult::Cancelled));
        }
        between.giver = Some(cx.waker().clone());
        Poll::Pending
    }

    fn put(&self, item: Val) {
        let mut between = self.pipe.borrow_mut();
        between.item = Some(item);
        let taker = between.taker.take();
        drop(between);
        taker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        let mut between = self.pipe.borrow_mut();
        between.has_ended = true;
        let taker = between.taker.take();
        drop(between);
        taker.into_iter().for_each(Waker::wake);
    }
}

impl StreamConsumer<State> for OneThread<Giving> {
    type Item = Any;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, State>,
        mut source: Source<'_, Any>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if let Some(said) = core::task::ready!(self.0.poll_room(cx, finish)) {
            return Poll::Ready(Ok(said));
        }
        let mut item = None;
        source.read(&mut store, &mut item)?;
        if let Some(Any(item)) = item {
            let item = self.0.resources.0.lowered(&item, &mut store)?;
            self.0.put(item);
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Bytes go as many at once as there are.
struct Bytes(Giving);

impl StreamConsumer<State> for OneThread<Bytes> {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if let Some(said) = core::task::ready!(self.0.0.poll_room(cx, finish)) {
            return Poll::Ready(Ok(said));
        }
        let mut source = source.as_direct(store);
        let there = source.remaining();
        let there = &there[..there.len().min(CHUNK)];
        if !there.is_empty() {
            let bytes = there.iter().map(|byte| Val::U8(*byte)).collect();
            let count = there.len();
            source.mark_read(count);
            self.0.0.put(Val::List(bytes));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The type of what is in a stream or a future, if such an argument of a function can go to the host.
pub(crate) fn items(ty: &Type) -> Option<Option<Type>> {
    match ty {
        Type::Stream(of) => Some(of.ty()),
        Type::Future(of) => Some(of.ty()),
        _ => None,
    }
}

/// The arguments of a call of the host, with numbers in place of streams and futures, and of handles.
pub(crate) fn lowered(
    arguments: &[Val],
    types: impl Iterator<Item = Type>,
    resources: &Rc<Resources>,
    cx: &mut Cx<'_>,
) -> Result<(Vec<Val>, Offered)> {
    let mut offered = Offered(Vec::new());
    let mut lowered = Vec::with_capacity(arguments.len());
    for (value, ty) in arguments.iter().zip(types) {
        lowered.push(match items(&ty) {
            Some(Some(of)) => {
                let number = offer(value, of, resources, cx)?;
                offered.0.push(number);
                Val::U32(number)
            }
            Some(None) => return mismatch(),
            None if resources.is_empty() => value.clone(),
            None => resources.lowered(value, cx)?,
        });
    }
    Ok((lowered, offered))
}

fn offer(value: &Val, of: Type, resources: &Rc<Resources>, cx: &mut Cx<'_>) -> Result<u32> {
    let pipe = Pipe::default();
    let giving = Giving {
        pipe: pipe.clone(),
        resources: OneThread(resources.clone()),
    };
    match value {
        Val::Stream(stream) if matches!(of, Type::U8) => {
            let reader: StreamReader<u8> = stream.clone().try_into_stream_reader()?;
            reader.pipe(cx.as_context_mut(), OneThread(Bytes(giving)))?;
        }
        Val::Stream(stream) => {
            let reader: StreamReader<Any> = stream.clone().try_into_stream_reader()?;
            reader.pipe(cx.as_context_mut(), OneThread(giving))?;
        }
        future => Promised::taken(future, cx)?.keep(cx, move |value| {
            if let Some((value, cx)) = value {
                let value = giving.resources.0.lowered(&value, cx)?;
                giving.put(value);
            }
            Ok(())
        })?,
    }
    let is_served = {
        let given = &mut *GIVEN.0.borrow_mut();
        given.last = given.last.wrapping_add(1);
        let taking = Taking {
            pipe,
            ty: of,
            format: Format::Typed,
        };
        given.waiting.insert(given.last, taking);
        core::mem::replace(&mut given.is_served, true)
    };
    if !is_served {
        drop(spawn_named("streams", called::serve(Vec::new())));
    }
    Ok(GIVEN.0.borrow().last)
}

/// The items of a stream, for whoever calls for them by its name: once.
pub(crate) fn open(name: &str, format: Format) -> Option<Call> {
    let number = name.strip_prefix(NAME)?.parse().ok()?;
    let mut taking = GIVEN.0.borrow_mut().waiting.remove(&number)?;
    taking.format = format;
    let items: CallItems = Box::pin(taking);
    Some(Call::Many(Box::pin(core::future::ready(items))))
}
