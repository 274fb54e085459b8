//! Standard streams as components of WASI 0.3 see them.

mod common;

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use wakebox::{Input, Outcome};

use common::programs::{Kind, RUN_NEWER, STREAMS, hearing};
use common::sandbox;

const CLI: Kind = Kind {
    wit: include_str!("components/cli/world.wit"),
    world: Some("cli"),
    library: &[STREAMS, include_str!("components/cli/library.wat")],
    words: &[
        ("STREAMS", "wasi:cli/stdin@0.3.0"),
        ("FUNCTION", "read-via-stream"),
    ],
    function: RUN_NEWER,
    errors: &[],
};

/// What a program says, and what it writes.
async fn run(input: Input, program: &str) -> (Vec<i32>, String, String) {
    run_with(input, program, |_| ()).await
}

/// As that; `hears` is told of each number, before the program goes on.
async fn run_with(
    input: Input,
    program: &str,
    hears: impl Fn(i32) + Send + Sync + 'static,
) -> (Vec<i32>, String, String) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let numbers = said.clone();
    let (builder, out, err) = sandbox(CLI.component(program));
    let builder = hearing(
        builder.stdin(input),
        move |number| {
            numbers.lock().unwrap().push(number);
            hears(number);
        },
        drop,
    );
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(0), "{}", err.text());
    let said = said.lock().unwrap().clone();
    (said, out.text(), err.text())
}

/// More than what is read or written at once.
fn much() -> String {
    (0..30_000).map(|line| format!("line {line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn input_comes_in_a_stream_and_goes_out_in_another() {
    let much = much();
    let (said, out, err) = run(Input::bytes(much.clone()), "(call $echo)").await;
    assert_eq!((said, &*err), (vec![0, 0], ""));
    assert!(out == much, "{out:.200}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_ours_may_be_given_back_to_us() {
    let much = much();
    let (said, out, err) = run(Input::bytes(much.clone()), "(call $pipe)").await;
    assert_eq!((said, &*err), (vec![0, 0], ""));
    assert!(out == much, "{out:.200}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_standard_error_is_there_when_its_future_says_so() {
    let (said, out, err) = run(Input::Null, "(call $complain <so it is>)").await;
    assert_eq!((said, &*out, &*err), (vec![8, 0], "", "so it is"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_given_up_gives_nothing_and_loses_nothing() {
    // Nothing comes before the component has given up.
    let (ours, theirs) = tokio::io::duplex(100);
    let ours = Mutex::new(Some(ours));
    let program = "(call $give-up) (call $say (i32.const 100)) (call $echo)";
    let (said, out, _) = run_with(Input::reader(theirs), program, move |number| {
        if number == 100
            && let Some(mut ours) = ours.lock().unwrap().take()
        {
            tokio::spawn(async move { ours.write_all(b"late").await.unwrap() });
        }
    })
    .await;
    // It would have had to wait; it was cancelled; all went well.
    assert_eq!((said, &*out), (vec![-1, 2, 0, 100, 0, 0], "late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_of_another_type_than_its_interface_has_ends_the_component() {
    let wit = CLI
        .wit
        .replace("future<result<_, error-code>>", "future<list<u32>>");
    let other = Kind {
        wit: wit.leak(),
        ..CLI
    };
    let (builder, out, err) = sandbox(other.component("(call $pipe)"));
    let builder = hearing(builder.stdin(Input::bytes("text")), |_| (), drop);
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(1));
    assert_eq!(out.text(), "text");
    let err = err.text();
    assert!(
        err.contains("of another type than its interface has"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_programs_the_newer_one_runs() {
    let twice = Kind {
        world: Some("twice"),
        library: &[
            STREAMS,
            include_str!("components/cli/library.wat"),
            r#"(func (export "wasi:cli/run@0.2.0#run") (result i32) unreachable)"#,
        ],
        ..CLI
    };
    let (builder, _, err) = sandbox(twice.component(""));
    let builder = hearing(builder, |_| (), drop);
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}
