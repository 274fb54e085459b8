//! Core modules, whose world is WASI preview 1: programs that a C compiler makes, and libraries.

mod library;

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::Snapshot;
use wasmtime::{Engine, ExternType, Instance, Linker, Module, Result, Store, bail};

use crate::platform::{OneThread, store};
use crate::preview1::{self, State};

/// What a program does, and what a library wants to have done before anything else.
const START: &str = "_start";
const INITIALIZE: &str = "_initialize";

/// Runs `_start`, or else answers calls of what the module exports, and gives the exit code.
pub(crate) async fn run(engine: &Engine, module: Module) -> Result<i32> {
    let mut linker = Linker::new(engine);
    preview1::link(engine, &mut linker)?;
    let missing: Vec<String> = module
        .imports()
        .filter(|import| !preview1::provides(import.module(), import.name()))
        .map(|import| alloc::format!("{}#{}", import.module(), import.name()))
        .collect();
    if !missing.is_empty() {
        bail!(
            "nobody provides what the module imports:\n  {}",
            missing.join("\n  ")
        );
    }
    let is_program = matches!(module.get_export(START), Some(ExternType::Func(_)));
    let functions = library::functions(&module);
    if !is_program && functions.is_empty() {
        let exports: Vec<&str> = module.exports().map(|export| export.name()).collect();
        bail!(
            "the module exports neither a function `_start`, nor one of numbers that could be called, but \
             {exports:?}"
        );
    }
    let mut store = store(engine, State::new().await?);
    let instance = OneThread(linker.instantiate_async(&mut store, &module)).await?;
    if !is_program {
        begin(&mut store, &instance, INITIALIZE).await?;
    }
    if let Ok(Snapshot::Restored) = wakebox_guest::snapshot().await {
        // Other directories may be granted here.
        *store.data_mut() = State::new().await?;
    }
    if is_program {
        begin(&mut store, &instance, START).await?;
    } else {
        library::serve(functions, store, &instance).await;
    }
    Ok(0)
}

/// Calls a function that takes nothing and gives nothing, if there is one.
async fn begin(store: &mut Store<State>, instance: &Instance, name: &str) -> Result<()> {
    match instance.get_func(&mut *store, name) {
        Some(func) => OneThread(func.call_async(store, &[], &mut [])).await,
        None => Ok(()),
    }
}
