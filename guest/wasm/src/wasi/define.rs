//! Functions that interfaces define. There is one piece of Wasmtime's code for all of them: what one does is
//! behind a pointer, and its values are converted there (see `value`).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;

use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Accessor, LinkerInstance, Resource, ResourceTable, ResourceType, Val};
use wasmtime::{AsContextMut, Result};
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::State;
use super::transmit::Later;
use super::value::{Arguments, Cx, Given, Results, Taken, mismatch};
use crate::platform::OneThread;

/// An interface that a component imports, of WASI or of the host.
pub(crate) struct Linker<'a> {
    instance: LinkerInstance<'a, State>,
    /// Whether it is of WASI 0.3.
    is_newer: bool,
    /// The functions of it that are async.
    asyncs: Vec<String>,
}

impl<'a> Linker<'a> {
    pub(crate) fn of(
        instance: LinkerInstance<'a, State>,
        is_newer: bool,
        asyncs: Vec<String>,
    ) -> Self {
        Self {
            instance,
            is_newer,
            asyncs,
        }
    }

    /// What the method that gets something of a resource is called.
    pub(super) fn getter(&self, resource: &str, name: &str) -> String {
        let get = if self.is_newer { "get-" } else { "" };
        alloc::format!("[method]{resource}.{get}{name}")
    }
}

impl<'a> Deref for Linker<'a> {
    type Target = LinkerInstance<'a, State>;

    fn deref(&self) -> &Self::Target {
        &self.instance
    }
}

impl DerefMut for Linker<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.instance
    }
}

/// What may be a resource.
pub(super) trait Held: Send + 'static {}
impl<T: Send + 'static> Held for T {}

/// What a function of ours awaits.
pub(crate) type Awaited<'a, R> = Box<dyn Future<Output = Result<R>> + Send + 'a>;

pub(super) trait Define {
    /// Defines a function.
    fn define<A: Arguments, R: Results>(
        &mut self,
        name: &str,
        act: impl Fn(Cx<'_>, A) -> Result<R> + Copy + Send + Sync + 'static,
    ) -> Result<()>;

    /// Defines a function that awaits operations, while the component waits for it.
    fn define_async<A: Arguments, R: Results>(
        &mut self,
        name: &str,
        act: impl Fn(Cx<'_>, A) -> Awaited<'_, R> + Copy + Send + Sync + 'static,
    ) -> Result<()>;

    /// Defines a function that begins operations, and awaits them without what belongs to the instance: any number
    /// are in flight, if the component's function is async.
    fn define_apart<A: Arguments>(
        &mut self,
        name: &str,
        begin: impl Fn(Cx<'_>, A) -> Result<Later> + Copy + Send + Sync + 'static,
    ) -> Result<()>;
}

/// What all functions are to Wasmtime: given the component's types for it, arguments, and room for results.
pub(crate) type Plain =
    dyn Fn(Cx<'_>, ComponentFunc, &[Val], &mut [Val]) -> Result<()> + Send + Sync;
/// As that, of one for which the component waits.
pub(crate) type Awaiting = dyn for<'a> Fn(Cx<'a>, ComponentFunc, &'a [Val], &'a mut [Val]) -> Awaited<'a, ()>
    + Send
    + Sync;
/// As that, of which any number are in flight.
pub(crate) type Concurrent = dyn for<'a> Fn(&'a Accessor<State>, ComponentFunc, &'a [Val], &'a mut [Val]) -> Pin<Awaited<'a, ()>>
    + Send
    + Sync;

impl Define for Linker<'_> {
    fn define<A: Arguments, R: Results>(
        &mut self,
        name: &str,
        act: impl Fn(Cx<'_>, A) -> Result<R> + Copy + Send + Sync + 'static,
    ) -> Result<()> {
        let plain: Box<Plain> = Box::new(move |mut cx, _, arguments, results| {
            let arguments = A::all(arguments, &mut cx)?;
            act(cx.as_context_mut(), arguments)?.put(results, &mut cx)
        });
        plainly(self, name, plain)
    }

    fn define_async<A: Arguments, R: Results>(
        &mut self,
        name: &str,
        act: impl Fn(Cx<'_>, A) -> Awaited<'_, R> + Copy + Send + Sync + 'static,
    ) -> Result<()> {
        let awaiting: Box<Awaiting> = Box::new(move |mut cx, _, arguments, results| {
            Box::new(OneThread(async move {
                let arguments = A::all(arguments, &mut cx)?;
                let awaited = Pin::from(act(cx.as_context_mut(), arguments)).await?;
                awaited.put(results, &mut cx)
            }))
        });
        awaitingly(self, name, awaiting)
    }

    fn define_apart<A: Arguments>(
        &mut self,
        name: &str,
        begin: impl Fn(Cx<'_>, A) -> Result<Later> + Copy + Send + Sync + 'static,
    ) -> Result<()> {
        let begin: Box<Begin> = Box::new(move |mut cx, arguments| {
            let arguments = A::all(arguments, &mut cx)?;
            begin(cx, arguments)
        });
        apart(self, name, begin)
    }
}

/// What begins operations, of arguments.
pub(crate) type Begin = dyn Fn(Cx<'_>, &[Val]) -> Result<Later> + Send + Sync;

pub(crate) fn apart(instance: &mut Linker<'_>, name: &str, begin: Box<Begin>) -> Result<()> {
    let is_newer = instance.is_newer;
    if instance.asyncs.iter().any(|own| own == name) {
        let acting: Box<Concurrent> = Box::new(move |accessor, _, arguments, results| {
            let begun = accessor.with(|mut access| {
                let mut cx = access.as_context_mut();
                cx.data_mut().is_newer = is_newer;
                begin(cx, arguments)
            });
            Box::pin(OneThread(async move {
                let finish = begun?.await;
                let value = accessor.with(|mut access| {
                    let mut cx = access.as_context_mut();
                    cx.data_mut().is_newer = is_newer;
                    finish(&mut cx)
                })?;
                first(results, value)
            }))
        });
        return concurrently(instance, name, acting);
    }
    let acting: Box<Awaiting> = Box::new(move |mut cx, _, arguments, results| {
        let begun = begin(cx.as_context_mut(), arguments);
        Box::new(OneThread(async move {
            let finish = begun?.await;
            cx.data_mut().is_newer = is_newer;
            first(results, finish(&mut cx)?)
        }))
    });
    awaitingly(instance, name, acting)
}

fn first(results: &mut [Val], value: Val) -> Result<()> {
    match results {
        [] => {}
        [result] => *result = value,
        _ => return mismatch(),
    }
    Ok(())
}

pub(crate) fn plainly(instance: &mut Linker<'_>, name: &str, act: Box<Plain>) -> Result<()> {
    let is_newer = instance.is_newer;
    instance.func_new(name, move |mut cx, ty, arguments, results| {
        cx.data_mut().is_newer = is_newer;
        act(cx, ty, arguments, results)
    })
}

pub(crate) fn awaitingly(instance: &mut Linker<'_>, name: &str, act: Box<Awaiting>) -> Result<()> {
    let is_newer = instance.is_newer;
    instance.func_new_async(name, move |mut cx, ty, arguments, results| {
        cx.data_mut().is_newer = is_newer;
        act(cx, ty, arguments, results)
    })
}

pub(crate) fn concurrently(
    instance: &mut Linker<'_>,
    name: &str,
    act: Box<Concurrent>,
) -> Result<()> {
    instance.func_new_concurrent(name, move |accessor, ty, arguments, results| {
        act(accessor, ty, arguments, results)
    })
}

/// Defines a resource that lies in the table.
pub(super) fn resource<T: Held>(instance: &mut Linker<'_>, name: &str) -> Result<()> {
    let delete = |table: &mut ResourceTable, index| {
        table.delete(Resource::<T>::new_own(index))?;
        Ok(())
    };
    deleted(instance, name, ResourceType::host::<T>(), delete)
}

/// Defines a resource, and how it is taken out of the table.
pub(super) fn deleted(
    instance: &mut Linker<'_>,
    name: &str,
    ty: ResourceType,
    delete: fn(&mut ResourceTable, u32) -> Result<()>,
) -> Result<()> {
    instance.resource(name, ty, move |mut cx: Cx<'_>, index| {
        delete(&mut cx.data_mut().table, index)
    })
}

/// Defines a method without arguments.
pub(super) fn method<T: Held, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T) -> R,
) -> Result<()> {
    instance.define(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        Ok((act(cx.data_mut().table.get_mut(&this)?),))
    })
}

/// Defines a method with an argument.
pub(super) fn method_of<T: Held, A: Taken, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T, A) -> R,
) -> Result<()> {
    instance.define(
        name,
        move |mut cx: Cx<'_>, (this, argument): (Resource<T>, A)| {
            Ok((act(cx.data_mut().table.get_mut(&this)?, argument),))
        },
    )
}

/// Defines a method that gives a new resource.
pub(super) fn part<T: Held, R: Held>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T) -> R,
) -> Result<()> {
    instance.define(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        let table = &mut cx.data_mut().table;
        let part = act(table.get_mut(&this)?);
        Ok((table.push(part)?,))
    })
}

/// As that, of what there may be none any more.
pub(super) fn part_if<T: Held, R: Held>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T) -> Option<R>,
) -> Result<()> {
    instance.define(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        let table = &mut cx.data_mut().table;
        let part = act(table.get_mut(&this)?);
        Ok((match part {
            Some(part) => Ok(table.push(part)?),
            None => Err(()),
        },))
    })
}

/// Defines `subscribe` of a resource.
pub(super) fn pollable<T: Pollable>(instance: &mut Linker<'_>, name: &str) -> Result<()> {
    instance.define(name, |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        Ok((subscribe(&mut cx.data_mut().table, this)?,))
    })
}
