//! Functions of an embedder that panic wherever they can, and call back. Without a message: each panic is
//! its function's part in the case.

use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};

use futures_util::stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wakebox::{Builder, Caller, HostContext};

/// What calls the guest, once it is built.
pub(super) type Slot = Arc<OnceLock<Caller>>;

fn panics() -> ! {
    resume_unwind(Box::new(()))
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panics();
        }
    }
}

/// Panics when it is read or written.
struct Bad;

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panics()
    }
}

impl Serialize for Bad {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panics()
    }
}

/// A result that panics when it is dropped, once it has been written.
#[derive(Serialize)]
struct Last {
    #[serde(skip)]
    _bomb: Bomb,
}

/// Gives the functions to a guest.
pub(super) fn functions(builder: Builder) -> Builder {
    builder
        .host_fn("bomb", async |_, (): ()| {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        })
        .host_fn("calls-back", async |ctx: HostContext, (): ()| {
            let _bomb = Bomb;
            let caller = ctx.state::<Slot>().get().cloned();
            let caller = caller.expect("the sandbox was built");
            // A guest that takes no calls never answers.
            caller.call::<u8, u8>("f", &7).await.is_ok()
        })
        .host_fn("panics-at-once", |_, (): ()| -> std::future::Ready<()> {
            panics()
        })
        .host_fn("panics-with-a-bomb", async |_, (): ()| -> () {
            resume_unwind(Box::new(Bomb))
        })
        .host_fn("reads-badly", async |_, _: Bad| ())
        .host_fn("writes-badly", async |_, (): ()| Bad)
        .host_fn("ends-badly", async |_, (): ()| Last { _bomb: Bomb })
        .host_stream("stream-panics", |_, (): ()| {
            stream::poll_fn(|_| -> std::task::Poll<Option<()>> { panics() })
        })
        .host_stream("stream-writes-badly", |_, (): ()| {
            stream::repeat_with(|| Bad)
        })
        .host_stream("stream-of-bombs", |_, (): ()| {
            let bomb = Bomb;
            stream::repeat_with(move || {
                let _ = &bomb;
                7_u8
            })
        })
}
