//! Images whose code is mapped from their file.

mod common;

use std::fs::{self, File};

use wakebox::template::{Open, When};
use wakebox::{Builder, Image, Policy, Running, Sandbox};

/// Bytes of data: more than is copied.
const DATA: usize = 3 << 20;

/// A component with much data. `count` counts its calls, `look` gives what lies at an address, `put` writes there.
fn component() -> String {
    let data = "waken up".repeat(DATA / 8);
    format!(
        r#"(component
          (core module $main
            (memory 64)
            (data (i32.const 65536) "{data}")
            (global $count (mut i32) (i32.const 0))
            (func (export "count") (result i32)
              (global.set $count (i32.add (global.get $count) (i32.const 1)))
              (global.get $count))
            (func (export "look") (param i32) (result i32) (i32.load8_u (local.get 0)))
            (func (export "put") (param i32 i32) (i32.store8 (local.get 0) (local.get 1))))
          (core instance $main (instantiate $main))
          (func (export "count") (result u32) (canon lift (core func $main "count")))
          (func (export "look") (param "at" u32) (result u32) (canon lift (core func $main "look")))
          (func (export "put") (param "at" u32) (param "value" u32)
            (canon lift (core func $main "put"))))"#
    )
}

fn builder(guest: impl Into<wakebox::Guest>) -> Builder {
    let builder = Sandbox::builder().guest(guest);
    builder.memory(64 << 20).policy(Policy::new())
}

fn start(builder: Builder) -> Running {
    builder.build().unwrap().start()
}

async fn look(running: &Running, at: usize) -> u8 {
    let at = u32::try_from(at).unwrap();
    running.call::<_, u32>("look", &at).await.unwrap() as u8
}

/// That all data are there.
async fn check(running: &Running) {
    for at in (0..DATA).step_by(4095) {
        assert_eq!(look(running, 65536 + at).await, b"waken up"[at % 8], "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_of_a_mapped_image_have_its_bytes_and_their_own_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.wbx");
    let bytes = wakebox_wasm::image(component().as_bytes()).unwrap();
    fs::write(&path, &bytes).unwrap();
    let image = Image::mapped(File::open(&path).unwrap(), &path).unwrap();
    assert_eq!(image.file_len(), bytes.len());
    // The file has another place, and a new one takes its own.
    fs::rename(&path, folder.path().join("old.wbx")).unwrap();
    fs::write(&path, b"no guest").unwrap();
    let (one, two) = (start(builder(&image)), start(builder(&image)));
    let put = one.call::<_, ()>("put", &(65536_u32, 0_u32)).await;
    put.unwrap();
    assert_eq!(
        (look(&one, 65536).await, look(&two, 65536).await),
        (0, b'w')
    );
    check(&two).await;
    // A machine that has had one has the next.
    one.close().await.unwrap();
    two.close().await.unwrap();
    check(&start(builder(&image))).await;
    check(&start(builder(bytes))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_a_mapped_image_is_whole_without_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.wbx");
    fs::write(&path, wakebox_wasm::image(component().as_bytes()).unwrap()).unwrap();
    let image = Image::mapped(File::open(&path).unwrap(), &path).unwrap();
    let running = start(builder(&image));
    assert_eq!(running.call::<_, u32>("count", &()).await.unwrap(), 1);
    let template = running.handle().snapshot(When::Parked, Open::Refuse);
    let template = template.await.unwrap();
    running.close().await.unwrap();
    drop((folder, image));
    let (one, two) = (start(template.spawn()), start(template.spawn()));
    for running in [&one, &two] {
        assert_eq!(running.call::<_, u32>("count", &()).await.unwrap(), 2);
        check(running).await;
    }
}
