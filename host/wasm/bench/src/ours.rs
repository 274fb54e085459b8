//! Components in sandboxes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wakebox::{HostContext, Running, Sandbox};
use wakebox_wasm::Bounds;

pub(crate) struct Called(Running);

impl Called {
    /// A component, and the name of an import that gives twice its argument after others had their turn.
    pub(crate) fn start(component: &str, import: Option<&str>, bounds: Bounds) -> Result<Self> {
        let image = wakebox_wasm::image_with(component.as_bytes(), bounds)?;
        let mut builder = Sandbox::builder().guest(image).memory(64 << 20);
        if let Some(name) = import {
            builder = builder.host_fn(name, |_: HostContext, key: (u32,)| async move {
                tokio::task::yield_now().await;
                2 * key.0
            });
        }
        Ok(Self(builder.build()?.start()))
    }

    pub(crate) async fn call(&self, name: &str, argument: u32) -> Result<(Duration, u32)> {
        let start = Instant::now();
        let result = self.0.call::<_, u32>(name, &argument).await?;
        Ok((start.elapsed(), result))
    }

    pub(crate) async fn round(&self) -> Result<Duration> {
        let start = Instant::now();
        let sum = self.0.call::<_, u32>("round", &()).await?;
        ensure!(
            sum == crate::IN_FLIGHT * (crate::IN_FLIGHT - 1),
            "it gives {sum}"
        );
        Ok(start.elapsed())
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.0.close().await?;
        Ok(())
    }
}
