//! Functions of the host that give a component streams and futures.

mod common;

use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::{Barrier, oneshot};
use wakebox::{Builder, HostContext, Outcome};

use common::programs::{Kind, RUN_NEWER, STREAMS, hearing};
use common::sandbox;

const FEEDS: Kind = Kind {
    wit: include_str!("components/feeds/world.wit"),
    world: Some("feeds"),
    library: &[STREAMS, include_str!("components/feeds/library.wat")],
    words: &[("STREAMS", "wakebox:test/feeds"), ("FUNCTION", "bytes")],
    function: RUN_NEWER,
    errors: &[],
};

#[derive(Clone, Serialize)]
enum State {
    Absent,
    Since(u64),
    Of(Vec<i16>),
}

#[derive(Clone, Serialize)]
struct Rights {
    read: bool,
    write: bool,
    run: bool,
}

#[derive(Clone, Serialize)]
struct Person {
    name: String,
    age: u8,
    state: State,
    rights: Rights,
    pair: (f32, char),
}

fn person(name: &str, age: u8, state: State) -> Person {
    let rights = Rights {
        read: true,
        write: false,
        run: age > 20,
    };
    Person {
        name: name.into(),
        age,
        state,
        rights,
        pair: (-f32::from(age), 'ß'),
    }
}

/// A program with all functions, which may be replaced, and what it says.
async fn run(
    program: &str,
    with: impl FnOnce(Builder) -> Builder,
) -> (Outcome, Vec<String>, String) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let (numbers, texts) = (said.clone(), said.clone());
    let (builder, _, err) = sandbox(FEEDS.component(program));
    let builder = hearing(
        builder,
        move |number| numbers.lock().unwrap().push(number.to_string()),
        move |text| texts.lock().unwrap().push(text),
    );
    let builder = builder
        .host_stream(
            "wakebox:test/feeds.numbers",
            |_: HostContext, (to,): (u32,)| futures_util::stream::iter(1..=to),
        )
        .host_stream("wakebox:test/feeds.bytes", |_: HostContext, (): ()| {
            let parts = ["hello, ", "", "world", " of streams"];
            futures_util::stream::iter(parts.map(|part| part.as_bytes().to_vec()))
        })
        .host_stream("wakebox:test/feeds.people", |_: HostContext, (): ()| {
            futures_util::stream::iter([
                person("Ada", 36, State::Since(1843)),
                person("Bob", 7, State::Absent),
                person("Gödel", 71, State::Of(vec![1, -2])),
            ])
        })
        .host_stream("wakebox:test/feeds.wrong", |_: HostContext, (): ()| {
            futures_util::stream::iter(["no number".to_owned()])
        })
        .host_fn(
            "wakebox:test/feeds.later",
            async |_: HostContext, (key,): (String,)| key,
        );
    let outcome = with(builder).build().unwrap().run().await.unwrap();
    let said = said.lock().unwrap().clone();
    (outcome, said, err.text())
}

async fn said(program: &str) -> Vec<String> {
    let (outcome, said, err) = run(program, |builder| builder).await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_host_comes_to_its_end_or_is_left() {
    let numbers = "
        (call $say (call $say-numbers (call $numbers (i32.const 3)) (i32.const 9)))
        (call $say (call $say-numbers (call $numbers (i32.const 1000000000)) (i32.const 2)))";
    assert_eq!(said(numbers).await, ["1", "2", "3", "0", "1", "2", "1"]);
    assert_eq!(
        said("(call $say-bytes)").await.concat(),
        "hello, world of streams"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_every_kind_come() {
    let expected = [
        ["Ada", "36", "1", "1843", "5", "-36", "223"].as_slice(),
        &["Bob", "7", "0", "1", "-7", "223"],
        &["Gödel", "71", "2", "-2", "5", "-71", "223"],
    ];
    assert_eq!(said("(call $say-people)").await, expected.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_is_a_call_that_is_in_flight_before_it_is_awaited() {
    // None returns before all three were called.
    let program = "
        (local.set $d (call $later <one>))
        (local.set $f (call $later <two>))
        (local.set $g (call $later <three>))
        (call $say-later (local.get $g))
        (call $say-later (local.get $d))
        (call $say-later (local.get $f))";
    let all = Arc::new(Barrier::new(3));
    let later = move |_: HostContext, (key,): (String,)| {
        let all = all.clone();
        async move {
            all.wait().await;
            format!("{key}!")
        }
    };
    let (outcome, said, err) = run(program, |builder| {
        builder.host_fn("wakebox:test/feeds.later", later)
    })
    .await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
    assert_eq!(said, ["three!", "one!", "two!"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_is_dropped_on_the_host() {
    let (gone, is_gone) = oneshot::channel::<()>();
    let gone = Mutex::new(Some(gone));
    let program = "
        (local.set $d (call $numbers (i32.const 1)))
        (call $say (call $say-numbers (local.get $d) (i32.const 1)))
        (call $end-numbers (local.get $d))
        (call $say-later (call $later <end>))";
    let is_gone = Mutex::new(Some(is_gone));
    let (outcome, said, err) = run(program, move |builder| {
        builder
            .host_stream(
                "wakebox:test/feeds.numbers",
                move |_: HostContext, (_,): (u32,)| {
                    let gone = gone.lock().unwrap().take();
                    futures_util::stream::unfold((0_u32, gone), async |(number, gone)| match number
                    {
                        0 => Some((7_u32, (1, gone))),
                        _ => std::future::pending().await,
                    })
                },
            )
            .host_fn(
                "wakebox:test/feeds.later",
                move |_: HostContext, (key,): (String,)| {
                    let is_gone = is_gone.lock().unwrap().take();
                    async move {
                        // The sender was dropped, and with it the stream.
                        let _ = is_gone.unwrap().await;
                        key
                    }
                },
            )
    })
    .await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
    assert_eq!(said, ["7", "1", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_another_type_end_the_component() {
    let program = "(call $say (call $say-numbers (call $wrong) (i32.const 1)))";
    let (outcome, said, err) = run(program, |builder| builder).await;
    assert_eq!((outcome, said.len()), (Outcome::Exit(1), 0));
    assert!(
        err.contains("next item of `wakebox:test/feeds.wrong`"),
        "{err}"
    );
}
