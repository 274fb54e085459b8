//! What the tests of components and of core modules have in common.
#![allow(dead_code, reason = "each program of tests takes what it needs")]

pub mod peers;
pub mod programs;
pub mod serving;
pub mod values;

use std::time::Duration;

use wakebox::{Builder, Caller, Captured, Outcome, Output, Sandbox};
use wakebox_wasm::Bounds;

/// Tests of both versions of WASI, for `OLDER` and `NEWER`.
#[allow(unused_macros, reason = "each program of tests takes what it needs")]
macro_rules! both {
    ($($test:ident)*) => {
        mod of_0_2 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(&super::OLDER).await;
            })*
        }

        mod of_0_3 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(&super::NEWER).await;
            })*
        }
    };
}

/// Who sees to bounds in this run: `WAKEBOX_BOUNDS=pages` has pages do it.
pub fn bounds() -> Bounds {
    match std::env::var("WAKEBOX_BOUNDS").as_deref() {
        Ok("pages") => Bounds::Pages,
        Ok("code") => Bounds::Code,
        Ok(other) => panic!("WAKEBOX_BOUNDS={other}: it is `code` or `pages`"),
        Err(_) => Bounds::default(),
    }
}

/// A sandbox of a component or a core module, with 64 MiB, and what it says.
pub fn sandbox(component: impl AsRef<[u8]>) -> (Builder, Captured, Captured) {
    let image = wakebox_wasm::image_with(component.as_ref(), bounds()).unwrap();
    let (out, err) = (Captured::new(), Captured::new());
    let builder = Sandbox::builder()
        .guest(image)
        .memory(64 << 20)
        .timeout(Duration::from_secs(60))
        .stdout(Output::Capture(out.clone()))
        .stderr(Output::Capture(err.clone()));
    (builder, out, err)
}

pub async fn end_of(builder: Builder) -> Outcome {
    builder.build().unwrap().run().await.unwrap()
}

/// How a sandbox ends whose functions are called, and then no more.
pub async fn calling<F: Future<Output = ()>>(
    builder: Builder,
    call: impl FnOnce(Caller) -> F,
) -> Outcome {
    let mut sandbox = builder.build().unwrap();
    let caller = sandbox.handle().caller().clone();
    let calls = async {
        call(caller.clone()).await;
        caller.close();
    };
    let (outcome, ()) = tokio::join!(sandbox.run(), calls);
    outcome.unwrap()
}

/// The instructions of a program, and the data of its texts, from address 4096 on. `<text>` in a program is a text:
/// where it lies, and its length.
pub fn with_texts(program: &str) -> (String, String) {
    let (mut body, mut data) = (String::new(), String::new());
    let mut at = 4096;
    for (index, part) in program.split(['<', '>']).enumerate() {
        if index % 2 == 0 {
            body += part;
        } else {
            body += &format!("(i32.const {at}) (i32.const {})", part.len());
            data += &format!("(data (i32.const {at}) \"{part}\")");
            at += part.len();
        }
    }
    (body, data)
}

#[allow(unused_imports, reason = "each program of tests takes what it needs")]
pub(crate) use both;
