//! Functions that many interfaces define alike. There is one piece of code for each set of types, and not for
//! each function: what one does is a pointer.

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::State;

type Cx<'a> = StoreContextMut<'a, State>;
type Linker<'a> = LinkerInstance<'a, State>;

/// What may be a resource.
pub(super) trait Held: Send + 'static {}
impl<T: Send + 'static> Held for T {}
/// What a component may be given.
pub(super) trait Given: ComponentType + Lower + Send + 'static {}
impl<T: ComponentType + Lower + Send + 'static> Given for T {}
/// What a component may give.
pub(super) trait Taken: ComponentType + Lift + Send + 'static {}
impl<T: ComponentType + Lift + Send + 'static> Taken for T {}

/// Defines a resource that lies in the table.
pub(super) fn resource<T: Held>(instance: &mut Linker<'_>, name: &str) -> Result<()> {
    instance.resource(name, ResourceType::host::<T>(), |mut cx: Cx<'_>, index| {
        let table = &mut cx.data_mut().table;
        table.delete(Resource::<T>::new_own(index))?;
        Ok(())
    })
}

/// Defines a method without arguments.
pub(super) fn method<T: Held, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T) -> R,
) -> Result<()> {
    instance.func_wrap(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        Ok((act(cx.data_mut().table.get_mut(&this)?),))
    })
}

/// Defines a method with an argument.
pub(super) fn method_of<T: Held, A: Taken, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T, A) -> R,
) -> Result<()> {
    instance.func_wrap(
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
    instance.func_wrap(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
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
    instance.func_wrap(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
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
    instance.func_wrap(name, |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        Ok((subscribe(&mut cx.data_mut().table, this)?,))
    })
}
