//! Imports that are functions of the host: each call is an operation of the ring, and any number of them
//! are in flight.
//!
//! The function `get` of the interface `my:app/kv@1.0.0` is the host's `my:app/kv.get`; one that the
//! component imports by itself has that name.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wakebox_guest::host;
use wakebox_guest::io::Status;
use wakebox_guest::task::{JoinHandle, spawn_named};
use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Component, Linker, Val};
use wasmtime::{Engine, Result};

use crate::platform::OneThread;
use crate::values::{Arguments, Expected, travels};
use crate::wasi::State;
use crate::wasi::define::{self, Awaiting, Concurrent, awaitingly, concurrently};

/// Links what is not WASI's, and gives what cannot be, a line each.
pub(crate) async fn link(
    engine: &Engine,
    linker: &mut Linker<State>,
    component: &Component,
) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (interface, function, ty) in crate::functions(engine, component) {
        if interface
            .as_ref()
            .is_some_and(|interface| interface.starts_with("wasi:"))
        {
            continue;
        }
        let name = host_name(interface.as_deref(), &function);
        if let Some(why) = refusal(&name, &ty).await {
            missing.push(format!("{name}: {why}"));
            continue;
        }
        let mut root = linker.root();
        let is_async = ty.async_();
        match &interface {
            Some(interface) => {
                let mut instance = define::Linker::new(root.instance(interface)?);
                define(&mut instance, &function, name, is_async)?;
            }
            None => define(&mut define::Linker::new(root), &function, name, is_async)?,
        }
    }
    Ok(missing)
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

/// Why a function cannot be one of the host's.
async fn refusal(name: &str, ty: &ComponentFunc) -> Option<String> {
    let types = ty.params().map(|(_, ty)| ty).chain(ty.results());
    if let Some(ty) = types.into_iter().find(|ty| !travels(ty)) {
        return Some(format!(
            "values of type {ty:?} do not travel to the host yet"
        ));
    }
    match host::types(name).await {
        Ok(_) => None,
        Err(error) if error.status() == Status::NotFound => {
            Some("the host has no function of this name (`Builder::host_fn`)".into())
        }
        Err(error) => Some(format!("{error}")),
    }
}

fn define(
    linker: &mut define::Linker<'_>,
    function: &str,
    name: String,
    is_async: bool,
) -> Result<()> {
    if is_async {
        let called: Box<Concurrent> = Box::new(move |_, ty, arguments, results| {
            let (name, arguments) = (name.clone(), arguments.to_vec());
            Box::pin(OneThread(async move {
                // A task of its own, with the import's name: traces show what each awaits.
                let asked = ask(name.clone(), ty, arguments);
                let value = Subtask(spawn_named(name, asked)).await?;
                give(results, value);
                Ok(())
            }))
        });
        concurrently(linker, function, called)
    } else {
        let called: Box<Awaiting> = Box::new(move |_, ty, arguments, results| {
            let asked = ask(name.clone(), ty, arguments.to_vec());
            Box::new(OneThread(async move {
                give(results, asked.await?);
                Ok(())
            }))
        });
        awaitingly(linker, function, called)
    }
}

/// Calls a function of the host.
async fn ask(name: String, ty: ComponentFunc, arguments: Vec<Val>) -> Result<Option<Val>> {
    let expected = Expected(ty.results().next());
    let result = host::call_with(&name, &Arguments(&ty, &arguments), expected).await;
    result.map_err(|error| wasmtime::format_err!("{error}"))
}

fn give(results: &mut [Val], value: Option<Val>) {
    for (place, value) in results.iter_mut().zip(value) {
        *place = value;
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
