//! Components in sandboxes: what is awaited at once, what WASI gives, and what must be refused.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::values::{All, Kind, Rights, Shape};
use tokio::sync::Barrier;
use wakebox::trace::{Event, EventKind, PollResult, Recording};
use wakebox::{HostContext, Input, Outcome};

use common::{end_of, sandbox};

const HELLO: &str = include_str!("components/hello.wat");
const MANY: &str = include_str!("components/many.wat");
const CARRIES: &str = include_str!("components/carries.wat");
const TALKS: &str = include_str!("components/talks.wat");
const WAITS: &str = include_str!("components/waits.wat");

async fn run(component: &str) -> (Outcome, String, String) {
    let (builder, out, err) = sandbox(component);
    let outcome = end_of(builder).await;
    (outcome, out.text(), err.text())
}

/// A component whose `run` is this core function, in a module with what else it wants.
fn core(module: &str) -> String {
    format!(
        r#"(component (core module $m {module}) (core instance $m (instantiate $m))
          (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_writes_to_standard_output() {
    let (outcome, out, err) = run(HELLO).await;
    assert_eq!(
        (outcome, &*out, &*err),
        (Outcome::Exit(0), "hello from a component\n", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_has_arguments_an_environment_and_input_and_may_exit_from_anywhere() {
    // More than one read of the component's, or of the runtime's, takes.
    let input = "line\n".repeat(10_000);
    let (builder, out, err) = sandbox(TALKS);
    let builder = builder
        .args(["one", "and two"])
        .env("KEY", "value")
        .stdin(Input::bytes(input.clone()));
    let outcome = end_of(builder).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(1), ""));
    let said = "app\none\nand two\nKEY\nvalue\n".to_owned() + &input;
    assert!(out.text() == said, "{:.200}", out.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_calls_of_a_component_are_in_flight_at_once() {
    // No call returns before all have come: fewer in flight would wait for ever.
    let all = Arc::new(Barrier::new(100));
    let (builder, _, err) = sandbox(MANY);
    let get = move |_: HostContext, key: (u32,)| {
        let all = all.clone();
        async move {
            all.wait().await;
            2 * key.0
        }
    };
    let outcome = end_of(builder.host_fn("my:app/kv.get", get)).await;
    assert_eq!(outcome, Outcome::Exit(9900), "{}", err.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_names_the_program_and_each_call_of_an_import() {
    let recording = Recording::new();
    let (builder, _, err) = sandbox(MANY);
    let get = |_: HostContext, key: (u32,)| async move { 2 * key.0 };
    let builder = builder.host_fn("my:app/kv.get", get);
    let outcome = end_of(builder.trace_records(1 << 16).trace(recording.clone())).await;
    assert_eq!(outcome, Outcome::Exit(9900), "{}", err.text());
    let events = recording.events();
    let named = |wanted: &str| {
        let tasks = events.iter().filter_map(|event| match &event.kind {
            EventKind::Spawned { task, name, .. } if **name == *wanted => Some(*task),
            _ => None,
        });
        tasks.collect::<Vec<_>>()
    };
    assert_eq!(named("run").len(), 1);
    let calls = named("my:app/kv.get");
    assert_eq!(calls.len(), 100);
    // Each has asked the host, by itself, and came to its end.
    for call in calls {
        let of_it = |event: &&Event| match &event.kind {
            EventKind::Submitted { by, .. } => *by == Some(call),
            EventKind::PollEnd { task, result } => (*task, *result) == (call, PollResult::Ready),
            _ => false,
        };
        assert_eq!(events.iter().filter(of_it).count(), 2, "{call:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_kind_travel_both_ways() {
    let all = All {
        list: vec![(1, -2), (255, i16::MIN)],
        text: Some("grüße".into()),
        result: Ok('ß'),
        done: Err(()),
        shapes: vec![
            Shape::None,
            Shape::Circle(0.5),
            Shape::Named("square".into()),
        ],
        kind: Kind::Large,
        rights: Rights {
            read: true,
            write: false,
            run: true,
        },
        numbers: (
            255,
            -128,
            65535,
            i32::MIN,
            u32::MAX,
            i64::MIN,
            u64::MAX,
            -0.25,
            true,
        ),
    };
    let other = All {
        list: vec![],
        text: None,
        result: Err(-1.5),
        done: Ok(()),
        kind: Kind::Small,
        rights: Rights {
            read: false,
            write: true,
            run: false,
        },
        ..all.clone()
    };
    for all in [all, other] {
        let (builder, _, err) = sandbox(CARRIES);
        let made = all.clone();
        let builder = builder
            .host_fn("my:app/carry.make", move |_: HostContext, ()| {
                std::future::ready(made.clone())
            })
            .host_fn("my:app/carry.check", move |_: HostContext, got: (All,)| {
                std::future::ready(got.0 == all)
            });
        let outcome = end_of(builder).await;
        assert_eq!(outcome, Outcome::Exit(1), "{}", err.text());
        assert_eq!(err.text(), "");
    }
}

/// The command `wakebox`, which `cargo build --package wakebox-cli` puts beside the compiler.
fn wakebox() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox")
}

#[test]
fn the_command_runs_a_component() {
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components/hello.wat");
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(wakebox())
        .args(["run", hello])
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!((&*out, &*err), ("hello from a component\n", ""));
}

#[test]
fn without_the_compiler_the_command_says_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, app) = (folder.path().join("wakebox"), folder.path().join("app.wat"));
    std::fs::copy(wakebox(), &alone).unwrap();
    std::fs::write(&app, "(component)").unwrap();
    let output = Command::new(alone)
        .arg("run")
        .arg(app)
        .env("PATH", "")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(err.contains("cargo install --path host/wasm"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sleeps_of_a_component_are_in_flight_at_once() {
    let (builder, _, err) = sandbox(include_str!("components/sleeps.wat"));
    let mut sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    let outcome = sandbox.run().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(1000), "{}", err.text());
    // One after another, each would be a park.
    let stats = handle.stats();
    assert!(stats.exits.total() < 500, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_wasi_0_3_runs_and_exits() {
    let program = include_str!("components/newer.wat");
    let (outcome, _, err) = run(program).await;
    assert_eq!(outcome, Outcome::Exit(7), "{err}");
    let failing = program.replace("(call $exit (i32.const 7))", "(nop)");
    let (outcome, _, err) = run(&failing).await;
    assert_eq!(outcome, Outcome::Exit(1), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_ten_timers_does_not_spin() {
    let (builder, _, err) = sandbox(WAITS);
    let mut sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    let outcome = sandbox.run().await.unwrap();
    // The index of the one that is due first.
    assert_eq!(outcome, Outcome::Exit(7), "{}", err.text());
    // Who looks again and again whether a timer is due leaves the guest, or asks the host, each time.
    let stats = handle.stats();
    assert!(stats.exits.total() < 20, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_nobody_provides_are_listed() {
    let (outcome, _, err) = run(MANY).await;
    assert_eq!(outcome, Outcome::Exit(1));
    assert!(
        err.contains("my:app/kv.get: the host has no function of this name"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_function_of_other_types_ends_the_component_with_both() {
    let (builder, _, err) = sandbox(MANY);
    let get = |_: HostContext, _: String| async { 7_u64 };
    let outcome = end_of(builder.host_fn("my:app/kv.get", get)).await;
    assert_eq!(outcome, Outcome::Exit(1));
    assert!(
        err.text().contains("call `my:app/kv.get`, which is"),
        "{}",
        err.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_run_is_the_exit_code() {
    let (outcome, ..) = run(&core(
        r#"(func (export "run") (result i32) (i32.const 42))"#,
    ))
    .await;
    assert_eq!(outcome, Outcome::Exit(42));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_ends_the_component_and_says_which() {
    let traps = [
        (
            r#"(func (export "run") (result i32) unreachable)"#,
            "unreachable",
        ),
        (
            r#"(func (export "run") (result i32) (call 0))"#,
            "call stack exhausted",
        ),
        (
            r#"(memory 1) (func (export "run") (result i32) (i32.load (i32.const 65536)))"#,
            "out of bounds",
        ),
        (
            r#"(func (export "run") (result i32) (i32.div_u (i32.const 1) (i32.const 0)))"#,
            "divide by zero",
        ),
    ];
    for (module, says) in traps {
        let (outcome, _, err) = run(&core(module)).await;
        assert_eq!(outcome, Outcome::Exit(1), "{module}");
        assert!(err.contains(says), "{module}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_larger_than_the_sandbox_is_refused() {
    let (outcome, _, err) = run(&core(
        r#"(memory 65536) (func (export "run") (result i32) (i32.const 0))"#,
    ))
    .await;
    assert_eq!(outcome, Outcome::Exit(1), "{err}");
    let grow = r#"(memory 1) (func (export "run") (result i32) (memory.grow (i32.const 60000)))"#;
    let (outcome, _, err) = run(&core(grow)).await;
    assert_eq!(outcome, Outcome::Exit(-1), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_function_without_end_reaches_the_limit_of_time() {
    let endless = core(
        r#"(func $f (loop (br 0))) (start $f) (func (export "run") (result i32) (i32.const 0))"#,
    );
    let (builder, ..) = sandbox(&endless);
    let outcome = end_of(builder.timeout(Duration::from_millis(300))).await;
    assert!(matches!(outcome, Outcome::Limit(_)), "{outcome}");
}

#[test]
fn what_is_no_component_is_refused() {
    let refused = |bytes: &[u8]| format!("{:#}", wakebox_wasm::image(bytes).unwrap_err());
    assert!(refused(b"\x7fELF").contains("neither WebAssembly nor its text"));
    assert!(refused(b"\0asm").contains("shorter"));
    assert!(refused(b"(module (func $no))(").contains("neither"));
    assert!(refused(b"\0asm\x01\0\0\0\x01").contains("the module is not valid"));
    assert!(refused(b"\0asm\x0e\0\x01\0").contains("not known"));
    assert!(refused(b"(component (func $nothing (export").contains("neither"));
    let whole = wat_binary(HELLO);
    for len in [9, whole.len() / 2, whole.len() - 1] {
        assert!(refused(&whole[..len]).contains("not valid"), "{len}");
    }
}

fn wat_binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
