//! Components whose functions the embedding program calls, or `wakebox call`.
//!
//! The function `get` of the interface `my:app/kv@1.0.0` is called `my:app/kv.get`, one that is exported by itself
//! by its name. All calls are for one instance, one after another.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use wakebox_guest::{Call, Format, Functions, Unread, eprintln, process, serve_with};
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Func, Instance, Val};
use wasmtime::{Engine, Result, Store, bail};

use crate::imports::host_name;
use crate::platform::OneThread;
use crate::turns::Turns;
use crate::values::{Parameters, Results, Signature, travels};
use crate::wasi::State;

/// A function that can be called.
struct Export {
    name: String,
    func: Func,
    ty: ComponentFunc,
    parameters: Vec<(String, Type)>,
}

struct Called {
    exports: Vec<Rc<Export>>,
    store: Rc<Running>,
}

struct Running {
    store: RefCell<Store<State>>,
    /// Of calls.
    turns: Turns,
}

/// Answers calls, until no more will come.
pub(crate) async fn run(
    engine: &Engine,
    component: &Component,
    mut store: Store<State>,
    instance: &Instance,
) -> Result<i32> {
    let exports = exports(engine, component, &mut store, instance);
    if exports.is_empty() {
        let ty = component.component_type();
        let names: Vec<_> = ty.exports(engine).map(|(name, _)| name).collect();
        bail!(
            "the component exports neither wasi:cli/run, nor a function `run`, nor \
             wasi:http/incoming-handler@0.2 or handler@0.3, nor a function that could be called, but {names:?}"
        );
    }
    let store = Rc::new(Running {
        store: RefCell::new(store),
        turns: Turns::new(1),
    });
    serve_with(Rc::new(Called { exports, store })).await;
    Ok(0)
}

/// The functions whose values can come from elsewhere, and go there.
fn exports(
    engine: &Engine,
    component: &Component,
    store: &mut Store<State>,
    instance: &Instance,
) -> Vec<Rc<Export>> {
    let mut exports = Vec::new();
    let mut add = |interface: Option<&str>, name: &str, ty: ComponentFunc| {
        let of = interface.and_then(|of| instance.get_export_index(&mut *store, None, of));
        let index = instance.get_export_index(&mut *store, of.as_ref(), name);
        let func = index.and_then(|index| instance.get_func(&mut *store, index));
        let types = ty.params().map(|(_, ty)| ty).chain(ty.results());
        if let Some(func) = func
            && types.into_iter().all(|ty| travels(&ty))
        {
            let parameters = ty.params().map(|(name, ty)| (name.to_string(), ty));
            exports.push(Rc::new(Export {
                name: host_name(interface, name),
                func,
                parameters: parameters.collect(),
                ty,
            }));
        }
    };
    for (name, item) in component.component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(ty) => add(None, name, ty),
            ComponentItem::ComponentInstance(of) => {
                for (function, item) in of.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = item.ty {
                        add(Some(name), function, ty);
                    }
                }
            }
            _ => {}
        }
    }
    exports
}

impl Called {
    fn find(&self, name: &str) -> Option<&Rc<Export>> {
        self.exports.iter().find(|export| export.name == name)
    }
}

impl Functions for Called {
    fn list(&self) -> String {
        let lines = self.exports.iter();
        let lines = lines.map(|export| format!("{}: {}", export.name, Signature(&export.ty)));
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn signature(&self, name: &str) -> Option<String> {
        self.find(name)
            .map(|export| Signature(&export.ty).to_string())
    }

    fn begin(&self, name: &str, format: Format, input: &[u8]) -> Option<Result<Call, Unread>> {
        let export = self.find(name)?.clone();
        let arguments = match format.read_with(input, Parameters(&export.parameters)) {
            Ok(arguments) => arguments,
            Err(why) => return Some(Err(why)),
        };
        let store = self.store.clone();
        Some(Ok(Call::One(Box::pin(async move {
            match store.call(&export, &arguments).await {
                Ok(results) => format.write(&Results(&export.ty, &results)),
                // The instance is not whole any more.
                Err(error) => {
                    eprintln!("error: {}: {error:?}", export.name);
                    process::exit(1)
                }
            }
        }))))
    }
}

impl Running {
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "whoever has the turn has the store"
    )]
    async fn call(&self, export: &Export, arguments: &[Val]) -> Result<Vec<Val>> {
        let _turn = self.turns.take().await;
        let store = &mut *self.store.borrow_mut();
        let mut results: Vec<_> = export.ty.results().map(|_| Val::Bool(false)).collect();
        if export.ty.async_() {
            let call = async |accessor: &_| {
                let call = export
                    .func
                    .call_concurrent(accessor, arguments, &mut results);
                call.await
            };
            OneThread(store.run_concurrent(call)).await??;
        } else {
            OneThread(export.func.call_async(&mut *store, arguments, &mut results)).await?;
        }
        Ok(results)
    }
}
