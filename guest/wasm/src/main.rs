//! Runs a WebAssembly component, or a core module, whose compiled code `wakebox-wasm` has attached to this
//! program.
//!
//! A component's `wasi:cli/run`, or its own `run`, is the program; of a core module (`module`) it is
//! `_start`. What it imports is answered here, on the rings: WASI 0.2 by `wasi`, preview 1 by `preview1`,
//! functions of the host by `imports`.

#![no_std]
#![no_main]

extern crate alloc;

mod called;
mod files;
mod flight;
mod given;
mod head;
mod http;
mod image;
mod imports;
mod memory;
mod module;
mod platform;
mod preview1;
#[cfg(feature = "script")]
mod script;
mod serve;
mod turns;
mod values;
mod wasi;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use wakebox_guest::eprintln;
use wakebox_guest::task::spawn_named;
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, Func, Instance, Linker, Val};
use wasmtime::{Config, Engine, Module, Precompiled, Result, Store, bail};

use self::platform::OneThread;
use self::wasi::State;

/// Bytes of a fiber's stack that are WebAssembly's; the rest is for functions that it calls.
const WASM_STACK: usize = 256 << 10;

/// What the interface of a program is called, up to the last number of the version. Who has both means the first: compilers
/// of Rust export the other with it, for a `main` that nobody calls.
const RUN: [&str; 2] = ["wasi:cli/run@0.3.", "wasi:cli/run@0.2."];

#[wakebox_guest::main]
async fn main() -> i32 {
    match OneThread(run()).await {
        Ok(code) => code,
        Err(error) => {
            let error = alloc::format!("{error:?}");
            eprintln!("error: {error}");
            if let Some(advice) = platform::advice(&error) {
                eprintln!("note: {advice}");
            }
            1
        }
    }
}

async fn run() -> Result<i32> {
    let engine = engine()?;
    let code = image::code()?;
    // SAFETY: the code is mapped, and nobody writes to it.
    match Engine::detect_precompiled(unsafe { code.as_ref() }) {
        Some(Precompiled::Module) => {
            // SAFETY: `wakebox-wasm` has put there what Wasmtime has compiled, it is never written, and
            // it stays.
            let module = unsafe { Module::deserialize_raw(&engine, code) }?;
            module::run(&engine, module).await
        }
        _ => {
            // SAFETY: as above.
            let component = unsafe { Component::deserialize_raw(&engine, code) }?;
            run_component(&engine, &component).await
        }
    }
}

async fn run_component(engine: &Engine, component: &Component) -> Result<i32> {
    #[cfg(feature = "script")]
    if script::is_one(engine, component) {
        return script::run(engine, component).await;
    }
    let mut linker = Linker::new(engine);
    wasi::link(engine, &mut linker, component)?;
    let missing = imports::link(engine, &mut linker, component).await?;
    if !missing.is_empty() {
        bail!(
            "nobody provides what the component imports:\n  {}",
            missing.join("\n  ")
        );
    }
    let is_program = export(engine, component, &RUN).is_some();
    let serves = serve::is_asked() || !is_program;
    let handler = export(engine, component, &serve::HANDLERS);
    if let Some(handler) = handler.filter(|_| serves) {
        let most = image::Stacks::count()?;
        return serve::run(engine, component, &linker, &handler, most).await;
    }
    let mut store = platform::store(engine, State::default());
    let instance = linker.instantiate_async(&mut store, component).await?;
    // Who starts from a template of this has an instance already.
    let _ = wakebox_guest::snapshot().await;
    match entry(engine, component, &instance, &mut store)? {
        Some(run) => {
            let called = OneThread(async move { call(&mut store, run).await });
            let ended = spawn_named("run", called).await;
            ended.map_err(|error| wasmtime::format_err!("{error:?}"))?
        }
        None => called::run(engine, component, store, &instance).await,
    }
}

/// The first of the exports whose names begin so.
fn export(engine: &Engine, component: &Component, starts: &[&str]) -> Option<String> {
    let ty = component.component_type();
    starts.iter().find_map(|start| {
        let mut names = ty.exports(engine).map(|(name, _)| name);
        names.find(|name| name.starts_with(start)).map(String::from)
    })
}

fn engine() -> Result<Engine> {
    let stacks = image::Stacks::new()?;
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    config.concurrency_support(true);
    config.async_stack_size(stacks.size());
    config.max_wasm_stack(WASM_STACK);
    config.with_host_stack(Arc::new(stacks));
    config.with_custom_code_memory(Some(Arc::new(image::MappedCode)));
    memory::configure(&mut config, image::read_head()?.pages == 1);
    // SAFETY: it asks the processor.
    unsafe { config.detect_host_feature(platform::has_feature) };
    Engine::new(&config)
}

/// `run` of `wasi:cli/run`, or of the component itself, if there is one.
fn entry(
    engine: &Engine,
    component: &Component,
    instance: &Instance,
    store: &mut Store<State>,
) -> Result<Option<Func>> {
    let interface = export(engine, component, &RUN);
    let interface = interface.and_then(|name| instance.get_export_index(&mut *store, None, &name));
    let Some(run) = instance.get_export_index(&mut *store, interface.as_ref(), "run") else {
        return Ok(None);
    };
    let Some(run) = instance.get_func(&mut *store, run) else {
        bail!("`run` is not a function");
    };
    Ok(Some(run))
}

/// Calls `run`, which has no arguments, and gives the exit code that its result stands for.
async fn call(store: &mut Store<State>, run: Func) -> Result<i32> {
    let ty = run.ty(&*store);
    if ty.params().len() > 0 {
        bail!("`run` has arguments, which nobody gives it");
    }
    if let Some(other) = ty
        .results()
        .find(|ty| !matches!(ty, Type::Result(_) | Type::S32 | Type::U32))
    {
        bail!(
            "`run` gives {}: it may give nothing, a result, or an s32 or u32, the exit code",
            values::Words(&other)
        );
    }
    let mut results: Vec<Val> = ty.results().map(|_| Val::Bool(false)).collect();
    if ty.async_() {
        let call = async |accessor: &_| run.call_concurrent(accessor, &[], &mut results).await;
        OneThread(store.run_concurrent(call)).await??;
    } else {
        OneThread(run.call_async(&mut *store, &[], &mut results)).await?;
    }
    Ok(match results.first() {
        Some(Val::Result(Err(_))) => 1,
        Some(Val::S32(code)) => *code,
        Some(Val::U32(code)) => *code as i32,
        _ => 0,
    })
}

/// The functions of an import: its own, or those of the instance that it is.
pub(crate) fn functions<'a>(
    engine: &'a Engine,
    component: &'a Component,
) -> Vec<(
    Option<String>,
    String,
    wasmtime::component::types::ComponentFunc,
)> {
    let mut all = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(ty) => all.push((None, name.into(), ty)),
            ComponentItem::ComponentInstance(instance) => {
                for (function, item) in instance.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = item.ty {
                        all.push((Some(name.into()), function.into(), ty));
                    }
                }
            }
            _ => {}
        }
    }
    all
}
