//! Imports that are functions of the host: each call is an operation of the ring, and any number of them
//! are in flight.
//!
//! The function `get` of the interface `my:app/kv@1.0.0` is the host's `my:app/kv.get`; one that the
//! component imports by itself has that name. What drops a resource is a function as others are, with the name that WIT
//! has for it.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use serde::de::DeserializeSeed;
use wakebox_guest::host::{self, HostStream};
use wakebox_guest::io::Status;
use wakebox_guest::task::{JoinHandle, spawn_named};
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, Val};
use wasmtime::{Engine, Result, format_err};

use crate::given::{self, Offered};
use crate::platform::OneThread;
use crate::values::{Arguments, Expected, Resources, Words, travels};
use crate::wasi::State;
use crate::wasi::define::{Begin, Linker as Interface, apart};
use crate::wasi::transmit::{Finish, Incoming, Items, Later};
use crate::wasi::value::{Cx, Given, mismatch};

/// Links what is not WASI's, and gives what cannot be, a line each.
pub(crate) async fn link(
    engine: &Engine,
    linker: &mut Linker<State>,
    component: &Component,
) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut known = Resources::default();
    for (interface, name, ty) in resources(engine, component) {
        if known.number(&ty).is_some() {
            continue;
        }
        let drops = host_name(interface.as_deref(), &format!("[resource-drop]{name}"));
        let ty = known.add(ty);
        match unknown(&drops).await {
            Some(why) => missing.push(format!("{drops}: {why}")),
            None => provide(&mut within(linker, interface.as_deref())?, &name, ty, drops)?,
        }
    }
    let known = Rc::new(known);
    for (interface, function, ty) in crate::functions(engine, component) {
        if is_wasi(interface.as_deref()) {
            continue;
        }
        let name = host_name(interface.as_deref(), &function);
        if let Some(why) = refusal(&name, &ty, &known).await {
            missing.push(format!("{name}: {why}"));
            continue;
        }
        let asyncs = ty.async_().then(|| function.clone());
        let instance = within(linker, interface.as_deref())?;
        let mut instance = Interface::of(instance, false, asyncs.into_iter().collect());
        apart(&mut instance, &function, begin(name, ty, known.clone()))?;
    }
    Ok(missing)
}

fn is_wasi(interface: Option<&str>) -> bool {
    interface.is_some_and(|interface| interface.starts_with("wasi:"))
}

fn within<'a>(
    linker: &'a mut Linker<State>,
    interface: Option<&str>,
) -> Result<LinkerInstance<'a, State>> {
    match interface {
        Some(interface) => linker.instance(interface),
        None => Ok(linker.root()),
    }
}

/// The resources that are imported, and not of WASI, each as often as an interface has it: the first is its own.
fn resources(
    engine: &Engine,
    component: &Component,
) -> Vec<(Option<String>, String, ResourceType)> {
    let mut all = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        match item.ty {
            ComponentItem::Resource(ty) => all.push((None, name.into(), ty)),
            ComponentItem::ComponentInstance(instance) if !is_wasi(Some(name)) => {
                for (resource, item) in instance.exports(engine) {
                    if let ComponentItem::Resource(ty) = item.ty {
                        all.push((Some(name.into()), resource.into(), ty));
                    }
                }
            }
            _ => {}
        }
    }
    all
}

/// Defines a resource, of which the host is told what the component drops.
fn provide(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    ty: ResourceType,
    drops: String,
) -> Result<()> {
    instance.resource_async(name, ty, move |_, number| {
        let drops = drops.clone();
        Box::new(OneThread(async move {
            let dropped = host::call::<_, ()>(&drops, &(number,)).await;
            dropped.map_err(|error| format_err!("{error}"))
        }))
    })
}

pub(crate) fn host_name(interface: Option<&str>, function: &str) -> String {
    let Some(interface) = interface else {
        return function.into();
    };
    let interface = interface
        .split_once('@')
        .map_or(interface, |(name, _)| name);
    format!("{interface}.{function}")
}

const EMPTY: &str = "a stream or a future without values does not travel to the host";

/// Why a function cannot be one of the host's.
async fn refusal(name: &str, ty: &ComponentFunc, known: &Resources) -> Option<String> {
    let gives = match gives(ty) {
        Gives::Value(ty) | Gives::Future(ty) | Gives::Stream(ty) => ty,
        Gives::Bytes => None,
    };
    if gives.is_none() && !matches!(self::gives(ty), Gives::Value(_) | Gives::Bytes) {
        return Some(EMPTY.into());
    }
    let types = ty
        .params()
        .map(|(_, ty)| given::items(&ty).unwrap_or(Some(ty)));
    let Some(types) = types.collect::<Option<Vec<_>>>() else {
        return Some(EMPTY.into());
    };
    let mut types = types.into_iter().chain(gives);
    if let Some(ty) = types.find(|ty| !travels(ty, known)) {
        return Some(format!(
            "values of type {} do not travel to the host",
            Words(&ty)
        ));
    }
    unknown(name).await
}

/// Why the host has no such function.
async fn unknown(name: &str) -> Option<String> {
    match host::types(name).await {
        Ok(_) => None,
        Err(error) if error.status() == Status::NotFound => {
            Some("the host has no function of this name (`Builder::host_fn`)".into())
        }
        Err(error) => Some(format!("{error}")),
    }
}

/// What a function gives, of this type.
enum Gives {
    /// A value, or nothing.
    Value(Option<Type>),
    /// A value that comes when the host's function gives it.
    Future(Option<Type>),
    /// Values, as those of a stream of the host's.
    Stream(Option<Type>),
    /// As that, of which each is some bytes.
    Bytes,
}

fn gives(ty: &ComponentFunc) -> Gives {
    match ty.results().next() {
        Some(Type::Future(of)) => Gives::Future(of.ty()),
        Some(Type::Stream(of)) => match of.ty() {
            Some(Type::U8) => Gives::Bytes,
            of => Gives::Stream(of),
        },
        other => Gives::Value(other),
    }
}

/// Begins a call of the host.
fn begin(name: String, ty: ComponentFunc, known: Rc<Resources>) -> Box<Begin> {
    let is_async = ty.async_();
    let known = OneThread(known);
    Box::new(move |mut cx, arguments| {
        let (name, ty, known) = (name.clone(), ty.clone(), known.get().clone());
        let types = ty.params().map(|(_, ty)| ty);
        let arguments = given::lowered(arguments, types, &known, &mut cx)?;
        Ok(match gives(&ty) {
            Gives::Value(of) => {
                let asked = ask(name.clone(), ty, arguments, of.clone());
                match is_async {
                    // A task of its own, with the import's name: traces show what each awaits.
                    true => value(Subtask(spawn_named(name, asked)), of, known),
                    false => value(asked, of, known),
                }
            }
            Gives::Future(of) => {
                let asked = ask(name.clone(), ty, arguments, of.clone());
                let asked = Subtask(spawn_named(name, asked));
                Later::new(core::future::ready(value(asked, of, known)))
            }
            gives => Later::then(open(name, ty, arguments), move |opened, cx| {
                stream(opened?, gives, known, cx)
            }),
        })
    })
}

/// The value of a call, when it has it.
fn value(
    asked: impl Future<Output = Result<Option<Val>>> + 'static,
    of: Option<Type>,
    known: Rc<Resources>,
) -> Later {
    Later::then(asked, move |value, cx| {
        // Whoever awaits nothing is given anything.
        value?.map_or(Ok(Val::Bool(false)), |value| raised(value, of, &known, cx))
    })
}

/// A value of the host, for a component.
fn raised(value: Val, of: Option<Type>, known: &Resources, cx: &mut Cx<'_>) -> Result<Val> {
    match of {
        Some(ty) if !known.is_empty() => known.raised(&value, &ty, cx),
        _ => Ok(value),
    }
}

/// Arguments, and the streams among them.
type Lowered = (Vec<Val>, Offered);

/// Calls a function of the host.
async fn ask(
    name: String,
    ty: ComponentFunc,
    (arguments, _offered): Lowered,
    of: Option<Type>,
) -> Result<Option<Val>> {
    let result = host::call_with(&name, &Arguments(&ty, &arguments), Expected(of)).await;
    result.map_err(|error| format_err!("{error}"))
}

type Opened = Rc<RefCell<Option<HostStream<()>>>>;

/// Opens a stream of the host.
async fn open(name: String, ty: ComponentFunc, (arguments, _offered): Lowered) -> Result<Opened> {
    let opened = host::stream_with(&name, &Arguments(&ty, &arguments)).await;
    let opened = opened.map_err(|error| format_err!("{error}"))?;
    Ok(Rc::new(RefCell::new(Some(opened))))
}

/// The next item, if there is one.
async fn next<S, R>(opened: &Opened, seed: S) -> Result<Option<R>>
where
    S: for<'de> DeserializeSeed<'de, Value = R>,
{
    // Of a stream one item is under way at a time.
    let Some(mut stream) = opened.take() else {
        return Ok(None);
    };
    let item = stream.next_with(seed).await;
    opened.replace(Some(stream));
    item.transpose().map_err(|error| format_err!("{error}"))
}

/// The stream of a component that has what one of the host gives. An error of it ends the component: it is not
/// an end.
fn stream(opened: Opened, gives: Gives, known: Rc<Resources>, cx: &mut Cx<'_>) -> Result<Val> {
    match gives {
        Gives::Bytes => {
            let stream = Incoming::failing(move |_| {
                let opened = opened.clone();
                Box::pin(async move {
                    loop {
                        let bytes = next(&opened, PhantomData::<Vec<u8>>).await?;
                        // None are no end.
                        if bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()) {
                            return Ok(bytes.unwrap_or_default());
                        }
                    }
                })
            });
            stream.given(cx)
        }
        Gives::Stream(of) => {
            let (stream, _) = Items::new(move || {
                let (opened, of, known) = (opened.clone(), of.clone(), known.clone());
                Box::pin(async move {
                    let item = next(&opened, Expected(of.clone())).await;
                    let item = item.map(Option::flatten).transpose();
                    Ok(item.map(|value| {
                        let make = move |cx: &mut Cx<'_>| raised(value?, of, &known, cx);
                        Box::new(make) as Box<Finish>
                    }))
                })
            });
            stream.given(cx)
        }
        _ => mismatch(),
    }
}
/// A task that ends with whoever waits for it.
struct Subtask<T>(JoinHandle<T>);

impl<T> Future for Subtask<Result<T>> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let ended = core::task::ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(ended.unwrap_or_else(|error| Err(wasmtime::format_err!("{error:?}"))))
    }
}

impl<T> Drop for Subtask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
