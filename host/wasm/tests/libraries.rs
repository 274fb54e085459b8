//! Core modules without a program: their functions are called.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use wakebox::template::{Open, When};
use wakebox::{Builder, Caller, Outcome, Policy};

use common::{calling, sandbox};

const LIBRARY: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
    (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $count (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $count (i32.const 100)))
  (func (export "count") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1)))
  (func (export "half") (param f64) (result f64)
    (f64.div (local.get 0) (f64.const 2)))
  (func (export "all") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
    (local.get 3) (local.get 2) (local.get 1) (local.get 0))
  (func (export "nothing"))
  (func (export "refer") (param funcref))
  (func (export "draw") (result i64)
    (drop (call $random (i32.const 8) (i32.const 8))) (i64.load (i32.const 8)))
  (func (export "granted") (result i32)
    (if (call $name (i32.const 3) (i32.const 0) (i32.const 2)) (then (return (i32.const -1))))
    (i32.load8_u (i32.const 1)))
  (func (export "trap") unreachable))"#;

async fn json(caller: &Caller, name: &str, input: &str) -> String {
    match caller.call_json(name, input).await {
        Ok(answer) => answer,
        Err(error) => error.to_string(),
    }
}

/// Ends well.
async fn called<F: Future<Output = ()>>(call: impl FnOnce(Caller) -> F) {
    let (builder, _, err) = sandbox(LIBRARY);
    let outcome = calling(builder, call).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_those_of_rust() {
    called(|caller| async move {
        let sum = caller.call::<_, i32>("add", &(40_i32, 2_i32)).await;
        assert_eq!(sum.unwrap(), 42);
        let all = (-1_i32, i64::MIN, 0.5_f32, -0.25_f64);
        let back = caller.call::<_, (f64, f32, i64, i32)>("all", &all).await;
        assert_eq!(back.unwrap(), (-0.25, 0.5, i64::MIN, -1));
        caller.call::<_, ()>("nothing", &()).await.unwrap();
        let wrong = caller.call::<_, i32>("add", &(40_u32, 2_u32)).await;
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("(i32, i32) -> i32"), "{wrong}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_json_in_both_directions() {
    called(|caller| async move {
        assert_eq!(json(&caller, "add", "[2147483647, 1]").await, "-2147483648");
        assert_eq!(json(&caller, "half", "5").await, "2.5");
        let all = json(&caller, "all", "[7, -8, 0.5, 1e300]").await;
        assert_eq!(all, "[1e+300,0.5,-8,7]");
        assert_eq!(json(&caller, "nothing", "null").await, "null");
        let exports = caller.exports().await.unwrap();
        assert_eq!(
            exports,
            [
                "add: (i32, i32) -> i32",
                "all: (i32, i64, f32, f64) -> (f64, f32, i64, i32)",
                "count: () -> i32",
                "draw: () -> i64",
                "granted: () -> i32",
                "half: (f64) -> f64",
                "nothing: ()",
                "trap: ()"
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_named() {
    called(|caller| async move {
        let cases = [
            (
                "add",
                "[1, \"2\"]",
                "`1`: invalid type: string \"2\", expected i32",
            ),
            ("add", "[1]", "there is no `1`"),
            ("add", "[1, 2, 3]", "trailing"),
            ("add", "1", "expected a list of 2 arguments"),
            ("add", "[1, 2147483648]", "expected i32"),
            ("half", "true", "expected f64"),
            ("refer", "null", "refer"),
        ];
        for (name, input, expected) in cases {
            let said = json(&caller, name, input).await;
            assert!(said.contains(expected), "{input}: {said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_initializes_is_done_once_and_all_calls_are_for_one_instance() {
    called(|caller| async move {
        let call = || json(&caller, "count", "null");
        let (a, b, c) = tokio::join!(call(), call(), call());
        let mut counts = [a, b, c];
        counts.sort_unstable();
        assert_eq!(counts, ["101", "102", "103"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_traps_ends_the_module_and_says_which() {
    let (builder, _, err) = sandbox(LIBRARY);
    let outcome = calling(builder, |caller| async move {
        caller.call_json("trap", "null").await.unwrap_err();
    })
    .await;
    assert_eq!(outcome, Outcome::Exit(1));
    let said = err.text();
    assert!(
        said.starts_with("error: trap: ") && said.contains("unreachable"),
        "{said}"
    );
}

/// What a library that is started says of itself.
async fn said(builder: Builder, asks: &'static [&'static str]) -> Vec<String> {
    let (send, said) = tokio::sync::oneshot::channel();
    let outcome = calling(builder, |caller| async move {
        let mut answers = Vec::new();
        for name in asks {
            answers.push(json(&caller, name, "null").await);
        }
        send.send(answers).unwrap();
    })
    .await;
    assert_eq!(outcome, Outcome::Exit(0));
    said.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_starts_from_a_template_with_what_is_granted_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let granting = |path: &str| {
        let grant = format!("{}:{path}:ro", folder.path().display());
        Policy::new().allow_dir(grant.parse().unwrap())
    };
    let (builder, ..) = sandbox(LIBRARY);
    let mut sandbox = builder.policy(granting("/a")).build().unwrap();
    let handle = sandbox.handle();
    let asked = handle.snapshot(When::GuestAsks, Open::Refuse);
    let first = handle.caller().clone();
    let calls = async {
        // No call is open when it is taken.
        let template = asked.await.unwrap();
        let answers = [
            json(&first, "count", "null").await,
            json(&first, "granted", "null").await,
        ];
        let drawn = json(&first, "draw", "null").await;
        first.close();
        (template, answers, drawn)
    };
    let (outcome, (template, answers, drawn)) = tokio::join!(sandbox.run(), calls);
    assert_eq!(outcome.unwrap(), Outcome::Exit(0));
    assert_eq!(answers, ["101", "97"]);
    for _ in 0..2 {
        let again = template.spawn().policy(granting("/b"));
        let answers = said(again, &["count", "granted", "draw"]).await;
        assert_eq!(answers[..2], ["101", "98"]);
        assert_ne!(answers[2], drawn);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_called_is_said() {
    for (module, says) in [
        (
            r#"(module (memory (export "memory") 1) (func (export "f") (param funcref)))"#,
            r#"neither a function `_start`, nor one of numbers that could be called, but ["memory", "f"]"#,
        ),
        (
            r#"(module (func (export "_initialize") unreachable) (func (export "f")))"#,
            "unreachable",
        ),
    ] {
        let (builder, _, err) = sandbox(module);
        assert_eq!(common::end_of(builder).await, Outcome::Exit(1), "{module}");
        assert!(err.text().contains(says), "{module}: {}", err.text());
    }
}

#[test]
fn the_command_calls_and_takes_templates() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("lib.wat");
    std::fs::write(&app, LIBRARY).unwrap();
    let wakebox = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox");
    let command = |args: &[&str]| -> Output {
        let mut command = Command::new(&wakebox);
        let command = command.args(args).current_dir(folder.path());
        command
            .env("XDG_CACHE_HOME", folder.path())
            .output()
            .unwrap()
    };
    let text = |output: Output| {
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(text(command(&["call", "lib.wat", "add", "[40, 2]"])), "42");
    assert!(text(command(&["call", "lib.wat"])).starts_with("add: (i32, i32) -> i32\n"));
    let output = command(&["call", "lib.wat", "add", "[40, true]"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("`1`: ") && said.contains("expected i32"),
        "{said}"
    );
    let take = [
        "snapshot",
        "lib.wat",
        "--at",
        "call:count",
        "-o",
        "lib.template",
    ];
    text(command(&take));
    for _ in 0..2 {
        assert_eq!(text(command(&["call", "lib.template", "count"])), "102");
    }
}
