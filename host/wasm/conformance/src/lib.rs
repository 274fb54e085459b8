//! Core modules in the runtime guest, driven one command at a time, so that what they do can be compared with what
//! the specification's tests say, or with what Wasmtime does on the host.

extern crate alloc;

pub mod bytes;
pub mod natively;
pub mod spec;
#[path = "../../../../guest/wasm/src/script/words.rs"]
mod words;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use wakebox::{Outcome, Sandbox};
use wakebox_wasm::Bounds;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentSectionId, RawSection,
};

use words::{Answer, Command, Value};

/// A component that exports these modules.
fn library(modules: &[Vec<u8>]) -> Vec<u8> {
    let mut component = Component::new();
    for module in modules {
        component.section(&RawSection {
            id: ComponentSectionId::CoreModule.into(),
            data: module,
        });
    }
    let mut exports = ComponentExportSection::new();
    for index in 0..modules.len() as u32 {
        let name = format!("module-{index}");
        exports.export(&name, ComponentExportKind::Module, index, None);
    }
    component.section(&exports);
    component.finish()
}

/// A guest that waits for commands.
struct Guest {
    commands: mpsc::Sender<Command>,
    answers: mpsc::Receiver<Answer>,
    running: JoinHandle<Outcome>,
}

impl Guest {
    /// With these modules, and so much memory.
    ///
    /// # Errors
    ///
    /// If one of them cannot be compiled.
    async fn start(modules: &[Vec<u8>], memory: u64, bounds: Bounds) -> Result<Self, String> {
        let image = wakebox_wasm::image_with(&library(modules), bounds);
        let image = image.map_err(|error| format!("{error:#}"))?;
        let (commands, wanted) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let wanted = Arc::new(Mutex::new(wanted));
        let next = async move |_, (answer,): (Answer,)| {
            let _ = answered.send(answer).await;
            let next = wanted.lock().await.recv().await;
            next.unwrap_or(Command::End)
        };
        let builder = Sandbox::builder()
            .guest(image)
            .memory(memory)
            .timeout(Duration::from_secs(120))
            .host_fn("script", move |context, answer| {
                let next = next.clone();
                async move { next(context, answer).await }
            });
        let mut sandbox = builder.build().map_err(|error| error.to_string())?;
        let running = tokio::spawn(async move {
            let ended = sandbox.run().await;
            ended.expect("the host runs it")
        });
        let mut guest = Self {
            commands,
            answers,
            running,
        };
        assert_eq!(guest.answer().await, Answer::Ready);
        Ok(guest)
    }

    async fn answer(&mut self) -> Answer {
        let answer = self.answers.recv().await;
        match answer {
            Some(answer) => answer,
            None => panic!("the guest ended: {:?}", (&mut self.running).await),
        }
    }

    async fn ask(&mut self, command: Command) -> Result<Vec<Value>, String> {
        let _ = self.commands.send(command).await;
        match self.answer().await {
            Answer::Done(values) => Ok(values),
            Answer::Failed(why) => Err(why),
            Answer::Ready => panic!("the guest began again"),
        }
    }

    /// Ends it.
    async fn end(self) {
        let _ = self.commands.send(Command::End).await;
        let outcome = self.running.await.expect("it does not panic");
        assert_eq!(outcome, Outcome::Exit(0));
    }
}
