//! `wasi:io`: errors, polling and streams. What they do is `wasmtime-wasi-io`'s.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;

use wasmtime::Result;
use wasmtime::component::{
    ComponentNamedList, ComponentType, Lift, Lower, Resource, ResourceTable, ResourceType, Val,
};
use wasmtime_wasi_io::bindings::wasi::io::poll::{Host as _, HostPollable as _};
use wasmtime_wasi_io::bindings::wasi::io::streams::{
    Host as _, HostInputStream as Input, HostOutputStream as Output, StreamError,
};
use wasmtime_wasi_io::poll::DynPollable;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error, StreamResult};

use super::define::{Awaited, Define, Linker, deleted, resource};
use super::value::{Arguments, Cx, Given};

type In = Resource<DynInputStream>;
type Out = Resource<DynOutputStream>;

/// What comes of a stream's function.
type Outcome<T> = core::result::Result<T, StreamError>;
type Acting<'a, T> = Pin<Box<dyn Future<Output = StreamResult<T>> + Send + 'a>>;

impl Given for StreamError {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let (name, value) = match self {
            Self::Closed => ("closed", None),
            Self::LastOperationFailed(error) => ("last-operation-failed", error.given_to(cx)?),
        };
        Ok(Val::Variant(name.into(), value))
    }
}

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "error" => {
            resource::<Error>(instance, "error")?;
            instance.define(
                "[method]error.to-debug-string",
                |cx: Cx<'_>, (this,): (Resource<Error>,)| {
                    let error = cx.data().table.get(&this)?;
                    Ok((alloc::format!("{error:?}"),))
                },
            )
        }
        "poll" => poll(instance),
        "streams" => {
            // What is in flight is taken back.
            instance.resource_async(
                "input-stream",
                ResourceType::host::<DynInputStream>(),
                |mut cx, index| {
                    Box::new(async move {
                        Input::drop(&mut cx.data_mut().table, Resource::new_own(index)).await
                    })
                },
            )?;
            instance.resource_async(
                "output-stream",
                ResourceType::host::<DynOutputStream>(),
                |mut cx, index| {
                    Box::new(async move {
                        Output::drop(&mut cx.data_mut().table, Resource::new_own(index)).await
                    })
                },
            )?;
            reads(instance)?;
            writes(instance)?;
            splices(instance)
        }
        _ => Ok(()),
    }
}

fn poll(instance: &mut Linker<'_>) -> Result<()> {
    let delete = |table: &mut ResourceTable, index| {
        wasmtime_wasi_io::bindings::wasi::io::poll::HostPollable::drop(
            table,
            Resource::new_own(index),
        )
    };
    deleted(
        instance,
        "pollable",
        ResourceType::host::<DynPollable>(),
        delete,
    )?;
    instance.define_async(
        "[method]pollable.ready",
        |mut cx: Cx<'_>, (this,): (Resource<DynPollable>,)| {
            Box::new(async move { Ok((cx.data_mut().table.ready(this).await?,)) })
        },
    )?;
    instance.define_async(
        "[method]pollable.block",
        |mut cx: Cx<'_>, (this,): (Resource<DynPollable>,)| {
            Box::new(async move { cx.data_mut().table.block(this).await })
        },
    )?;
    instance.define_async(
        "poll",
        |mut cx: Cx<'_>, (all,): (Vec<Resource<DynPollable>>,)| {
            Box::new(async move { Ok((cx.data_mut().table.poll(all).await?,)) })
        },
    )
}

/// The outcome, for a component.
fn outcome<T>(table: &mut ResourceTable, result: StreamResult<T>) -> Result<Outcome<T>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(table.convert_stream_error(error)?)),
    }
}

/// Defines a function of a stream.
fn acting<A: Arguments, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: for<'a> fn(&'a mut ResourceTable, A) -> Acting<'a, R>,
) -> Result<()> {
    instance.define_async(name, move |cx: Cx<'_>, arguments: A| {
        acted(cx, act, arguments)
    })
}

/// The same of one that is given or gives bytes: with its types, as a list of values is slow.
fn moving<
    A: ComponentNamedList + Lift + Send + 'static,
    R: ComponentType + Lower + Send + 'static,
>(
    instance: &mut Linker<'_>,
    name: &str,
    act: for<'a> fn(&'a mut ResourceTable, A) -> Acting<'a, R>,
) -> Result<()> {
    instance.func_wrap_async(name, move |cx: Cx<'_>, arguments: A| {
        acted(cx, act, arguments)
    })
}

fn acted<'c, A: Send + 'static, R: Send + 'static>(
    mut cx: Cx<'c>,
    act: for<'a> fn(&'a mut ResourceTable, A) -> Acting<'a, R>,
    arguments: A,
) -> Awaited<'c, (Outcome<R>,)> {
    Box::new(async move {
        let table = &mut cx.data_mut().table;
        let result = act(table, arguments).await;
        Ok((outcome(table, result)?,))
    })
}

fn subscribable<S: Send + 'static>(
    instance: &mut Linker<'_>,
    name: &str,
    subscribe: fn(&mut ResourceTable, Resource<S>) -> Result<Resource<DynPollable>>,
) -> Result<()> {
    instance.define(name, move |mut cx: Cx<'_>, (this,): (Resource<S>,)| {
        Ok((subscribe(&mut cx.data_mut().table, this)?,))
    })
}

/// What a stream does at once.
fn at_once<'a, T: Send + 'a>(result: StreamResult<T>) -> Acting<'a, T> {
    Box::pin(core::future::ready(result))
}

fn reads(instance: &mut Linker<'_>) -> Result<()> {
    moving::<(In, u64), _>(
        instance,
        "[method]input-stream.read",
        |table, (this, count)| at_once(Input::read(table, this, count)),
    )?;
    moving::<(In, u64), _>(
        instance,
        "[method]input-stream.blocking-read",
        |table, (this, count)| Box::pin(Input::blocking_read(table, this, count)),
    )?;
    acting::<(In, u64), _>(
        instance,
        "[method]input-stream.skip",
        |table, (this, count)| at_once(Input::skip(table, this, count)),
    )?;
    acting::<(In, u64), _>(
        instance,
        "[method]input-stream.blocking-skip",
        |table, (this, count)| Box::pin(Input::blocking_skip(table, this, count)),
    )?;
    subscribable(instance, "[method]input-stream.subscribe", Input::subscribe)
}

fn writes(instance: &mut Linker<'_>) -> Result<()> {
    moving::<(Out, Vec<u8>), _>(
        instance,
        "[method]output-stream.write",
        |table, (this, bytes)| at_once(Output::write(table, this, bytes)),
    )?;
    moving::<(Out, Vec<u8>), _>(
        instance,
        "[method]output-stream.blocking-write-and-flush",
        |table, (this, bytes)| Box::pin(Output::blocking_write_and_flush(table, this, bytes)),
    )?;
    acting::<(Out, u64), _>(
        instance,
        "[method]output-stream.write-zeroes",
        |table, (this, count)| at_once(Output::write_zeroes(table, this, count)),
    )?;
    acting::<(Out, u64), _>(
        instance,
        "[method]output-stream.blocking-write-zeroes-and-flush",
        |table, (this, count)| {
            Box::pin(Output::blocking_write_zeroes_and_flush(table, this, count))
        },
    )?;
    acting::<(Out,), _>(
        instance,
        "[method]output-stream.check-write",
        |table, (this,)| at_once(Output::check_write(table, this)),
    )?;
    acting::<(Out,), _>(instance, "[method]output-stream.flush", |table, (this,)| {
        at_once(Output::flush(table, this))
    })?;
    acting::<(Out,), _>(
        instance,
        "[method]output-stream.blocking-flush",
        |table, (this,)| Box::pin(Output::blocking_flush(table, this)),
    )?;
    subscribable(
        instance,
        "[method]output-stream.subscribe",
        Output::subscribe,
    )
}

fn splices(instance: &mut Linker<'_>) -> Result<()> {
    acting::<(Out, In, u64), _>(
        instance,
        "[method]output-stream.splice",
        |table, (this, from, count)| at_once(Output::splice(table, this, from, count)),
    )?;
    acting::<(Out, In, u64), _>(
        instance,
        "[method]output-stream.blocking-splice",
        |table, (this, from, count)| Box::pin(Output::blocking_splice(table, this, from, count)),
    )
}
