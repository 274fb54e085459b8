//! Resources that are the host's: components hold them by handles.

mod common;

use std::sync::{Arc, Mutex};

use wakebox::{Builder, HostContext, Outcome, Resources};

use common::programs::{Kind, RUN, hearing};
use common::sandbox;

const KEEPS: Kind = Kind {
    wit: include_str!("components/kept/world.wit"),
    world: None,
    library: &[include_str!("components/kept/library.wat")],
    words: &[],
    function: RUN,
    errors: &[],
};

type Said = Arc<Mutex<Vec<String>>>;

/// A sum, which says when it goes.
struct Sum {
    name: String,
    sum: Mutex<u32>,
    said: Said,
}

impl Sum {
    fn make(context: &HostContext, name: &str, sum: u32) -> u32 {
        let said = context.state::<Said>().clone();
        let (name, sum) = (name.to_owned(), Mutex::new(sum));
        let made = Self { name, sum, said };
        sums(context).insert(made).expect("no more sums")
    }

    fn number(&self) -> u32 {
        *self.sum.lock().unwrap()
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        let said = format!("{} is gone", self.name);
        self.said.lock().unwrap().push(said);
    }
}

fn sums(context: &HostContext) -> &Resources<Sum> {
    context.state()
}

/// The functions of the interfaces, but for the resource itself.
fn functions(builder: Builder) -> Builder {
    builder
        .host_fn(
            "wakebox:test/kept.[constructor]sum",
            async |context: HostContext, (name,): (String,)| Sum::make(&context, &name, 0),
        )
        .host_fn(
            "wakebox:test/kept.[method]sum.add",
            async |context: HostContext, (this, number): (u32, u32)| {
                let this = sums(&context).get(this).unwrap();
                let mut sum = this.sum.lock().unwrap();
                *sum += number;
                *sum
            },
        )
        .host_fn(
            "wakebox:test/kept.[static]sum.joined",
            async |context: HostContext, (one, other): (u32, u32)| {
                // The first is given away.
                let one = sums(&context).remove(one).unwrap();
                let other = sums(&context).get(other).unwrap();
                match one.number() + other.number() {
                    0 => Err(format!("{} and {} are nothing", one.name, other.name)),
                    sum => Ok(Sum::make(&context, "joined", sum)),
                }
            },
        )
        .host_fn(
            "wakebox:test/kept.[static]sum.split",
            async |context: HostContext, (list,): (Vec<u32>,)| {
                let number = |handle: &u32| sums(&context).get(*handle).unwrap().number();
                let list = list.iter().map(|handle| (number(handle), *handle));
                list.collect::<Vec<(u32, u32)>>()
            },
        )
        .host_fn(
            "wakebox:test/others.look",
            async |context: HostContext, (at,): (Option<u32>,)| match at {
                Some(at) => sums(&context).get(at).unwrap().number(),
                None => 99,
            },
        )
}

/// How a program ends that may hold three sums, what is said in their order, and what it says at the end.
async fn run(program: &str) -> (Outcome, Vec<String>, String) {
    let said = Said::default();
    let (numbers, texts) = (said.clone(), said.clone());
    let (builder, _, err) = sandbox(KEEPS.component(program));
    let builder = hearing(
        builder,
        move |number| numbers.lock().unwrap().push(number.to_string()),
        move |text| texts.lock().unwrap().push(text),
    );
    let builder = builder
        .state(said.clone())
        .host_resource::<Sum>("wakebox:test/kept.sum", 3);
    let outcome = functions(builder).build().unwrap().run().await.unwrap();
    let said = said.lock().unwrap().clone();
    (outcome, said, err.text())
}

async fn said(program: &str) -> Vec<String> {
    let (outcome, said, err) = run(program).await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_made_used_and_dropped_while_the_component_goes_on() {
    let program = "
        (local.set $d (call $new <one>))
        (local.set $f (call $new <two>))
        (call $say (call $add (local.get $d) (i32.const 40)))
        (call $say (call $add (local.get $f) (i32.const 7)))
        (call $say (call $add (local.get $d) (i32.const 2)))
        (call $end (local.get $d))
        (call $say (call $add (local.get $f) (i32.const 0)))";
    let expected = ["40", "7", "42", "one is gone", "7", "two is gone"];
    assert_eq!(said(program).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_travel_in_values_given_away_lent_and_given_back() {
    let program = "
        (local.set $d (call $new <one>))
        (local.set $f (call $new <two>))
        (drop (call $add (local.get $d) (i32.const 40)))
        (drop (call $add (local.get $f) (i32.const 2)))
        (local.set $d (call $joined (local.get $d) (local.get $f)))
        (call $say (call $look (i32.const 1) (local.get $d)))
        (call $say (call $look (i32.const 0) (i32.const 0)))
        (local.set $g (call $both (local.get $d) (local.get $f)))
        (call $say (call $look (i32.const 1) (local.get $g)))
        (call $end (local.get $g))
        (call $say (call $joined (call $new <three>) (call $new <four>)))
        (call $text <end>)";
    let said = said(program).await;
    let expected = [
        "one is gone",
        "42",
        "99",
        "42",
        "2",
        "2",
        "two is gone",
        "three is gone",
        "three and four are nothing",
        "0",
        "end",
    ];
    assert_eq!(said[..expected.len()], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_holds_no_more_than_it_may_at_a_time() {
    let again = "
        (local.set $g (i32.const 10))
        (loop $more
          (call $end (call $new <x>))
          (local.set $g (i32.sub (local.get $g) (i32.const 1)))
          (br_if $more (local.get $g)))";
    assert_eq!(said(again).await.len(), 10);
    let program = "
        (drop (call $new <a>)) (drop (call $new <b>)) (drop (call $new <c>))
        (call $say (i32.const 1))
        (drop (call $new <d>))
        (call $say (i32.const 2))";
    let (outcome, said, err) = run(program).await;
    assert_eq!(outcome, Outcome::Exit(1));
    assert_eq!(said[0], "1");
    assert!(!said.contains(&"2".into()), "{said:?}");
    assert!(err.contains("[constructor]sum"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_was_dropped_or_never_given_traps() {
    for program in [
        "(local.set $d (call $new <a>)) (call $end (local.get $d)) (call $end (local.get $d))",
        "(drop (call $add (i32.const 5) (i32.const 1)))",
    ] {
        let (outcome, _, err) = run(program).await;
        assert_eq!(outcome, Outcome::Exit(1));
        assert!(err.contains("handle"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_the_host_does_not_have_is_listed() {
    let (builder, _, err) = sandbox(KEEPS.component("(call $end (call $new <a>))"));
    let builder = functions(hearing(builder, |_| (), |_| ()));
    let outcome = builder.build().unwrap().run().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(1));
    let missing = "imports:\n  wakebox:test/kept.[resource-drop]sum: the host has no function";
    assert!(err.text().contains(missing), "{}", err.text());
}

#[test]
fn inspect_names_what_makes_uses_and_drops_a_resource() {
    let said = wakebox_wasm::inspect(&KEEPS.component("(call $end (call $new <a>))")).unwrap();
    for function in ["[constructor]sum", "[resource-drop]sum"] {
        let line = format!("  wakebox:test/kept.{function}, a host function\n");
        assert!(said.contains(&line), "{said}");
    }
}
