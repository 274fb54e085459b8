//! Functions of the host that a component gives streams and futures.

mod common;

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wakebox::{Builder, GivenStream, HostContext, Outcome};

use common::programs::{Kind, RUN_NEWER, STREAMS, hearing};
use common::{calling, sandbox};

const PROGRAM: Kind = Kind {
    wit: include_str!("components/takes/world.wit"),
    world: Some("program"),
    library: &[STREAMS, include_str!("components/takes/library.wat")],
    words: &[("STREAMS", "wakebox:test/takes"), ("FUNCTION", "sum")],
    function: RUN_NEWER,
    errors: &[],
};

/// As that, but a function that is called.
const CALLED: Kind = Kind {
    world: Some("called"),
    function: (
        r#"(export "go") (result i32) (local $d i32) (local $f i32)"#,
        "(i32.const 7)",
    ),
    ..PROGRAM
};

/// What gives the items of a stream, up to so many.
async fn taken<T: DeserializeOwned>(
    context: &HostContext,
    stream: GivenStream<T>,
    most: usize,
) -> Vec<T> {
    let mut stream = stream.open(context).await.unwrap();
    let mut items = Vec::new();
    while items.len() < most
        && let Some(item) = stream.next().await
    {
        items.push(item.unwrap());
    }
    items
}

fn functions(builder: Builder) -> Builder {
    builder
        .host_fn(
            "wakebox:test/takes.sum",
            async |context: HostContext, (numbers,): (GivenStream<u32>,)| {
                let numbers = taken(&context, numbers, usize::MAX).await;
                numbers.iter().sum::<u32>()
            },
        )
        .host_fn(
            "wakebox:test/takes.first",
            async |context: HostContext, (numbers, most): (GivenStream<u32>, u32)| {
                let numbers = taken(&context, numbers, most as usize).await;
                numbers.iter().sum::<u32>()
            },
        )
        .host_fn(
            "wakebox:test/takes.leave",
            async |_: HostContext, _: (GivenStream<u32>,)| (),
        )
        .host_fn(
            "wakebox:test/takes.items",
            async |_: HostContext, _: (GivenStream<Thing>,)| (),
        )
        .host_fn(
            "wakebox:test/takes.bytes",
            async |context: HostContext, (all,): (GivenStream<Vec<u8>>,)| {
                let parts = taken(&context, all, usize::MAX).await;
                let parts = parts.iter().map(|part| String::from_utf8_lossy(part));
                parts.collect::<Vec<_>>().join("|")
            },
        )
        .host_fn(
            "wakebox:test/takes.later",
            async |context: HostContext, (before, text): (String, GivenStream<String>)| {
                before + &taken(&context, text, usize::MAX).await.concat()
            },
        )
}

#[derive(Debug, PartialEq, Deserialize)]
enum State {
    Absent,
    Since(u64),
    Of(Vec<i16>),
}

#[derive(Debug, PartialEq, Deserialize)]
enum Size {
    Small,
    Large,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Thing {
    name: String,
    state: State,
    rights: (bool, bool, bool),
    pair: (f32, char),
    kind: Size,
    either: Result<u8, String>,
    perhaps: Option<bool>,
}

fn thing(name: &str, state: State, kind: Size) -> Thing {
    Thing {
        name: name.into(),
        state,
        rights: (true, false, true),
        pair: (-1.5, 'ß'),
        kind,
        either: Ok(9),
        perhaps: None,
    }
}

/// A sandbox of a component, what it says, and what it has to say of errors.
fn started(component: Vec<u8>) -> (Builder, Arc<Mutex<Vec<String>>>, wakebox::Captured) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let (numbers, texts) = (said.clone(), said.clone());
    let (builder, _, err) = sandbox(component);
    let builder = hearing(
        functions(builder),
        move |number| numbers.lock().unwrap().push(number.to_string()),
        move |text| texts.lock().unwrap().push(text),
    );
    (builder, said, err)
}

async fn said(program: &str) -> Vec<String> {
    let (builder, said, err) = started(PROGRAM.component(program));
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    let said = said.lock().unwrap();
    said.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_reads_what_a_component_writes_until_it_ends() {
    let program = "
        (local.set $d (call $stream))
        (local.set $f (call $sum (local.get $d) (i32.const 1040)))
        (call $say (call $give (i32.const 40)))
        (call $say (call $give (i32.const 2)))
        (call $end)
        (call $ended (local.get $f))
        (call $say (i32.load (i32.const 1040)))";
    assert_eq!(said(program).await, ["0", "0", "42"]);
    let bytes = "(call $say-bytes <hello>)";
    assert_eq!(said(bytes).await, ["hello|hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_go_on_at_once() {
    let program = "
        (local.set $d (call $sum (call $stream) (i32.const 1040)))
        (local.set $g (global.get $writer))
        (local.set $f (call $sum (call $stream) (i32.const 1044)))
        (drop (call $give (i32.const 5)))
        (call $end)
        (call $ended (local.get $f))
        (global.set $writer (local.get $g))
        (drop (call $give (i32.const 6)))
        (call $end)
        (call $ended (local.get $d))
        (call $say (i32.load (i32.const 1040)))
        (call $say (i32.load (i32.const 1044)))";
    assert_eq!(said(program).await, ["6", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_sees_that_the_host_has_left_and_was_not_far_ahead() {
    let program = "
        (local.set $f (call $first (call $stream) (i32.const 3) (i32.const 1040)))
        (call $say (call $give-all))
        (call $ended (local.get $f))
        (call $say (i32.load (i32.const 1040)))";
    let said = said(program).await;
    let written: u32 = said[0].parse().unwrap();
    assert!((4..200).contains(&written), "{written}");
    assert_eq!(said[1], "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_opens_is_dropped_when_the_function_returns() {
    let program = "
        (local.set $f (call $leave (call $stream)))
        (call $ended (local.get $f))
        (call $say (call $give (i32.const 1)))";
    assert_eq!(said(program).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_is_a_stream_of_one() {
    let program = "(call $say-later <before, > <and later>)";
    assert_eq!(said(program).await, ["before, and later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_called_gives_streams_too() {
    let program = "
        (local.set $f (call $sum (call $stream) (i32.const 1040)))
        (drop (call $give (i32.const 40)))
        (drop (call $give (i32.const 2)))
        (call $end)
        (call $ended (local.get $f))
        (call $say (i32.load (i32.const 1040)))";
    let (builder, said, err) = started(CALLED.component(program));
    let outcome = calling(builder, |caller| async move {
        assert_eq!(caller.call_json("go", "null").await.unwrap(), "7");
        // Nothing of it is left, and nothing of it was ever to be seen.
        let none = caller.call_json("[stream]1", "null").await.unwrap_err();
        assert!(none.to_string().contains("[stream]1"), "{none}");
        assert_eq!(caller.exports().await.unwrap(), ["go: () -> s32"]);
    })
    .await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    assert_eq!(*said.lock().unwrap(), ["42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_every_kind_go() {
    // The text, the state, what is in it, and what is the same of all.
    let mut program = String::new();
    for (at, text, state) in [
        (2000, "<one>", ""),
        (
            2056,
            "<two>",
            "(i64.store offset=16 (i32.const 2056) (i64.const 1843))",
        ),
        (
            2112,
            "<three>",
            "(i32.store (i32.const 2900) (i32.const 0xfffe0001)) \
             (i32.store offset=16 (i32.const 2112) (i32.const 2900)) \
             (i32.store offset=20 (i32.const 2112) (i32.const 2))",
        ),
    ] {
        let case = (at - 2000) / 56;
        program += &format!(
            "(call $put-text (i32.const {at}) {text})
             (i32.store8 offset=8 (i32.const {at}) (i32.const {case})) {state}
             (i32.store8 offset=24 (i32.const {at}) (i32.const 5))
             (f32.store offset=28 (i32.const {at}) (f32.const -1.5))
             (i32.store offset=32 (i32.const {at}) (i32.const 223))
             (i32.store8 offset=36 (i32.const {at}) (i32.const {}))
             (i32.store8 offset=44 (i32.const {at}) (i32.const 9))",
            u8::from(case == 1)
        );
    }
    program += "
        (i32.store8 offset=40 (i32.const 2112) (i32.const 1))
        (i32.store offset=44 (i32.const 2112) (i32.const 2112))
        (i32.store offset=48 (i32.const 2112) (i32.const 0))
        (i32.store offset=52 (i32.const 2112) (i32.const 0x101))
        (call $give-items (i32.const 2000) (i32.const 3))";
    let (builder, _, err) = started(PROGRAM.component(&program));
    let came = Arc::new(Mutex::new(Vec::new()));
    let comes = came.clone();
    let builder = builder.host_fn(
        "wakebox:test/takes.items",
        move |context: HostContext, (all,): (GivenStream<Thing>,)| {
            let comes = comes.clone();
            async move {
                let items = taken(&context, all, usize::MAX).await;
                comes.lock().unwrap().extend(items);
            }
        },
    );
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    let last = Thing {
        either: Err(String::new()),
        perhaps: Some(true),
        ..thing("three", State::Of(vec![1, -2]), Size::Small)
    };
    let expected = [
        thing("one", State::Absent, Size::Small),
        thing("two", State::Since(1843), Size::Large),
        last,
    ];
    assert_eq!(*came.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_another_type_are_an_error_of_the_host() {
    let program = "
        (local.set $f (call $sum (call $stream) (i32.const 1040)))
        (drop (call $give (i32.const 40)))
        (call $end)
        (call $ended (local.get $f))
        (call $say (i32.load (i32.const 1040)))";
    let (builder, said, _) = started(PROGRAM.component(program));
    let builder = builder.host_fn(
        "wakebox:test/takes.sum",
        async |context: HostContext, (numbers,): (GivenStream<String>,)| {
            let mut numbers = numbers.open(&context).await.unwrap();
            match numbers.next().await {
                Some(Err(error)) if error.to_string().contains("[stream]") => 1_u32,
                _ => 0,
            }
        },
    );
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(0));
    assert_eq!(*said.lock().unwrap(), ["1"]);
}
