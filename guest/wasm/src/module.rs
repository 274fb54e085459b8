//! Core modules: programs that a C compiler makes, whose world is WASI preview 1.

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::Snapshot;
use wasmtime::{Engine, ExternType, Linker, Module, Result, bail};

use crate::platform::{OneThread, store};
use crate::preview1;

/// Runs `_start`, and gives the exit code.
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
    if !matches!(module.get_export("_start"), Some(ExternType::Func(_))) {
        let exports: Vec<&str> = module.exports().map(|export| export.name()).collect();
        bail!("the module exports no function `_start`, but {exports:?}");
    }
    let mut store = store(engine, preview1::State::new().await?);
    let instance = OneThread(linker.instantiate_async(&mut store, &module)).await?;
    if let Ok(Snapshot::Restored) = wakebox_guest::snapshot().await {
        // Other directories may be granted here.
        *store.data_mut() = preview1::State::new().await?;
    }
    let Some(start) = instance.get_func(&mut store, "_start") else {
        bail!("`_start` is not a function");
    };
    OneThread(start.call_async(&mut store, &[], &mut [])).await?;
    Ok(0)
}
