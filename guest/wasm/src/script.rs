//! Scripts of core modules, which tests drive: a component that exports modules instead of functions is
//! their library, and the host says what becomes of them. Only in a runtime that tests build.

mod words;

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::host;
use wasmtime::component::{self, Component};
use wasmtime::{Engine, Instance, Linker, Result, Store, bail, format_err};

use self::words::{Answer, Command, Value, digest};
use crate::platform::{OneThread, store};

/// Whether a component is a library of modules.
pub(crate) fn is_one(engine: &Engine, component: &Component) -> bool {
    crate::export(engine, component, &["module-0"]).is_some()
}

struct Script {
    store: Store<()>,
    library: component::Instance,
    linker: Linker<()>,
    instances: Vec<Instance>,
}

pub(crate) async fn run(engine: &Engine, component: &Component) -> Result<i32> {
    let mut store = store(engine, ());
    let library = component::Linker::new(engine);
    let library = OneThread(library.instantiate_async(&mut store, component)).await?;
    let mut linker = Linker::new(engine);
    linker.allow_shadowing(true);
    let mut script = Script {
        store,
        library,
        linker,
        instances: Vec::new(),
    };
    let mut answer = Answer::Ready;
    loop {
        let command = host::call("script", &(answer,)).await;
        let command = command.map_err(|error| format_err!("{error}"))?;
        if let Command::End = command {
            return Ok(0);
        }
        answer = match script.obey(command).await {
            Ok(values) => Answer::Done(values),
            Err(error) => Answer::Failed(alloc::format!("{error:?}")),
        };
    }
}

impl Script {
    fn instance(&self, index: u32) -> Result<Instance> {
        let found = self.instances.get(index as usize);
        found
            .copied()
            .ok_or_else(|| format_err!("no such instance"))
    }

    async fn obey(&mut self, command: Command) -> Result<Vec<Value>> {
        match command {
            Command::Instantiate(index) => {
                let name = alloc::format!("module-{index}");
                let module = self.library.get_module(&mut self.store, &*name);
                let module = module.ok_or_else(|| format_err!("no such module"))?;
                let made = self.linker.instantiate_async(&mut self.store, &module);
                let made = OneThread(made).await?;
                self.instances.push(made);
                Ok(Vec::new())
            }
            Command::Register(index, name) => {
                let instance = self.instance(index)?;
                self.linker.instance(&mut self.store, &name, instance)?;
                Ok(Vec::new())
            }
            Command::Invoke(index, name, arguments) => self.invoke(index, name, &arguments).await,
            Command::Get(index, name) => {
                let global = self.instance(index)?.get_global(&mut self.store, &name);
                let global = global.ok_or_else(|| format_err!("no such global"))?;
                Ok(Vec::from([Value::of(&global.get(&mut self.store))]))
            }
            Command::Digest(index) => {
                let digest = digest(&self.instance(index)?, &mut self.store);
                Ok(Vec::from([Value::I64(digest)]))
            }
            Command::End => Ok(Vec::new()),
        }
    }

    async fn invoke(
        &mut self,
        index: u32,
        name: String,
        arguments: &[Value],
    ) -> Result<Vec<Value>> {
        let Some(func) = self.instance(index)?.get_func(&mut self.store, &name) else {
            bail!("no such function");
        };
        let arguments: Option<Vec<_>> = arguments.iter().map(|value| value.to_val()).collect();
        let arguments = arguments.ok_or_else(|| format_err!("such a value does not travel"))?;
        let ty = func.ty(&self.store);
        let mut results: Vec<_> = ty.results().map(|_| wasmtime::Val::FuncRef(None)).collect();
        OneThread(func.call_async(&mut self.store, &arguments, &mut results)).await?;
        Ok(results.iter().map(Value::of).collect())
    }
}
