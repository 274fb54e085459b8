//! Functions of components that are called from outside: by a program, and by `wakebox call`.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use wakebox::{Caller, Outcome};

use common::values::{All, Kind, Rights, Shape};
use common::{calling, sandbox};

const CALLED: &str = include_str!("components/called.wat");

/// Calls a component, and gives how it has ended and what it has said.
async fn called<F: Future<Output = ()>>(call: impl FnOnce(Caller) -> F) -> (Outcome, String) {
    let (builder, _, err) = sandbox(CALLED);
    (calling(builder, call).await, err.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_calls_a_component_with_types_of_rust() {
    let end = called(|caller| async move {
        assert_eq!(
            caller
                .call::<_, u32>("add", &(40_u32, 2_u32))
                .await
                .unwrap(),
            42
        );
        let same = caller.call::<_, String>("my:app/texts.same", "grüße").await;
        assert_eq!(same.unwrap(), "grüße");
        assert_eq!(caller.call::<_, u32>("later", &21_u32).await.unwrap(), 42);
        let all = All {
            list: vec![(1, -2), (3, 4)],
            text: Some("text".into()),
            result: Err(1.5),
            done: Ok(()),
            shapes: vec![Shape::None, Shape::Circle(2.5), Shape::Named("x".into())],
            kind: Kind::Large,
            rights: Rights {
                read: true,
                write: false,
                run: true,
            },
            numbers: (1, -2, 3, -4, 5, -6, u64::MAX, 0.5, true),
        };
        assert_eq!(caller.call::<_, All>("same", &all).await.unwrap(), all);
        let wrong = caller
            .call::<_, u32>("add", &(1_u32, "2"))
            .await
            .unwrap_err();
        assert!(
            wrong.to_string().contains("(a: u32, b: u32) -> u32"),
            "{wrong}"
        );
        let none = caller
            .call::<_, u32>("sub", &(1_u32, 2_u32))
            .await
            .unwrap_err();
        assert!(none.to_string().contains("sub"), "{none}");
    })
    .await;
    assert_eq!(end, (Outcome::Exit(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_come_at_once_have_their_turns_in_one_instance() {
    let end = called(|caller| async move {
        let call = || async { caller.call::<_, u32>("count", &()).await.unwrap() };
        let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
        let mut counts = [a, b, c, d];
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 3, 4]);
    })
    .await;
    assert_eq!(end, (Outcome::Exit(0), String::new()));
}

/// A value of every kind, as it goes and as it comes.
const ALL: &str = r#"{"list":[[1,-2],[3,4]],"text":"text","result":{"err":1.5},"done":{"ok":null},"shapes":["none",{"circle":2.5},{"named":"x"}],"kind":"large","rights":["read","run"],"numbers":[1,-2,3,-4,5,-6,18446744073709551615,0.5,true]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn values_are_json_in_both_directions() {
    let end = called(|caller| async move {
        let json = async |name: &str, input: &str| caller.call_json(name, input).await.unwrap();
        assert_eq!(json("add", "[40, 2]").await, "42");
        assert_eq!(json("count", "null").await, "1");
        assert_eq!(json("my:app/texts.same", r#""a\nb""#).await, r#""a\nb""#);
        assert_eq!(json("later", "4").await, "8");
        assert_eq!(json("same", ALL).await, ALL);
        // What is optional may be absent.
        let without = ALL.replace(r#""text":"text","#, "");
        assert_eq!(
            json("same", &without).await,
            ALL.replace(r#""text":"text""#, r#""text":null"#)
        );
        let exports = caller.exports().await.unwrap();
        assert_eq!(exports[0], "add: (a: u32, b: u32) -> u32");
        assert_eq!(exports.len(), 6, "{exports:?}");
        assert!(exports.contains(&"my:app/texts.same: (text: string) -> string".into()));
        assert!(exports.contains(&"trap: ()".into()));
    })
    .await;
    assert_eq!(end, (Outcome::Exit(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_named() {
    let end = called(|caller| async move {
        let wrong = async |name: &str, input: &str| {
            let error = caller.call_json(name, input).await.unwrap_err();
            error.to_string()
        };
        let same = |from: &str, to: &str| ALL.replace(from, to);
        let cases = [
            (
                "add",
                "[1, \"2\"]".to_owned(),
                "`b`: invalid type: string \"2\", expected u32",
            ),
            ("add", "[1]".into(), "there is no `b`: u32"),
            ("add", "[1, 2, 3]".into(), "trailing"),
            ("add", "1".into(), "expected a list of 2 arguments"),
            ("add", "[1, -2]".into(), "expected u32"),
            (
                "same",
                same("circle", "square"),
                "no case `square` in variant { none, circle(f64), named(string) }",
            ),
            (
                "same",
                same("large", "huge"),
                "no case `huge` in enum { small, large }",
            ),
            (
                "same",
                same("\"run\"", "\"fly\""),
                "no flag `fly` in flags { read, write, run }",
            ),
            (
                "same",
                same("\"done\"", "\"gone\""),
                "no field `gone` in record { list: ",
            ),
            (
                "same",
                same("\"kind\":\"large\",", ""),
                "no field `kind`, which is in record { ",
            ),
            (
                "same",
                same("{\"circle\":2.5}", "\"circle\""),
                "`circle` wants a value: f64",
            ),
            (
                "same",
                "7".into(),
                "expected record { list: list<tuple<u8, s16>>, ",
            ),
        ];
        for (name, input, expected) in cases {
            let said = wrong(name, &input).await;
            assert!(said.contains(expected), "{input}: {said}");
        }
    })
    .await;
    assert_eq!(end, (Outcome::Exit(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_traps_ends_the_component_and_says_which() {
    let (outcome, said) = called(|caller| async move {
        caller.call_json("trap", "null").await.unwrap_err();
    })
    .await;
    assert_eq!(outcome, Outcome::Exit(1));
    assert!(
        said.starts_with("error: trap: ") && said.contains("unreachable"),
        "{said}"
    );
}

#[test]
fn the_command_calls() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wat");
    std::fs::write(&app, CALLED).unwrap();
    let wakebox = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox");
    let call = |args: &[&str]| -> Output {
        let mut command = Command::new(&wakebox);
        command.arg("call").arg(&app).args(args);
        command
            .env("XDG_CACHE_HOME", folder.path())
            .output()
            .unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let output = call(&["add", "[40, 2]"]);
    assert_eq!(
        text(output.stdout).trim_end(),
        "42",
        "{}",
        text(output.stderr)
    );
    assert!(text(call(&[]).stdout).starts_with("add: (a: u32, b: u32) -> u32\n"));
    let output = call(&["add", "[40, true]"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(output.stderr);
    assert!(
        said.contains("`b`: ") && said.contains("expected u32"),
        "{said}"
    );
}
