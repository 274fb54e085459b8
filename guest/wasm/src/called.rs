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
use core::fmt::Display;
use core::future::Future;
use core::pin::Pin;

use wakebox_guest::{Call, Format, Functions, Unread, eprintln, process, serve_with};
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Func, Instance, Val};
use wasmtime::{Engine, Result, Store, bail};

use crate::given;
use crate::imports::host_name;
use crate::platform::OneThread;
use crate::turns::Turns;
use crate::values::{Parameters, Resources, Results, Signature, travels};
use crate::wasi::State;

/// A function that can be called.
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) parameters: Vec<(String, Type)>,
    pub(crate) results: Vec<Type>,
    pub(crate) callee: Box<dyn Callee>,
}

/// What a call gives, when it has ended.
pub(crate) type Called = Pin<Box<dyn Future<Output = Result<Vec<Val>>>>>;

/// What is called: a function of a component, or one of a core module.
pub(crate) trait Callee {
    fn call(&self, arguments: Vec<Val>) -> Called;

    /// Its types, in words.
    fn types(&self) -> &dyn Display;
}

struct Exports(Vec<Rc<Export>>);

/// What all calls are for, which have their turns.
pub(crate) struct Running<T: 'static> {
    store: RefCell<Store<T>>,
    turns: Turns,
}

impl<T> Running<T> {
    pub(crate) fn new(store: Store<T>) -> Rc<Self> {
        Rc::new(Self {
            store: RefCell::new(store),
            turns: Turns::new(1),
        })
    }

    /// Has a call do what it does, when it has the turn.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "whoever has the turn has the store"
    )]
    pub(crate) async fn with<R>(&self, call: impl AsyncFnOnce(&mut Store<T>) -> R) -> R {
        let _turn = self.turns.take().await;
        call(&mut self.store.borrow_mut()).await
    }
}

/// Answers calls, until no more will come.
pub(crate) async fn serve(exports: Vec<Export>) {
    given::is_served();
    let exports = exports.into_iter().map(Rc::new);
    serve_with(Rc::new(Exports(exports.collect()))).await;
}

/// Answers calls of a component's functions, until no more will come.
pub(crate) async fn run(
    engine: &Engine,
    component: &Component,
    mut store: Store<State>,
    instance: &Instance,
) -> Result<i32> {
    let found = functions(engine, component, &mut store, instance);
    if found.is_empty() {
        let ty = component.component_type();
        let names: Vec<_> = ty.exports(engine).map(|(name, _)| name).collect();
        bail!(
            "the component exports neither wasi:cli/run, nor a function `run`, nor \
             wasi:http/incoming-handler@0.2 or handler@0.3, nor a function that could be called, but {names:?}"
        );
    }
    let running = Running::new(store);
    let exports = found.into_iter().map(|(name, func, ty)| {
        let parameters = ty.params().map(|(name, ty)| (name.to_string(), ty));
        Export {
            name,
            parameters: parameters.collect(),
            results: ty.results().collect(),
            callee: Box::new(Lifted {
                func,
                words: Signature(ty),
                running: running.clone(),
            }),
        }
    });
    serve(exports.collect()).await;
    Ok(0)
}

/// The functions whose values can come from elsewhere, and go there.
fn functions(
    engine: &Engine,
    component: &Component,
    store: &mut Store<State>,
    instance: &Instance,
) -> Vec<(String, Func, ComponentFunc)> {
    let mut found = Vec::new();
    // A handle is the component's: nobody outside could drop it.
    let none = Resources::default();
    let mut add = |interface: Option<&str>, name: &str, ty: ComponentFunc| {
        let of = interface.and_then(|of| instance.get_export_index(&mut *store, None, of));
        let index = instance.get_export_index(&mut *store, of.as_ref(), name);
        let func = index.and_then(|index| instance.get_func(&mut *store, index));
        let types = ty.params().map(|(_, ty)| ty).chain(ty.results());
        if let Some(func) = func
            && types.into_iter().all(|ty| travels(&ty, &none))
        {
            found.push((host_name(interface, name), func, ty));
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
    found
}

impl Exports {
    fn find(&self, name: &str) -> Option<&Rc<Export>> {
        self.0.iter().find(|export| export.name == name)
    }
}

impl Functions for Exports {
    fn list(&self) -> String {
        let lines = self.0.iter();
        let lines = lines.map(|export| format!("{}: {}", export.name, export.callee.types()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn signature(&self, name: &str) -> Option<String> {
        self.find(name)
            .map(|export| export.callee.types().to_string())
    }

    fn begin(&self, name: &str, format: Format, input: &[u8]) -> Option<Result<Call, Unread>> {
        let Some(export) = self.find(name).cloned() else {
            return given::open(name, format).map(Ok);
        };
        let arguments = match format.read_with(input, Parameters(&export.parameters)) {
            Ok(arguments) => arguments,
            Err(why) => return Some(Err(why)),
        };
        Some(Ok(Call::One(Box::pin(async move {
            match export.callee.call(arguments).await {
                Ok(results) => format.write(&Results(&export.results, &results)),
                // The instance is not whole any more.
                Err(error) => {
                    eprintln!("error: {}: {error:?}", export.name);
                    process::exit(1)
                }
            }
        }))))
    }
}

/// A function of a component.
struct Lifted {
    func: Func,
    words: Signature,
    running: Rc<Running<State>>,
}

impl Callee for Lifted {
    fn call(&self, arguments: Vec<Val>) -> Called {
        let (running, func) = (self.running.clone(), self.func);
        let is_async = self.words.0.async_();
        let mut results: Vec<_> = self.words.0.results().map(|_| Val::Bool(false)).collect();
        Box::pin(async move {
            let call = async |store: &mut Store<State>| -> Result<Vec<Val>> {
                if is_async {
                    let call = async |accessor: &_| {
                        let call = func.call_concurrent(accessor, &arguments, &mut results);
                        call.await
                    };
                    OneThread(store.run_concurrent(call)).await??;
                } else {
                    OneThread(func.call_async(store, &arguments, &mut results)).await?;
                }
                Ok(results)
            };
            running.with(call).await
        })
    }

    fn types(&self) -> &dyn Display {
        &self.words
    }
}
