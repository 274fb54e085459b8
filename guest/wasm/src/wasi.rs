//! WASI 0.2: `cli`, `clocks`, `filesystem`, `http`, `io`, `random` and `sockets`. A function that is not provided ends the component with
//! its name when it is called, as many are imported that are never called.

pub(crate) mod any;
mod cli;
mod clocks;
pub(crate) mod define;
mod filesystem;
pub(crate) mod http;
mod io;
mod newer;
mod random;
mod sockets;
pub(crate) mod transmit;
pub(crate) mod value;

pub(crate) use self::cli::Input;

use alloc::boxed::Box;
use alloc::vec::Vec;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{self, Component, Resource, ResourceTable, ResourceType};
use wasmtime::{Engine, Result, format_err};

use self::define::{Concurrent, Linker, concurrently, plainly};

/// What belongs to one instance.
#[derive(Default)]
pub(crate) struct State {
    table: ResourceTable,
    input: cli::Input,
    /// What it is told to seed hashes with.
    seed: Option<(u64, u64)>,
    /// Whether the function that is called is one of WASI 0.3.
    is_newer: bool,
}

impl State {
    /// Puts something into the table that a component is to be given.
    pub(crate) fn push<T: Send + 'static>(&mut self, value: T) -> Result<Resource<T>> {
        Ok(self.table.push(value)?)
    }
}

/// A resource of an interface that is not provided.
struct Missing;

/// Links every import of WASI, in the version in which it is imported.
pub(crate) fn link(
    engine: &Engine,
    linker: &mut component::Linker<State>,
    component: &Component,
) -> Result<()> {
    // A resource is defined by the first that exports it; the others use it.
    let mut seen = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(ty) = item.ty else {
            continue;
        };
        let Some((interface, version)) = name.strip_prefix("wasi:").and_then(|n| n.split_once('@'))
        else {
            continue;
        };
        let own = ty.exports(engine).filter_map(|(name, item)| match item.ty {
            ComponentItem::Resource(ty) if !seen.contains(&ty) => Some((name, ty)),
            _ => None,
        });
        let own: Vec<_> = own.collect();
        seen.extend(own.iter().map(|(_, ty)| *ty));
        let asyncs = ty.exports(engine).filter_map(|(name, item)| match item.ty {
            ComponentItem::ComponentFunc(ty) if ty.async_() => Some(name.into()),
            _ => None,
        });
        let is_newer = version.starts_with("0.3.");
        let mut instance = Linker::of(linker.instance(name)?, is_newer, asyncs.collect());
        if version.starts_with("0.2.") {
            provide(&mut instance, interface)?;
        } else if is_newer {
            newer::provide(&mut instance, interface)?;
        }
        for (name, _) in own {
            // An error says that it has been provided.
            let _ = instance.resource(name, ResourceType::host::<Missing>(), |_, _| Ok(()));
        }
        for (function, item) in ty.exports(engine) {
            if let ComponentItem::ComponentFunc(ty) = item.ty {
                let full = alloc::format!("{name}#{function}");
                refuse(&mut instance, function, full, ty.async_());
            }
        }
    }
    Ok(())
}

fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    if let Some(name) = interface.strip_prefix("cli/") {
        cli::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("clocks/") {
        clocks::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("filesystem/") {
        filesystem::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("io/") {
        io::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("http/") {
        http::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("random/") {
        random::provide(instance, name)
    } else if let Some(name) = interface.strip_prefix("sockets/") {
        sockets::provide(instance, name)
    } else {
        Ok(())
    }
}

/// Defines a function that only fails; one that is defined stays.
fn refuse(instance: &mut Linker<'_>, name: &str, full: alloc::string::String, is_async: bool) {
    let error = move || format_err!("the component calls {full}, which is not provided yet");
    let _ = if is_async {
        let refused: Box<Concurrent> = Box::new(move |_, _, _, _| {
            let error = error();
            Box::pin(async move { Err(error) })
        });
        concurrently(instance, name, refused)
    } else {
        plainly(instance, name, Box::new(move |_, _, _, _| Err(error())))
    };
}
