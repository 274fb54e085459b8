//! Components in Wasmtime, without a machine around them.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use wasmtime::component::{Component, Instance, Linker, Val};
use wasmtime::{Config, Engine, Store};

pub(crate) struct Called {
    store: Store<()>,
    instance: Instance,
}

fn own(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

impl Called {
    /// A component, with the settings that Wakebox has, or with Wasmtime's own.
    pub(crate) async fn start(component: &str, same: bool) -> Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.concurrency_support(true);
        if same {
            config.signals_based_traps(false);
            config.memory_reservation(0);
            config.memory_guard_size(0);
            config.memory_init_cow(false);
        }
        let engine = Engine::new(&config).map_err(own)?;
        let component = wat::parse_str(component)?;
        let component = Component::new(&engine, component).map_err(own)?;
        let mut linker = Linker::new(&engine);
        let mut root = linker.root();
        let mut kv = root.instance("my:app/kv@1.0.0").map_err(own)?;
        let defined = kv.func_wrap_concurrent("get", |_, (key,): (u32,)| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok((2 * key,))
            })
        });
        defined.map_err(own)?;
        let mut store = Store::new(&engine, ());
        let instance = linker.instantiate_async(&mut store, &component).await;
        let instance = instance.map_err(own)?;
        Ok(Self { store, instance })
    }

    async fn func(&mut self, name: &str, arguments: &[Val]) -> Result<(Duration, u32)> {
        let func = self.instance.get_func(&mut self.store, name);
        let func = func.ok_or_else(|| anyhow!("there is no {name}"))?;
        let mut results = [Val::U32(0)];
        let start = Instant::now();
        if func.ty(&self.store).async_() {
            let call = async |accessor: &_| {
                func.call_concurrent(accessor, arguments, &mut results)
                    .await
            };
            let called = self.store.run_concurrent(call).await;
            called.map_err(own)?.map_err(own)?;
        } else {
            let called = func.call_async(&mut self.store, arguments, &mut results);
            called.await.map_err(own)?;
        }
        let time = start.elapsed();
        let Val::U32(result) = results[0] else {
            return Err(anyhow!("{name} gives no number"));
        };
        Ok((time, result))
    }

    pub(crate) async fn call(&mut self, name: &str, argument: u32) -> Result<(Duration, u32)> {
        self.func(name, &[Val::U32(argument)]).await
    }

    pub(crate) async fn round(&mut self) -> Result<Duration> {
        let (time, sum) = self.func("round", &[]).await?;
        ensure!(
            sum == crate::IN_FLIGHT * (crate::IN_FLIGHT - 1),
            "it gives {sum}"
        );
        Ok(time)
    }
}
