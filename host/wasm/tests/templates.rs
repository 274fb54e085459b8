//! Components that start from a template: what they did before it was taken is done, and what must not be shared is
//! not.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wakebox::template::{Open, When};
use wakebox::{Builder, Captured, HostContext, Outcome, Output, Template};

use common::{end_of, sandbox};

/// Takes one when the component has been instantiated; gives it, and how the sandbox has ended of which it is.
async fn taken(builder: Builder) -> (Template, Outcome) {
    let mut sandbox = builder.build().unwrap();
    let taken = sandbox.handle().snapshot(When::GuestAsks, Open::Refuse);
    let (outcome, template) = tokio::join!(sandbox.run(), taken);
    (template.unwrap(), outcome.unwrap())
}

/// A component that asks the host for a number when it is instantiated, and ends with it.
const ASKS: &str = r#"(component
  (import "seed" (func $seed (result u32)))
  (core func $seed (canon lower (func $seed)))
  (core module $main
    (import "host" "seed" (func $seed (result i32)))
    (global $number (mut i32) (i32.const 0))
    (func $start (global.set $number (call $seed)))
    (start $start)
    (func (export "run") (result i32) (global.get $number)))
  (core instance $main (instantiate $main (with "host" (instance (export "seed" (func $seed))))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_does_when_it_is_instantiated_is_done_in_its_template() {
    let asked = Arc::new(AtomicU32::new(0));
    let seed = {
        let asked = asked.clone();
        move |_: HostContext, ()| {
            let number = 40 + asked.fetch_add(1, Ordering::Relaxed);
            async move { number }
        }
    };
    let (builder, ..) = sandbox(ASKS);
    let (template, outcome) = taken(builder.host_fn("seed", seed.clone())).await;
    assert_eq!(outcome, Outcome::Exit(40));
    for _ in 0..2 {
        let again = template.spawn().host_fn("seed", seed.clone());
        assert_eq!(end_of(again).await, Outcome::Exit(40));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// Draws before the template is taken, and again when it runs; ends with the second number.
const DRAWS: &str = r#"(component
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-u64" (func (result u64)))))
  (core func $draw (canon lower (func $random "get-random-u64")))
  (core module $main
    (import "host" "draw" (func $draw (result i64)))
    (func $start (drop (call $draw)))
    (start $start)
    (func (export "run") (result i32) (i32.wrap_i64 (call $draw))))
  (core instance $main (instantiate $main (with "host" (instance (export "draw" (func $draw))))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_that_starts_from_a_template_draws_its_own_numbers() {
    let (builder, ..) = sandbox(DRAWS);
    let (template, first) = taken(builder).await;
    let (second, third) = (
        end_of(template.spawn()).await,
        end_of(template.spawn()).await,
    );
    for pair in [(&first, &second), (&first, &third), (&second, &third)] {
        assert!(matches!(pair, (Outcome::Exit(one), Outcome::Exit(other)) if one != other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_starts_from_a_template_with_what_is_granted_to_it() {
    // Ends with the second letter of the first path that is preopened.
    let module = r#"(module
      (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
        (func $name (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (if (call $name (i32.const 3) (i32.const 0) (i32.const 2)) (then (call $exit (i32.const 99))))
        (call $exit (i32.load8_u (i32.const 1)))))"#;
    let folder = tempfile::tempdir().unwrap();
    let granting = |path: &str| {
        let grant = format!("{}:{path}:ro", folder.path().display());
        wakebox::Policy::new().allow_dir(grant.parse().unwrap())
    };
    let (builder, _, err) = sandbox(module);
    let (template, outcome) = taken(builder.policy(granting("/a"))).await;
    assert_eq!(outcome, Outcome::Exit(i32::from(b'a')), "{}", err.text());
    let other = template.spawn().policy(granting("/b"));
    assert_eq!(end_of(other).await, Outcome::Exit(i32::from(b'b')));
}

#[test]
fn the_command_takes_a_template_of_a_component_that_runs_as_the_component_does() {
    let folder = tempfile::tempdir().unwrap();
    let wakebox = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox");
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components/hello.wat");
    let template = folder.path().join("hello.template");
    let run = |args: &[&std::ffi::OsStr]| {
        let mut command = Command::new(&wakebox);
        let output = command.args(args).env("XDG_CACHE_HOME", folder.path());
        let output = output.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let file = template.as_os_str();
    run(&["snapshot".as_ref(), hello.as_ref(), "-o".as_ref(), file]);
    for _ in 0..2 {
        assert_eq!(run(&["run".as_ref(), file]), "hello from a component\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_says_what_the_component_says_to_whom_it_is_given() {
    let (builder, out, _) = sandbox(include_str!("components/hello.wat"));
    let (template, outcome) = taken(builder).await;
    assert_eq!(
        (outcome, &*out.text()),
        (Outcome::Exit(0), "hello from a component\n")
    );
    let own = Captured::new();
    let again = template.spawn().stdout(Output::Capture(own.clone()));
    assert_eq!(end_of(again).await, Outcome::Exit(0));
    assert_eq!(own.text(), out.text());
}
